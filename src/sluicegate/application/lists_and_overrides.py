"""What lists and overrides change for one identifier. Called only for rules that have some."""

import math
from collections.abc import Mapping

import msgspec

from sluicegate.domain.compiled_rules import EndpointRules, Limit, max_cost_of, untouched
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


def identifier_for(limit_: Limit, identifier: Identifier) -> str:
    """Return who is asking as far as one rule is concerned; empty for a global rule that got no name.

    Raises:
        InvalidInputError: If the identifier is a mapping without the rule's scope.
    """
    if isinstance(identifier, str):
        return identifier
    named = identifier.get(limit_.scope)
    if named is not None:
        return named
    if limit_.after is None:
        return ""
    raise InvalidInputError(
        f"identifier={sorted(map(str, identifier))}: has no entry for the scope {limit_.scope!r} of a rule of this endpoint"
    )


def list_answer(
    lists: Mapping[str, IdentifierIndex[Listed]],
    endpoint_rules: EndpointRules | None,
    endpoint: str,
    identifier: Identifier,
    now: Now,
) -> ListAnswer | None:
    """Return what the allow and deny lists say; None if they do not know the identifier.

    An identifier that is one text stands for each scope of the endpoint's rules; where these name nobody, for the lists'
    scope if they have but one, else for `ip`. Of several scopes whose lists disagree, a denial decides.
    """
    found: tuple[Listed, str] | None = None
    names = (
        [(scope, identifier) for scope in listed_scopes(lists, endpoint_rules)]
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
        limit = _limit(endpoint_rules)
        reset = 0 if math.isinf(wait) else math.ceil(wait)
        result = RateLimitResult(allowed=False, retry_after=wait, remaining=0, limit=limit, reset_seconds=reset)
    else:
        limit = _limit(endpoint_rules)
        result = RateLimitResult(allowed=True, retry_after=0.0, remaining=limit, limit=limit, reset_seconds=0)
    return ListAnswer(result, endpoint if endpoint_rules is None else endpoint_rules.endpoint, listed.listing, name)


def listed_scopes(lists: Mapping[str, object], endpoint_rules: EndpointRules | None) -> tuple[str, ...]:
    """Return the scopes that an identifier stands for in the lists if it is one text."""
    scopes = (
        tuple([scope for scope in endpoint_rules.scopes if scope != RateLimitScope.GLOBAL])
        if endpoint_rules is not None
        else ()
    )
    return scopes or (tuple(lists) if len(lists) == 1 else (RateLimitScope.IP,))


def overridden(endpoint_rules: EndpointRules, identifier: Identifier, now: Now) -> EndpointRules:
    """Return the plan as it is for one identifier: the same object if no override is for it."""
    expires = False
    changed = False
    kept: list[list[Limit]] = []
    for limits in (endpoint_rules.limits, endpoint_rules.shadows):
        mine: list[Limit] = []
        for limit_ in limits:
            substitute = None
            if limit_.overrides is not None:
                substitute = limit_.overrides.find(identifier_for(limit_, identifier), now)
            if substitute is None:
                mine.append(limit_)
                continue
            changed = True
            expires = expires or substitute.until is not None
            if substitute.limit_ is not None:
                mine.append(substitute.limit_)
        kept.append(mine)
    if not changed:
        return endpoint_rules
    real, shadows = kept
    disabled = None
    if not real:
        disabled = endpoint_rules.disabled or untouched(limit_.rule for limit_ in endpoint_rules.limits)
    return EndpointRules(
        endpoint_rules.endpoint,
        tuple(real),
        max_cost_of(real),
        disabled,
        endpoint_rules.scopes,
        tuple(shadows),
        expires=expires,
    )


def _limit(endpoint_rules: EndpointRules | None) -> int:
    if endpoint_rules is None:
        return 0
    if endpoint_rules.disabled is not None:
        return endpoint_rules.disabled.limit
    return endpoint_rules.max_cost
