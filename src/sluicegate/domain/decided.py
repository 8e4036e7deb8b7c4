"""What an event says that a check decided, in the words of metrics and traces."""

from typing import Final, Literal, NamedTuple

from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitCheckSkipped,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
)

DECIDED_EVENTS: Final[tuple[type[RateLimitEvent], ...]] = (
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitCheckSkipped,
    RateLimitListed,
    RateLimitFailedOpen,
    RateLimitFailedClosed,
)
"""The events that tell of a decision. Each check has exactly one of them."""


class Decided(NamedTuple):
    """A decision.

    Args:
        result: What the client was told.
        reason: Why, in a word of a closed set: `quota`, `listed`, `switched_off`, `shadow`, `failed_open`, `failed_local` or
            `failed_closed`.
        cost: Tokens that were asked for.
        elapsed_ms: How long the storage was asked; 0.0 where it was not.
        failed_by: The failure policy that answered in the storage's place; empty: none did.
        cause: What kept the storage from answering, in a word; empty: nothing.
    """

    result: Literal["allowed", "denied"]
    reason: str
    cost: int
    elapsed_ms: float = 0.0
    failed_by: str = ""
    cause: str = ""


def decided(event: RateLimitEvent) -> Decided | None:
    """Return what an event says that a check decided; None if it is about something else."""
    if isinstance(event, RateLimitCheckAllowed | RateLimitCheckDenied):
        result = _result(isinstance(event, RateLimitCheckAllowed))
        return Decided(result, "quota", event.cost, event.execution_time_ms)
    if isinstance(event, RateLimitCheckSkipped):
        return Decided("allowed", event.because, event.cost)
    if isinstance(event, RateLimitListed):
        return Decided(_result(event.allowed), "listed", event.cost)
    if isinstance(event, RateLimitFailedOpen):
        reason = "failed_local" if event.policy == "local" else "failed_open"
        return Decided(_result(event.allowed), reason, event.cost, event.execution_time_ms, event.policy, event.reason)
    if isinstance(event, RateLimitFailedClosed):
        return Decided("denied", "failed_closed", event.cost, event.execution_time_ms, "deny", event.reason)
    return None


def _result(allowed: bool) -> Literal["allowed", "denied"]:
    return "allowed" if allowed else "denied"
