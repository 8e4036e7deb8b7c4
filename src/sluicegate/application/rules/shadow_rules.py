"""Rules in shadow mode: counting and publishing what they would have denied."""

from collections import Counter

from sluicegate.application.check import Check
from sluicegate.application.failure_policy import FailurePolicy, reason_of
from sluicegate.application.notifier import Notifier
from sluicegate.domain.events import RateLimitShadowDenied


class ShadowRules:
    """Count and publish what rules in shadow mode would deny.

    Args:
        notifier: Publishes the events.
        failure_policy: Counts what the storage did not decide.
    """

    def __init__(self, notifier: Notifier, failure_policy: FailurePolicy) -> None:
        self._notifier = notifier
        self._failure_policy = failure_policy
        self.denials: Counter[str] = Counter()
        """How many requests rules in shadow mode would have denied, by the rule's name."""

    def record(self, check: Check) -> bool:
        """Note what came of a check's shadows.

        Returns:
            Whether the storage decided all of them. Else no request is denied for it, but it is a failure of the storage all
            the same.
        """
        error: Exception | None = None
        for shadow in check.shadows:
            if shadow.error is not None:
                error = shadow.error
            elif shadow.result is not None and not shadow.result.allowed:
                self._would_deny(shadow, shadow.result.retry_after)
        if error is not None and check.degraded is None:  # else it is the same failure
            self._note_failure(check, error)
        return error is None

    def _note_failure(self, check: Check, error: Exception) -> None:
        reason = reason_of(error)
        if not check.requests:  # else the check itself was decided, and is no failure
            self._failure_policy.count(reason)
            self._failure_policy.outage.note_failure(reason)
        self._notifier.warn_throttled(
            reason,
            "The storage could not decide a rule in shadow mode; it was not counted.",
            error=error,
            endpoint=None if check.rules is None else check.rules.endpoint,
        )

    def _would_deny(self, shadow: Check, retry_after: float) -> None:
        rules = shadow.rules
        assert rules is not None  # noqa: S101 - a shadow is the check of a rule
        limit = rules.limits[0]
        self.denials[limit.rule.policy] += 1
        if self._notifier.has_listener(RateLimitShadowDenied):
            self._notifier.publish(
                RateLimitShadowDenied(
                    endpoint=rules.endpoint,
                    identifier=limit.identifier_of(shadow.identifier),
                    scope=limit.scope,
                    cost=shadow.cost or limit.rule.cost,
                    policy=limit.rule.policy,
                    retry_after=retry_after,
                )
            )
