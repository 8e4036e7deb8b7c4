"""Count the events of a limiter. The number of series depends on the rules alone, whatever clients send."""

from typing import Final

from sluicegate.application.metrics.catalogue import DURATION, FAILURES, REQUESTS, SHADOW_DENIED, UNCHARGED
from sluicegate.application.metrics.meter_sink import MeterSink
from sluicegate.domain.decided import DECIDED_EVENTS, decided
from sluicegate.domain.events import RateLimitDebtCapped, RateLimitEvent, RateLimitShadowDenied
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.domain.rules.rule_names import OTHER, RuleNames

_MAX_CAUSES: Final = 64  # there are about twenty; a storage of somebody else's may make them up


class DecisionMeter:
    """Turn events into numbers.

    Args:
        names: The names of the rules in force.
        sink: Keeps the numbers.
    """

    def __init__(self, names: RuleNames, sink: MeterSink) -> None:
        self._names = names
        self._sink = sink
        self._causes: set[str] = set()

    def subscribe(self, bus: SubscribableBus) -> None:
        """Listen to a bus."""
        for event_type in DECIDED_EVENTS:
            bus.subscribe(event_type, self._count)
        bus.subscribe(RateLimitShadowDenied, self._count_shadow_denied)
        bus.subscribe(RateLimitDebtCapped, self._count_uncharged)

    def _count(self, event: RateLimitEvent) -> None:
        what = decided(event)
        if what is None:
            return
        labels = self._names.labels(event.endpoint, event.rule)
        self._sink.add(REQUESTS, (*labels, what.result, what.reason), 1)
        if what.failed_by:
            self._sink.add(FAILURES, (what.failed_by, self._known(what.cause)), 1)
            self._sink.record(DURATION, ("failed",), what.elapsed_ms / 1000)
        elif what.reason == "quota":
            self._sink.record(DURATION, (what.result,), what.elapsed_ms / 1000)

    def _known(self, cause: str) -> str:
        """Return a cause, or `other` if there are too many."""
        if cause not in self._causes:
            if len(self._causes) >= _MAX_CAUSES:
                return OTHER
            self._causes.add(cause)
        return cause

    def _count_shadow_denied(self, event: RateLimitShadowDenied) -> None:
        self._sink.add(SHADOW_DENIED, self._names.labels(event.endpoint, event.policy), 1)

    def _count_uncharged(self, event: RateLimitDebtCapped) -> None:
        self._sink.add(UNCHARGED, self._names.labels(event.endpoint, event.policy), event.cost - event.charged)
