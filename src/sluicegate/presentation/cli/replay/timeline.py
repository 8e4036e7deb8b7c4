"""Count events over time in a bounded number of bins: the width grows with the span."""

from collections.abc import Iterator

WIDTHS_S = (
    1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800,
)  # fmt: skip
"""The widths of bins, in seconds, each a multiple of the one before, so that bins merge exactly; beyond these they double."""

MAX_BINS = 240


class Timeline:
    """Count events of some kinds by when they happened.

    Args:
        kinds: How many kinds there are; they are numbered from 0.
        max_bins: The most bins from the first event to the last.
    """

    def __init__(self, kinds: int = 1, max_bins: int = MAX_BINS) -> None:
        self._kinds = kinds
        self._max_bins = max_bins
        self._bins: dict[int, list[int]] = {}
        self._first = 0
        self._last = -1
        self.width_s = WIDTHS_S[0]
        """The width of a bin in seconds. Bins begin at multiples of it since 1970, in UTC."""

    def add(self, time_us: int, kind: int = 0, count: int = 1) -> None:
        """Count events at an instant in microseconds since 1970."""
        number = time_us // 1_000_000 // self.width_s
        found = self._bins.get(number)
        if found is None:
            number = self._make_room(time_us)
            found = self._bins.setdefault(number, [0] * self._kinds)
        found[kind] += count

    def _make_room(self, time_us: int) -> int:
        """Widen the bins until one more fits; return its number."""
        while True:
            number = time_us // 1_000_000 // self.width_s
            first, last = (min(self._first, number), max(self._last, number)) if self._bins else (number, number)
            if last - first < self._max_bins:
                self._first, self._last = first, last
                return number
            self.widen(next((width for width in WIDTHS_S if width > self.width_s), 2 * self.width_s))

    def widen(self, width_s: int) -> None:
        """Merge the bins into wider ones, whose width is a multiple of theirs."""
        merged: dict[int, list[int]] = {}
        for number, counts in self._bins.items():
            into = merged.setdefault(number * self.width_s // width_s, [0] * self._kinds)
            for kind, count in enumerate(counts):
                into[kind] += count
        self._bins = merged
        self.width_s = width_s
        if merged:
            self._first, self._last = min(merged), max(merged)

    def rows(self) -> Iterator[tuple[int, list[int]]]:
        """Yield each bin from the first to the last, empty ones too: its beginning in seconds since 1970, and its counts."""
        if self._bins:
            for number in range(self._first, self._last + 1):
                yield number * self.width_s, self._bins.get(number, [0] * self._kinds)

    def busiest(self, kind: int = 0) -> tuple[int, int] | None:
        """Return the beginning of the bin with the most events of a kind, and how many; None if there are none."""
        count, number = max(((counts[kind], -number) for number, counts in self._bins.items()), default=(0, 0))
        return (-number * self.width_s, count) if count else None
