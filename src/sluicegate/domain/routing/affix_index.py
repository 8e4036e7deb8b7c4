"""Find patterns by the literals that they begin and end with, at a cost that does not grow with their number."""

from typing import Generic, TypeVar

from sluicegate.domain.routing.pattern import Pattern

T = TypeVar("T")


class _SuffixIndex(Generic[T]):
    """Patterns with the same prefix, by their suffix."""

    __slots__ = ("by_length",)

    def __init__(self) -> None:
        self.by_length: dict[int, dict[str, list[tuple[Pattern, T]]]] = {}


class AffixIndex(Generic[T]):
    """Hold values by a prefix, a suffix, and a pattern for what stands between them.

    A text is cut at each length of a prefix or suffix that occurs. Templates have a handful of different lengths, however
    many prefixes and suffixes they have.
    """

    __slots__ = ("_by_length",)

    def __init__(self) -> None:
        self._by_length: dict[int, dict[str, _SuffixIndex[T]]] = {}

    def add(self, prefix: str, suffix: str, middle: Pattern, value: T) -> None:
        """Add a value."""
        index: _SuffixIndex[T] = self._by_length.setdefault(len(prefix), {}).setdefault(prefix, _SuffixIndex())
        index.by_length.setdefault(len(suffix), {}).setdefault(suffix, []).append((middle, value))

    def find(self, text: str) -> list[T]:
        """Return the values whose prefix, suffix and pattern match a text, in no particular order."""
        found: list[T] = []
        size = len(text)
        for start, by_prefix in self._by_length.items():
            index = by_prefix.get(text[:start])
            if index is None:
                continue
            for length, by_suffix in index.by_length.items():
                end = size - length
                if end < start:
                    continue
                entries = by_suffix.get(text[end:])
                if entries is None:
                    continue
                middle = text[start:end]
                for pattern, value in entries:
                    if pattern.matches(middle):
                        found.append(value)
        return found

    def values(self) -> list[T]:
        """Return all values."""
        return [
            value
            for by_prefix in self._by_length.values()
            for index in by_prefix.values()
            for by_suffix in index.by_length.values()
            for entries in by_suffix.values()
            for _, value in entries
        ]

    def patterns(self) -> list[Pattern]:
        """Return the patterns of all values."""
        return [
            pattern
            for by_prefix in self._by_length.values()
            for index in by_prefix.values()
            for by_suffix in index.by_length.values()
            for entries in by_suffix.values()
            for pattern, _ in entries
        ]
