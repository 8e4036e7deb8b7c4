"""Find patterns by the literals that they begin and end with, at a cost that their number does not change."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from sluicegate.domain.routing.pattern import Fits

T = TypeVar("T")


class AffixIndex(Generic[T]):
    """Hold values under a prefix, a suffix, and a test of what stands between them.

    A text is cut at each length that occurs, of which templates have a handful, not at each prefix.
    """

    __slots__ = ("_by_prefix",)

    def __init__(self) -> None:
        self._by_prefix: dict[int, dict[str, dict[int, dict[str, list[tuple[Fits, T]]]]]] = {}

    def add(self, prefix: str, suffix: str, fits: Fits, value: T) -> None:
        """Hold a value."""
        by_suffix = self._by_prefix.setdefault(len(prefix), {}).setdefault(prefix, {})
        by_suffix.setdefault(len(suffix), {}).setdefault(suffix, []).append((fits, value))

    def find(self, text: str) -> Iterator[T]:
        """Return the values whose prefix, suffix and test fit, in no particular order."""
        size = len(text)
        for start, by_prefix in self._by_prefix.items():
            by_suffix = by_prefix.get(text[:start])
            if by_suffix is None:
                continue
            for length, suffixes in by_suffix.items():
                end = size - length
                if end < start:
                    continue
                for fits, value in suffixes.get(text[end:], ()):
                    if fits(text[start:end]):
                        yield value
