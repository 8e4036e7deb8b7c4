"""Rules in shadow mode: what they are asked beside a check, and what is told of what they would deny."""

from collections import Counter
from collections.abc import Sequence
from math import inf

from sluicegate.application.check import Check, ShadowedCheck
from sluicegate.application.lists_and_overrides import identifier_for
from sluicegate.application.notifier import Announcer
from sluicegate.domain.bucket_request import Demand, Verdict
from sluicegate.domain.compiled_rules import Meter
from sluicegate.domain.errors import StorageError
from sluicegate.domain.events import RateLimitShadowDenied
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.token_bucket import to_result


class ShadowWatch:
    """Count and publish what rules in shadow mode would deny.

    Args:
        announcer: Whom to tell.
    """

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self.denials: Counter[str] = Counter()
        """How many requests rules in shadow mode would have denied, by the rule's name."""

    def watch(
        self, shadowed: ShadowedCheck, identifier: Identifier, outcomes: Sequence[Verdict | Exception]
    ) -> Exception | None:
        """Note what came of the shadows' demands.

        Args:
            shadowed: What was asked.
            identifier: Who asked.
            outcomes: For each demand that was sent a verdict, or what was raised.

        Returns:
            What was raised, if anything: it denies nobody anything, but is a failure of the storage all the same.
        """
        raised: Exception | None = None
        left = iter(outcomes)
        for meter, demand in zip(shadowed.plan.shadows, shadowed.shadows, strict=True):
            if demand is None:
                self._would_deny(shadowed, meter, identifier, inf)
                continue
            outcome = next(left)
            if not isinstance(outcome, Verdict):
                raised = outcome if isinstance(outcome, Exception) else StorageError("bug", "not a verdict")
            elif not outcome.allowed:
                result = to_result(demand, outcome.readings[0], allowed=False)
                self._would_deny(shadowed, meter, identifier, result.retry_after)
        return raised

    def _would_deny(self, shadowed: ShadowedCheck, meter: Meter, identifier: Identifier, retry_after: float) -> None:
        self.denials[meter.rule.policy] += 1
        if self._announcer.wants(RateLimitShadowDenied):
            self._announcer.publish(
                RateLimitShadowDenied(
                    endpoint=shadowed.plan.endpoint,
                    identifier=identifier_for(meter, identifier),
                    scope=meter.scope,
                    cost=shadowed.cost or meter.rule.cost,
                    policy=meter.rule.policy,
                    retry_after=retry_after,
                )
            )


def demands_of(shadowed: ShadowedCheck) -> list[tuple[Demand, ...]]:
    """Return what to ask: independent checks, the one that decides first."""
    checks = [] if shadowed.check is None else [shadowed.check.demands]
    return checks + [(demand,) for demand in shadowed.shadows if demand is not None]


def with_all_buckets(shadowed: ShadowedCheck) -> Check:
    """Return a check of all buckets, those of rules in shadow mode as well, for administrative calls."""
    demands = () if shadowed.check is None else shadowed.check.demands
    shadows = tuple(demand for demand in shadowed.shadows if demand is not None)
    return Check(shadowed.plan, demands + shadows, shadowed.cost)
