"""The port for what events count: each exporter implements it."""

from typing import Protocol

from sluicegate.application.metrics.catalogue import Metric


class MeterSink(Protocol):
    """What keeps the numbers."""

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a counter."""
        ...

    def record(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Record a value in a histogram."""
        ...
