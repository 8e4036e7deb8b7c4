"""What observers are told of a check. Without a bus and without a failure nothing here is called."""

from collections.abc import Callable
from typing import Final

from sluicegate.application.check import Check
from sluicegate.application.failure_policy import FallbackAnswer, reason_of
from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.lists_and_overrides import ListAnswer
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.application.rules.switch_news import warn_if_everything_is_off
from sluicegate.domain.buckets.token_bucket import binding
from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitCheckDenied,
    RateLimitCheckSkipped,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
)
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.endpoint_rules import EndpointRules
from sluicegate.domain.rules.rule import RateLimitRule


class CheckAnnouncer:
    """Publish the events of checks, those that have listeners, and write their log lines.

    Args:
        notifier: Publishes events and writes log lines.
        now_ns: What measures execution times: reads a monotonic clock in nanoseconds.
        observed: Whether there is a bus, which may have listeners.
    """

    def __init__(self, notifier: Notifier, now_ns: Callable[[], int], *, observed: bool) -> None:
        self._notifier: Final = notifier
        self._now_ns: Final = now_ns
        self._observed: Final = observed

    def attempt(self, check: Check) -> None:
        """Tell that the storage is about to be asked, and note when."""
        if self._notifier.has_listener(RateLimitCheckAttempted):
            self._notifier.publish(RateLimitCheckAttempted(**_facts_of(check)))  # type: ignore[arg-type]
        check.started_ns = self._now_ns()

    def result(self, check: Check, result: RateLimitResult) -> None:
        """Tell what the storage decided."""
        event: RateLimitEvent
        if result.allowed:
            if self._notifier.has_listener(RateLimitCheckAllowed):
                event = RateLimitCheckAllowed(
                    remaining_tokens=result.remaining,
                    execution_time_ms=self._elapsed_ms(check),
                    **_facts_of(check),  # type: ignore[arg-type]
                )
                self._notifier.publish(event)
        elif self._notifier.has_listener(RateLimitCheckDenied):
            event = RateLimitCheckDenied(
                retry_after=result.retry_after,
                execution_time_ms=self._elapsed_ms(check),
                **_facts_of(check),  # type: ignore[arg-type]
            )
            self._notifier.publish(event)

    def failure(self, check: Check, answer: FallbackAnswer, error: Exception) -> None:
        """Warn that the storage could not decide, and tell what was answered in its place."""
        reason, policy = reason_of(error), answer.policy
        self._notifier.warn_throttled(
            reason,
            "The storage could not decide a rate limit check; answered without it.",
            error=error,
            identifier=check.identifier,
            policy=policy,
            endpoint=None if check.rules is None else check.rules.endpoint,
        )
        event_type = RateLimitFailedClosed if policy == "deny" else RateLimitFailedOpen
        if not self._observed or not self._notifier.has_listener(event_type):
            return
        facts = _facts_of(check)
        facts["reason"], facts["execution_time_ms"] = reason, self._elapsed_ms(check)
        event: RateLimitEvent
        if policy == "deny":
            event = RateLimitFailedClosed(**facts)  # type: ignore[arg-type]
        else:
            event = RateLimitFailedOpen(policy=policy, allowed=answer.result.allowed, **facts)  # type: ignore[arg-type]
        self._notifier.publish(event)

    def unasked(self, check: Check, snapshot: RulesSnapshot, endpoint: object) -> None:
        """Tell of a check that asks the storage nothing."""
        rules = check.rules
        if check.listed is not None:
            self.listed(check.listed, check.cost)
        elif rules is None:
            self._notifier.log("debug", "No rate limit rule for this endpoint; allowed.", endpoint=endpoint)
        elif rules.disabled is None:
            self._impossible(check, rules)
        else:
            if not check.shadows:
                warn_if_everything_is_off(self._notifier, snapshot)
            if check.shadows or snapshot.switches:  # a rule with `enabled=False` publishes nothing
                self._skipped(check, rules)

    def listed(self, answer: ListAnswer, cost: int) -> None:
        """Tell that a list had a client."""
        if self._observed and self._notifier.has_listener(RateLimitListed):
            self._notifier.publish(
                RateLimitListed(
                    endpoint=answer.endpoint,
                    identifier=answer.identifier,
                    scope=answer.listing.scope,
                    cost=cost,
                    allowed=answer.result.allowed,
                    listed=answer.listing.identifier,
                )
            )

    def _skipped(self, check: Check, rules: EndpointRules) -> None:
        if self._observed and self._notifier.has_listener(RateLimitCheckSkipped):
            self._notifier.publish(
                RateLimitCheckSkipped(
                    endpoint=rules.endpoint,
                    identifier="",
                    scope="",
                    cost=check.cost,
                    because="shadow" if check.shadows else "switched_off",
                )
            )

    def _impossible(self, check: Check, rules: EndpointRules) -> None:
        self._notifier.warn_throttled(
            f"impossible:{rules.endpoint}",
            "A request costs more than its bucket can ever hold; denied.",
            endpoint=rules.endpoint,
            cost=check.cost,
            max_tokens=rules.max_cost,
        )
        if self._observed and check.result is not None:
            self.attempt(check)
            self.result(check, check.result)

    def _elapsed_ms(self, check: Check) -> float:
        return (self._now_ns() - check.started_ns) / 1e6


def _facts_of(check: Check) -> dict[str, object]:
    """Return what all events of a check have; scope and identifier are those of its first rule."""
    rules = check.rules
    assert rules is not None  # noqa: S101 - events are about rules
    limit = rules.limits[0]
    return {
        "endpoint": rules.endpoint,
        "identifier": limit.identifier_of(check.identifier),
        "scope": limit.scope,
        "rule": _binding_rule(check, rules).policy,
        "cost": check.cost or limit.rule.cost,
    }


def _binding_rule(check: Check, rules: EndpointRules) -> RateLimitRule:
    """Return the rule that an event about a check names: the one that its answer describes."""
    if check.degraded_rule is not None:
        return check.degraded_rule
    if check.verdict is not None and len(check.requests) > 1:
        return rules.limits[binding(check.requests, check.verdict)].rule
    return rules.limits[0].rule
