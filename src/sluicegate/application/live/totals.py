"""The numbers of several processes together, and how fast they grow."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from sluicegate.application.live.worker_figures import WorkerFigures
from sluicegate.application.metrics.catalogue import DURATION, REQUESTS, Metric

Labels: TypeAlias = tuple[str, ...]

_BINS: Final = len(DURATION.bounds) + 1


class Totals:
    """Add up what processes count.

    Args:
        now: Their figures.
        before: Earlier ones of the same processes, as far as there are any.
    """

    def __init__(self, now: Sequence[WorkerFigures], before: Sequence[WorkerFigures]) -> None:
        self._numbers: dict[str, dict[Labels, float]] = {}
        earlier = {one.worker: one for one in before}
        self.rates: dict[Labels, float] = {}
        """Checks a second in the window, by the labels of `REQUESTS`."""
        self.bins = [0] * _BINS
        """Checks by how long they took."""
        self.bins_now = [0] * _BINS
        """The same, of the window."""
        self.window_us = 0
        """How long the window was; 0: there is none yet."""
        for worker in now:
            for name, labels, value in worker.numbers:
                series = self._numbers.setdefault(name, {})
                series[tuple(labels)] = series.get(tuple(labels), 0) + value
            for bins in worker.durations.values():
                _add(self.bins, bins, 1)
            was = earlier.get(worker.worker)
            if was is not None and was.started == worker.started:  # else it was started again, and counts from 0
                self._add_window(was, worker)

    def by_labels(self, metric: Metric) -> Mapping[Labels, float]:
        """Return the values of a metric, by its labels."""
        return self._numbers.get(metric.name, {})

    def one(self, metric: Metric) -> int:
        """Return the value of a metric without labels; 0 if it is not counted."""
        return int(self.by_labels(metric).get((), 0))

    def _add_window(self, was: WorkerFigures, now: WorkerFigures) -> None:
        window_us = now.read_us - was.read_us
        if window_us <= 0:
            return
        self.window_us = max(self.window_us, window_us)
        counted = _requests(was)
        for labels, value in _requests(now).items():
            self.rates[labels] = self.rates.get(labels, 0) + (value - counted.get(labels, 0)) * 1e6 / window_us
        for result, bins in now.durations.items():
            _add(self.bins_now, bins, 1)
            _add(self.bins_now, was.durations.get(result, ()), -1)


def quantile_ms(bins: Sequence[int], share: float) -> float | None:
    """Return an upper bound in milliseconds for a part of the checks; None: there are none, or it is above the highest bound.

    Args:
        bins: How many checks took how long.
        share: The part of them, 0 to 1.
    """
    needed, seen = share * sum(bins), 0
    if not needed:
        return None
    for bound_s, count in zip(DURATION.bounds, bins, strict=False):
        seen += count
        if seen >= needed:
            return bound_s * 1000
    return None


def _requests(worker: WorkerFigures) -> dict[Labels, float]:
    return {tuple(labels): value for name, labels, value in worker.numbers if name == REQUESTS.name}


def _add(sums: list[int], bins: Sequence[int], sign: int) -> None:
    for place, count in enumerate(bins):
        sums[place] += sign * count
