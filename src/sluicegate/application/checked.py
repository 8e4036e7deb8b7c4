"""A check's answer with what a face needs to tell of it: which rules were asked, and whether the storage was."""

import msgspec

from sluicegate.application.check import Check
from sluicegate.application.failure_policy import Answer
from sluicegate.domain.bucket_request import Verdict
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.rule import OnStorageError, RateLimitRule
from sluicegate.domain.token_bucket import to_result


class Checked(msgspec.Struct, frozen=True, gc=False):
    """What a check answered, and why.

    Args:
        result: The answer, as `is_allowed` gives it.
        rules: The rules that were asked; empty where none holds.
        tightest: The one that the answer describes; None where there is none.
        degraded: The failure policy that answered in the storage's place; None: the storage decided.
    """

    result: RateLimitResult
    rules: tuple[RateLimitRule, ...] = ()
    tightest: RateLimitRule | None = None
    degraded: OnStorageError | None = None


def decided(check: Check, result: RateLimitResult, verdict: Verdict) -> Checked:
    """Return the storage's answer with the rules that were asked, and the one that it describes."""
    rules = tuple([limit_.rule for limit_ in check.endpoint_rules.limits])
    if len(rules) == 1:
        return Checked(result, rules, rules[0])
    pairs = zip(rules, check.requests, verdict.levels, strict=True)
    tightest = [rule for rule, d, r in pairs if to_result(d, r, allowed=verdict.allowed) == result]
    return Checked(result, rules, tightest[0] if tightest else None)


def degraded(check: Check, answer: Answer) -> Checked:
    """Return the failure policy's answer with the rules that were to be asked."""
    rules = tuple([limit_.rule for limit_ in check.endpoint_rules.limits])
    tightest = [rule for rule in rules if rule.max_tokens == answer.result.limit]
    return Checked(answer.result, rules, tightest[0] if tightest else None, answer.policy)
