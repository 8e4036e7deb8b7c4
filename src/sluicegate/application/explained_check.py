"""Why a check would be answered as it would be now: the rules that it asks, and what is in their buckets."""

import msgspec

from sluicegate.application.check import Check, decision_of
from sluicegate.application.failure_policy import reason_of
from sluicegate.application.rules.rule_explanation import Explanation
from sluicegate.domain.buckets.bucket_request import BucketLevel


class ExplainedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a check would find now.

    Args:
        explanation: The rules, and why they are asked.
        allowed: Whether it would pass; None: the storage did not tell.
        retry_after: Seconds until it would, 0 if it would now; infinite: never; None: the storage did not tell.
        denied_by: The names of the rules that have not enough tokens.
        tokens_left: Whole tokens in the buckets of the rules that decide, by the bucket's key.
        storage_fault: Why the storage did not tell, in one word.
    """

    explanation: Explanation
    allowed: bool | None
    retry_after: float | None
    denied_by: tuple[str, ...] = ()
    tokens_left: dict[str, int] = {}
    storage_fault: str | None = None


def explained(explanation: Explanation, check: Check, levels: tuple[BucketLevel, ...]) -> ExplainedCheck:
    """Return what a look at the buckets found.

    Args:
        explanation: Which rules are asked.
        check: The check of the same arguments, with its answer.
        levels: The levels of the buckets that it asks; empty if it asks none.
    """
    decision = decision_of(check)
    return ExplainedCheck(
        explanation=explanation,
        allowed=decision.result.allowed,
        retry_after=decision.result.retry_after,
        denied_by=tuple([rule.policy for rule in decision.violated]),
        tokens_left={
            request.key: level.level // request.spec.units_per_token
            for request, level in zip(check.requests, levels, strict=True)
        },
    )


def unexplained(explanation: Explanation, error: Exception) -> ExplainedCheck:
    """Return what there is to say of a check while the storage fails.

    Args:
        explanation: Which rules are asked.
        error: What kept the storage from answering.
    """
    return ExplainedCheck(explanation=explanation, allowed=None, retry_after=None, storage_fault=reason_of(error))
