"""Keep the numbers of a meter in this process, for whoever reads them."""

from bisect import bisect_left
from collections.abc import Iterator

from sluicegate.application.metrics.catalogue import Metric
from sluicegate.runtime.mutex import held_here, new_mutex


class MeterStore:
    """A `MeterSink` in memory. Safe to share between threads."""

    def __init__(self) -> None:
        self._mutex = new_mutex()
        # By the names of metrics, whose hash costs a fraction of their own.
        self._counters: dict[str, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], list[int]]] = {}

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter."""
        if held_here(self._mutex):  # a signal handler in the midst of a call here
            return
        with self._mutex:
            series = self._counters.get(metric.name)
            if series is None:
                series = self._counters[metric.name] = {}
            series[labels] = series.get(labels, 0) + amount

    def record(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Count a value in its bin."""
        if held_here(self._mutex):
            return
        with self._mutex:
            series = self._histograms.get(metric.name)
            if series is None:
                series = self._histograms[metric.name] = {}
            bins = series.get(labels)
            if bins is None:
                bins = series[labels] = [0] * (len(metric.bounds) + 1)
            bins[bisect_left(metric.bounds, value)] += 1

    def counters(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Return the name of each counter's metric, the values of its labels, and its own."""
        with self._mutex:
            found = [
                (name, labels, value) for name, series in self._counters.items() for labels, value in series.items()
            ]
        return iter(found)

    def bins(self, metric: Metric) -> dict[tuple[str, ...], list[int]]:
        """Return how many values of a histogram there were in each bin, the last of which has no end, by its labels."""
        with self._mutex:
            return {labels: list(bins) for labels, bins in self._histograms.get(metric.name, {}).items()}
