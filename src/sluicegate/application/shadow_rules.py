"""Rules in shadow mode: counting and publishing what they would have denied."""

from collections import Counter

from sluicegate.application.check import Check
from sluicegate.application.notifier import Notifier
from sluicegate.domain.events import RateLimitShadowDenied


class ShadowRules:
    """Count and publish what rules in shadow mode would deny.

    Args:
        notifier: Publishes the events.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self.denials: Counter[str] = Counter()
        """How many requests rules in shadow mode would have denied, by the rule's name."""

    def record(self, check: Check) -> Exception | None:
        """Note what came of a check's shadows.

        Returns:
            What kept the storage from deciding one of them, if anything: it denies no request, but is a failure of the
            storage all the same.
        """
        error: Exception | None = None
        for shadow in check.shadows:
            if shadow.error is not None:
                error = shadow.error
            elif shadow.result is not None and not shadow.result.allowed:
                self._would_deny(shadow, shadow.result.retry_after)
        return error

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
