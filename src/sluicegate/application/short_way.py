"""Which short way of a check a storage offers, and who may go it."""

from collections.abc import Callable
from functools import partial
from typing import cast

from sluicegate.application.held_buckets import QuickStorage, build_quick_checks
from sluicegate.application.quick_check import HereStorage, PlainChecks, QuickCheck, QuickChecks, build_here_checks
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.events import RateLimitCheckAllowed, RateLimitCheckAttempted, RateLimitEvent
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.result import Success


def short_way_to(storage: object) -> Callable[[PlainChecks], QuickChecks] | None:
    """Return what builds the short ways to a storage; None if it has none."""
    if getattr(storage, "immediate", False) and getattr(storage, "take_one_now", None) is not None:
        return partial(build_quick_checks, storage=cast("QuickStorage", storage))
    if all(hasattr(storage, name) for name in ("decide_here", "denials_at_hand", "loans_at_hand")):
        return partial(build_here_checks, storage=cast("HereStorage", storage))
    return None


def listened_to(
    quick_checks: QuickChecks,
    wants: Callable[[type[RateLimitEvent]], bool],
    now_us: Callable[[], int],
    denied: Callable[[str, Identifier, RateLimitResult, int], None],
) -> QuickChecks:
    """Return the short ways where there is a bus: whoever wants more than the denials needs the long one.

    Args:
        quick_checks: The short ways without a bus.
        wants: Whether anybody listens to a type of event.
        now_us: What measures execution times.
        denied: Tells of a denial: endpoint, identifier, result, and when the check began.
    """

    def for_listeners(endpoint: str, quick_check: QuickCheck) -> QuickCheck:
        def check_for_listeners(identifier: str) -> Success[RateLimitResult] | None:
            if wants(RateLimitCheckAllowed) or wants(RateLimitCheckAttempted):
                return None
            started_us = now_us()
            answer = quick_check(identifier)
            if answer is not None and not answer.value.allowed:
                denied(endpoint, identifier, answer.value, started_us)
            return answer

        return check_for_listeners

    return {endpoint: for_listeners(endpoint, quick_check) for endpoint, quick_check in quick_checks.items()}
