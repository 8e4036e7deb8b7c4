"""What observers are told of a check."""

from sluicegate.application.check import Check
from sluicegate.application.rules.lists_and_overrides import ListAnswer
from sluicegate.domain.buckets.token_bucket import binding
from sluicegate.domain.events import RateLimitCheckSkipped, RateLimitListed
from sluicegate.domain.rules.endpoint_rules import EndpointRules
from sluicegate.domain.rules.rule import RateLimitRule


def facts_of(check: Check) -> dict[str, object]:
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


def skipped_event(check: Check, rules: EndpointRules) -> RateLimitCheckSkipped:
    """Return the event of a check that asked the storage nothing, because no rule is in force."""
    return RateLimitCheckSkipped(
        endpoint=rules.endpoint,
        identifier="",
        scope="",
        cost=check.cost,
        because="shadow" if check.shadows else "switched_off",
    )


def listed_event(answer: ListAnswer, cost: int) -> RateLimitListed:
    """Return the event of a check that a list answered."""
    return RateLimitListed(
        endpoint=answer.endpoint,
        identifier=answer.identifier,
        scope=answer.listing.scope,
        cost=cost,
        allowed=answer.result.allowed,
        listed=answer.listing.identifier,
    )
