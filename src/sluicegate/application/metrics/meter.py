"""Measure a limiter: what every exporter does, whatever it does with the numbers."""

from collections.abc import Callable

from sluicegate.application.metrics.decision_meter import DecisionMeter
from sluicegate.application.metrics.limiter_state import Limiter, LimiterState
from sluicegate.application.metrics.meter_sink import MeterSink
from sluicegate.application.metrics.open_claims import OpenClaims
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.domain.rules.rule_names import RuleNames
from sluicegate.domain.storage_figures import StorageFigures
from sluicegate.runtime.system_clock import SuspendAwareClock


def measure(
    limiter: Limiter,
    bus: SubscribableBus,
    sink: MeterSink,
    figures_of: Callable[[object], StorageFigures | None],
) -> LimiterState:
    """Count what a limiter does from now on, and return what reads the rest.

    Args:
        limiter: The limiter.
        bus: The bus that the limiter was given.
        sink: Keeps the metrics of `OF_EVENTS`.
        figures_of: Returns the figures of a storage; None: it has none.
    """
    names = RuleNames(limiter.rules)
    claims = OpenClaims(names, sink, SuspendAwareClock().now_us)
    DecisionMeter(names, sink).subscribe(bus)
    claims.subscribe(bus)
    return LimiterState(limiter, bus, figures_of, claims)
