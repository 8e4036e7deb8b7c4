"""Count the events of a limiter. The number of series depends on the rules alone, whatever clients send."""

from typing import Final

from sluicegate.application.metrics.catalogue import (
    DURATION,
    FAILURES,
    OTHER,
    REQUESTS,
    SHADOW_DENIED,
    UNCHARGED,
)
from sluicegate.application.metrics.meter_sink import MeterSink
from sluicegate.application.metrics.rule_names import RuleNames
from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitCheckSkipped,
    RateLimitDebtCapped,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
    RateLimitShadowDenied,
)
from sluicegate.domain.protocols import SubscribableBus

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
        bus.subscribe(RateLimitCheckAllowed, self._count_allowed)
        bus.subscribe(RateLimitCheckDenied, self._count_denied)
        bus.subscribe(RateLimitCheckSkipped, self._count_skipped)
        bus.subscribe(RateLimitListed, self._count_listed)
        bus.subscribe(RateLimitFailedOpen, self._count_failed_open)
        bus.subscribe(RateLimitFailedClosed, self._count_failed_closed)
        bus.subscribe(RateLimitShadowDenied, self._count_shadow_denied)
        bus.subscribe(RateLimitDebtCapped, self._count_uncharged)

    def _count_allowed(self, event: RateLimitCheckAllowed) -> None:
        self._count(event.endpoint, event.rule, "allowed", "quota")
        self._sink.record(DURATION, ("allowed",), event.execution_time_ms / 1000)

    def _count_denied(self, event: RateLimitCheckDenied) -> None:
        self._count(event.endpoint, event.rule, "denied", "quota")
        self._sink.record(DURATION, ("denied",), event.execution_time_ms / 1000)

    def _count_skipped(self, event: RateLimitCheckSkipped) -> None:
        self._count(event.endpoint, "", "allowed", event.because)

    def _count_listed(self, event: RateLimitListed) -> None:
        self._count(event.endpoint, "", "allowed" if event.allowed else "denied", "listed")

    def _count_failed_open(self, event: RateLimitFailedOpen) -> None:
        reason = "failed_local" if event.policy == "local" else "failed_open"
        self._count(event.endpoint, event.rule, "allowed" if event.allowed else "denied", reason)
        self._count_failure(event.policy, event.reason, event.execution_time_ms)

    def _count_failed_closed(self, event: RateLimitFailedClosed) -> None:
        self._count(event.endpoint, event.rule, "denied", "failed_closed")
        self._count_failure("deny", event.reason, event.execution_time_ms)

    def _count_failure(self, policy: str, cause: str, execution_time_ms: float) -> None:
        if cause not in self._causes:
            if len(self._causes) < _MAX_CAUSES:
                self._causes.add(cause)
            else:
                cause = OTHER
        self._sink.add(FAILURES, (policy, cause), 1)
        self._sink.record(DURATION, ("failed",), execution_time_ms / 1000)

    def _count_shadow_denied(self, event: RateLimitShadowDenied) -> None:
        self._sink.add(SHADOW_DENIED, self._names.labels(event.endpoint, event.policy), 1)

    def _count_uncharged(self, event: RateLimitDebtCapped) -> None:
        self._sink.add(UNCHARGED, self._names.labels(event.endpoint, event.policy), event.cost - event.charged)

    def _count(self, endpoint: str, rule: str, result: str, reason: str) -> None:
        self._sink.add(REQUESTS, (*self._names.labels(endpoint, rule), result, reason), 1)
