"""Rules in shadow mode: what they are asked beside a check, and what is told of what they would deny."""

from collections import Counter
from collections.abc import Sequence
from math import inf

from sluicegate.application.check import Check, ShadowedCheck
from sluicegate.application.lists_and_overrides import identifier_for
from sluicegate.application.notifier import Notifier
from sluicegate.domain.bucket_request import BucketRequest, Verdict
from sluicegate.domain.compiled_rules import Limit
from sluicegate.domain.errors import StorageError
from sluicegate.domain.events import RateLimitShadowDenied
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.token_bucket import to_result


class ShadowRules:
    """Count and publish what rules in shadow mode would deny.

    Args:
        notifier: Whom to tell.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self.denials: Counter[str] = Counter()
        """How many requests rules in shadow mode would have denied, by the rule's name."""

    def watch(
        self, shadowed: ShadowedCheck, identifier: Identifier, outcomes: Sequence[Verdict | Exception]
    ) -> Exception | None:
        """Note what came of the shadows' requests.

        Args:
            shadowed: What was asked.
            identifier: Who asked.
            outcomes: For each request that was sent a verdict, or what was raised.

        Returns:
            What was raised, if anything: it denies nobody anything, but is a failure of the storage all the same.
        """
        raised: Exception | None = None
        left = iter(outcomes)
        for limit_, request in zip(shadowed.endpoint_rules.shadows, shadowed.shadows, strict=True):
            if request is None:
                self._would_deny(shadowed, limit_, identifier, inf)
                continue
            outcome = next(left)
            if not isinstance(outcome, Verdict):
                raised = outcome if isinstance(outcome, Exception) else StorageError("bug", "not a verdict")
            elif not outcome.allowed:
                result = to_result(request, outcome.levels[0], allowed=False)
                self._would_deny(shadowed, limit_, identifier, result.retry_after)
        return raised

    def _would_deny(self, shadowed: ShadowedCheck, limit_: Limit, identifier: Identifier, retry_after: float) -> None:
        self.denials[limit_.rule.policy] += 1
        if self._notifier.wants(RateLimitShadowDenied):
            self._notifier.publish(
                RateLimitShadowDenied(
                    endpoint=shadowed.endpoint_rules.endpoint,
                    identifier=identifier_for(limit_, identifier),
                    scope=limit_.scope,
                    cost=shadowed.cost or limit_.rule.cost,
                    policy=limit_.rule.policy,
                    retry_after=retry_after,
                )
            )


def requests_of(shadowed: ShadowedCheck) -> list[tuple[BucketRequest, ...]]:
    """Return what to ask: independent checks, the one that decides first."""
    checks = [] if shadowed.check is None else [shadowed.check.requests]
    return checks + [(request,) for request in shadowed.shadows if request is not None]


def with_all_buckets(shadowed: ShadowedCheck) -> Check:
    """Return a check of all buckets, those of rules in shadow mode as well, for administrative calls."""
    requests = () if shadowed.check is None else shadowed.check.requests
    shadows = tuple(request for request in shadowed.shadows if request is not None)
    return Check(shadowed.endpoint_rules, requests + shadows, shadowed.cost)
