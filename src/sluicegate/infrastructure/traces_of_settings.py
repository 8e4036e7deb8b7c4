"""Trace the checks of a limiter if the settings say so. OpenTelemetry is imported only then."""

from typing import TYPE_CHECKING, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import EventBusProtocol
from sluicegate.infrastructure.event_bus import InlineEventBus
from sluicegate.infrastructure.settings import Settings
from sluicegate.runtime.extras import needs_extra

if TYPE_CHECKING:
    from sluicegate.infrastructure.opentelemetry_traces import OpenTelemetryTraces, Traced


def traces_of(settings: Settings) -> "type[OpenTelemetryTraces] | None":
    """Return what traces checks; None: the settings do not say so.

    Raises:
        InvalidInputError: If it is not installed.
    """
    if not settings.traces:
        return None
    try:
        with needs_extra("SLUICEGATE_TRACES"):
            from sluicegate.infrastructure.opentelemetry_traces import OpenTelemetryTraces  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        raise InvalidInputError(str(error)) from None
    return OpenTelemetryTraces


def bus_for_traces(settings: Settings, event_bus: EventBusProtocol | None) -> EventBusProtocol | None:
    """Return the bus of a limiter: one of its own, if its checks are to be traced and it is given none."""
    return InlineEventBus() if settings.traces and event_bus is None else event_bus


def trace_checks(settings: Settings, limiter: "Traced", event_bus: EventBusProtocol | None) -> None:
    """Make spans of a limiter's checks, if the settings say so.

    Args:
        settings: The settings.
        limiter: The limiter.
        event_bus: What `bus_for_traces` returned, and the limiter was given.

    Raises:
        InvalidInputError: If OpenTelemetry is not installed, or spans cannot be made of what this bus tells.
    """
    traces = traces_of(settings)
    if traces is None:
        return
    try:
        traces(limiter, cast("InlineEventBus", event_bus))
    except InvalidInputError as error:
        raise InvalidInputError(f"SLUICEGATE_TRACES: {error}") from None
