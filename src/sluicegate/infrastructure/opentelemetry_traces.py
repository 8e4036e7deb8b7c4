"""A span for each check, by OpenTelemetry's API alone: the child of the span that is current where the check is made."""

from typing import Protocol
from weakref import WeakSet

from opentelemetry.trace import Status, StatusCode, TracerProvider, get_tracer_provider

from sluicegate.domain.decided import DECIDED_EVENTS, Decided, decided
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.rules.rule_names import NamedRules, RuleNames
from sluicegate.infrastructure.event_bus import InlineEventBus
from sluicegate.runtime.system_clock import wall_ns

_traced: WeakSet[InlineEventBus] = WeakSet()


class Traced(Protocol):
    """A limiter of either kind, as far as its spans need it."""

    @property
    def rules(self) -> NamedRules:
        """The rules in force."""
        ...


class OpenTelemetryTraces:
    """Make a span of each check that a limiter decides. No attribute has a client's identifier.

    Args:
        limiter: The limiter.
        bus: The bus that the limiter was given. Its subscribers are called where the check is made, which is where the span's
            parent is known.
        tracer_provider: Gets the spans; None: the one that the process has set.

    Raises:
        InvalidInputError: If the checks of this bus are traced already.
        InvalidTypeError: If the bus is another one.
    """

    def __init__(self, limiter: Traced, bus: InlineEventBus, *, tracer_provider: TracerProvider | None = None) -> None:
        if not isinstance(bus, InlineEventBus):
            raise InvalidTypeError(
                f"bus={bus!r:.80}: expected an InlineEventBus, which tells of a check where the request's span is current"
            )
        if bus in _traced:
            raise InvalidInputError("bus: its checks are traced already; give each limiter a bus of its own")
        _traced.add(bus)
        self._names = RuleNames(limiter.rules)
        provider = get_tracer_provider() if tracer_provider is None else tracer_provider
        self._tracer = provider.get_tracer("sluicegate")
        for event_type in DECIDED_EVENTS:
            bus.subscribe(event_type, self._trace)

    def _trace(self, event: RateLimitEvent) -> None:
        what = decided(event)
        if what is None:
            return
        ended_ns = wall_ns()
        endpoint, policy = self._names.labels(event.endpoint, event.rule)
        span = self._tracer.start_span(
            f"rate_limit {endpoint}",
            start_time=ended_ns - round(what.elapsed_ms * 1e6),
            attributes=_attributes(what, endpoint, policy),
        )
        if what.failed_by:
            span.set_status(Status(StatusCode.ERROR, f"the storage did not decide: {what.cause}"))
        span.end(ended_ns)


def _attributes(what: Decided, endpoint: str, policy: str) -> dict[str, str | int | float | bool]:
    attributes: dict[str, str | int | float | bool] = {
        "rate_limit.decision": what.result,
        "rate_limit.reason": what.reason,
        "rate_limit.endpoint": endpoint,
        "rate_limit.cost": what.cost,
    }
    if policy:
        attributes["rate_limit.policy"] = policy
    if what.result == "denied":
        attributes["rate_limit.rejected_by"] = policy or what.reason
    if what.failed_by:
        attributes["rate_limit.on_storage_error"] = what.failed_by
        attributes["rate_limit.fail_open"] = what.failed_by != "deny"
        attributes["rate_limit.cause"] = what.cause
    return attributes
