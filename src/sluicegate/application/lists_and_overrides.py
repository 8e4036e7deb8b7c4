"""What lists and overrides change for one identifier. Called only for rules that have some."""

import math
from collections.abc import Mapping

import msgspec

from sluicegate.domain.compiled_rules import Meter, Plan, max_cost_of, untouched
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.identifier_index import IdentifierIndex, Now
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.rule import RateLimitScope
from sluicegate.domain.rule_book import Listed, Listing


class ListAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer that a list gave, without asking the storage.

    Args:
        result: The answer.
        endpoint: The endpoint as the rules name it; as the caller does, where no rule is for it.
        listing: The entry that decided.
        identifier: Who matched it.
    """

    result: RateLimitResult
    endpoint: str
    listing: Listing
    identifier: str


def identifier_for(meter: Meter, identifier: Identifier) -> str:
    """Return who is asking as far as one rule is concerned; empty for a global rule that got no name.

    Raises:
        InvalidInputError: If the identifier is a mapping without the rule's scope.
    """
    if isinstance(identifier, str):
        return identifier
    named = identifier.get(meter.scope)
    if named is not None:
        return named
    if meter.after is None:
        return ""
    raise InvalidInputError(
        f"identifier={sorted(map(str, identifier))}: has no entry for the scope {meter.scope!r} of a rule of this endpoint"
    )


def list_answer(
    lists: Mapping[str, IdentifierIndex[Listed]], plan: Plan | None, endpoint: str, identifier: Identifier, now: Now
) -> ListAnswer | None:
    """Return what the allow and deny lists say; None if they do not know the identifier.

    An identifier that is one text stands for each scope of the endpoint's rules; where these name nobody, for the lists'
    scope if they have but one, else for `ip`. Of several scopes whose lists disagree, a denial decides.
    """
    found: tuple[Listed, str] | None = None
    names = (
        [(scope, identifier) for scope in listed_scopes(lists, plan)]
        if isinstance(identifier, str)
        else identifier.items()
    )
    for scope, name in names:
        index = lists.get(scope)
        listed = index.find(name, now) if index is not None else None
        if listed is not None and (found is None or listed.denied):
            found = listed, name
            if listed.denied:
                break
    if found is None:
        return None
    listed, name = found
    if listed.denied:
        wait = math.inf if listed.until is None else max(0.0, (listed.until - now()).total_seconds())
        limit = _limit(plan)
        reset = 0 if math.isinf(wait) else math.ceil(wait)
        result = RateLimitResult(allowed=False, retry_after=wait, remaining=0, limit=limit, reset_seconds=reset)
    else:
        limit = _limit(plan)
        result = RateLimitResult(allowed=True, retry_after=0.0, remaining=limit, limit=limit, reset_seconds=0)
    return ListAnswer(result, endpoint if plan is None else plan.endpoint, listed.listing, name)


def listed_scopes(lists: Mapping[str, object], plan: Plan | None) -> tuple[str, ...]:
    """Return the scopes that an identifier stands for in the lists if it is one text."""
    scopes = tuple([scope for scope in plan.scopes if scope != RateLimitScope.GLOBAL]) if plan is not None else ()
    return scopes or (tuple(lists) if len(lists) == 1 else (RateLimitScope.IP,))


def overridden(plan: Plan, identifier: Identifier, now: Now) -> Plan:
    """Return the plan as it is for one identifier: the same object if no override is for it."""
    expires = False
    changed = False
    kept: list[list[Meter]] = []
    for meters in (plan.meters, plan.shadows):
        mine: list[Meter] = []
        for meter in meters:
            substitute = None
            if meter.overrides is not None:
                substitute = meter.overrides.find(identifier_for(meter, identifier), now)
            if substitute is None:
                mine.append(meter)
                continue
            changed = True
            expires = expires or substitute.until is not None
            if substitute.meter is not None:
                mine.append(substitute.meter)
        kept.append(mine)
    if not changed:
        return plan
    real, shadows = kept
    disabled = None
    if not real:
        disabled = plan.disabled or untouched(meter.rule for meter in plan.meters)
    return Plan(plan.endpoint, tuple(real), max_cost_of(real), disabled, plan.scopes, tuple(shadows), expires=expires)


def _limit(plan: Plan | None) -> int:
    if plan is None:
        return 0
    if plan.disabled is not None:
        return plan.disabled.limit
    return plan.max_cost
