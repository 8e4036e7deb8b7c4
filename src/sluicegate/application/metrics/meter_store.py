"""Keep the numbers of a meter in this process, for whoever reads them."""

from bisect import bisect_left

from sluicegate.application.metrics.catalogue import Metric
from sluicegate.runtime.mutex import held_here, new_mutex

Series = tuple[Metric, tuple[str, ...]]
"""A metric and the values of its labels."""


class MeterStore:
    """A `MeterSink` in memory. Safe to share between threads."""

    def __init__(self) -> None:
        self._mutex = new_mutex()
        self._counters: dict[Series, float] = {}
        self._histograms: dict[Series, list[int]] = {}

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter."""
        if held_here(self._mutex):  # a signal handler in the midst of a call here
            return
        with self._mutex:
            self._counters[metric, labels] = self._counters.get((metric, labels), 0) + amount

    def record(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Count a value in its bin."""
        if held_here(self._mutex):
            return
        with self._mutex:
            bins = self._histograms.get((metric, labels))
            if bins is None:
                bins = self._histograms[metric, labels] = [0] * (len(metric.bounds) + 1)
            bins[bisect_left(metric.bounds, value)] += 1

    def counters(self) -> dict[Series, float]:
        """Return all counters."""
        with self._mutex:
            return dict(self._counters)

    def histograms(self) -> dict[Series, list[int]]:
        """Return how many values there were in each bin, the last of which has no end."""
        with self._mutex:
            return {series: list(bins) for series, bins in self._histograms.items()}
