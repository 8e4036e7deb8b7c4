"""One settlement: its buckets, what each is to be charged, and what became of it."""

from typing import Final

from sluicegate.application.check import Check, require_policies
from sluicegate.domain.arguments import read_cost
from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement
from sluicegate.domain.claims.claim import AS_RESERVED, NOT_FOUND
from sluicegate.domain.claims.reservation import ClaimName, RuleSettlement
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.compiled_rules import EndpointRules, Limit

_MOST_UNITS: Final = 2**53 - 1  # of a cost: Lua's numbers are exact up to there
_rule_settlement: Final = RuleSettlement  # compiled code finds it without a look-up in the module's names


class Settling:
    """A settlement that is under way.

    Args:
        check: Its buckets.
        rules: Their rules.
        name: What is settled.
        degraded: Whether this process has counted it, while the storage failed.
    """

    __slots__ = ("check", "degraded", "limits", "max_debts", "name", "number", "rules")

    def __init__(self, check: Check, rules: EndpointRules, name: ClaimName, degraded: bool) -> None:
        self.check: Final = check
        self.rules: Final = rules
        self.limits: Final = rules.counted
        """The limit of each bucket."""
        self.max_debts: Final = rules.max_debts
        """For each, how far below zero it may be brought."""
        self.name: Final = name
        self.number: Final[int] = name.number
        self.degraded: Final = degraded


def at_cost(settling: Settling, cost: object) -> tuple[BucketRequest, ...]:
    """Return the requests of a settlement, at what each rule is to be charged."""
    rules = settling.rules
    by_rule: dict[str, int] | None = None
    for_all = AS_RESERVED
    if cost is not None:
        for_all, by_rule = read_cost(cost)
    if by_rule is not None:
        for_all = AS_RESERVED
        require_policies(by_rule, rules)
    elif cost is not None and for_all and settling.name.by_rule:
        raise InvalidInputError(f"cost={for_all}: expected a cost for each rule, as when it was reserved")
    requests = settling.check.requests
    limits = settling.limits
    if len(requests) == 1:
        return (_one_at_cost(limits[0], requests[0], for_all, by_rule),)
    return tuple([_one_at_cost(limits[at], request, for_all, by_rule) for at, request in enumerate(requests)])


def _one_at_cost(limit: Limit, request: BucketRequest, for_all: int, by_rule: dict[str, int] | None) -> BucketRequest:
    tokens = for_all if by_rule is None else by_rule.get(limit.policy, AS_RESERVED)
    if limit.in_flight or tokens == AS_RESERVED:
        return request.with_cost(AS_RESERVED)
    return request.with_cost(min(tokens * request.spec.units_per_token, _MOST_UNITS))


def of_rule(limit: Limit, answer: BucketSettlement) -> RuleSettlement:
    """Return what became of one rule's part."""
    token = limit.spec.units_per_token
    level = answer.level.level
    return _rule_settlement(
        limit.policy,
        answer.found != NOT_FOUND,
        answer.charged_units // token,
        answer.returned_units // token,
        -(level // token) if level < 0 else 0,
    )
