"""A check's answer with what a face needs to tell of it: which rules were asked, and whether the storage was."""

from sluicegate.application.check import Check, Decision
from sluicegate.application.failure_policy import Answer
from sluicegate.domain.bucket_request import Verdict
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.token_bucket import to_result


def decided(check: Check, result: RateLimitResult, verdict: Verdict) -> Decision:
    """Return the storage's answer with the rules that were asked, and the one that it describes."""
    rules = tuple([limit_.rule for limit_ in check.endpoint_rules.limits])
    if len(rules) == 1:
        return Decision(result, rules, rules[0])
    pairs = zip(rules, check.requests, verdict.levels, strict=True)
    tightest = [rule for rule, d, r in pairs if to_result(d, r, allowed=verdict.allowed) == result]
    return Decision(result, rules, tightest[0] if tightest else None)


def degraded(check: Check, answer: Answer) -> Decision:
    """Return the failure policy's answer with the rules that were to be asked."""
    rules = tuple([limit_.rule for limit_ in check.endpoint_rules.limits])
    tightest = [rule for rule in rules if rule.max_tokens == answer.result.limit]
    return Decision(answer.result, rules, tightest[0] if tightest else None, answer.policy)
