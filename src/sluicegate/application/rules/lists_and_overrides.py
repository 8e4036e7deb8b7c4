"""What the allow and deny lists and the overrides change for one identifier. Called only where there are some."""

import math
from collections.abc import Mapping
from typing import Final

from sluicegate.domain.buckets.token_bucket import full
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.endpoint_rules import EndpointRules, Limit, untouched
from sluicegate.domain.rules.identifier_index import IdentifierIndex, WallClock
from sluicegate.domain.rules.rule import RateLimitScope
from sluicegate.domain.rules.rule_book_entries import Listed, Listing


class ListAnswer:
    """An answer that a list gave, without asking the storage.

    Args:
        result: The answer.
        endpoint: The endpoint as the rules name it; as the caller does, where no rule is for it.
        listing: The entry that decided.
        identifier: The identifier that matched it.
    """

    __slots__ = ("endpoint", "identifier", "listing", "result")

    def __init__(self, result: RateLimitResult, endpoint: str, listing: Listing, identifier: str) -> None:
        self.result: Final = result
        self.endpoint: Final = endpoint
        self.listing: Final = listing
        self.identifier: Final = identifier


def find_listed(
    lists: Mapping[str, IdentifierIndex[Listed]],
    rules: EndpointRules | None,
    endpoint: str,
    identifier: str | dict[str, str],
    now: WallClock,
) -> ListAnswer | None:
    """Return what the allow and deny lists say; None if they do not have the identifier.

    An identifier that is one text stands for each scope of the endpoint's rules; where these name no client, for the scope
    of the lists if they have but one, else for `ip`. Of several scopes whose lists disagree, a denial decides.
    """
    found: Listed | None = None
    found_name = ""
    if isinstance(identifier, str):
        names = [(scope, identifier) for scope in _scopes_of_text(lists, rules)]
    else:
        names = list(identifier.items())
    for scope, name in names:
        index = lists.get(scope)
        listed = index.find(name, now) if index is not None else None
        if listed is not None and (found is None or listed.denied):
            found, found_name = listed, name
            if listed.denied:
                break
    if found is None:
        return None
    limit = _limit(rules)
    if found.denied:
        wait = math.inf if found.until is None else max(0.0, (found.until - now()).total_seconds())
        reset = 0 if math.isinf(wait) else math.ceil(wait)
        result = RateLimitResult(allowed=False, retry_after=wait, remaining=0, limit=limit, reset_seconds=reset)
    else:
        result = full(limit)
    return ListAnswer(result, endpoint if rules is None else rules.endpoint, found.listing, found_name)


def with_overrides(rules: EndpointRules, identifier: str | dict[str, str], now: WallClock) -> EndpointRules:
    """Return the rules as they are for one identifier: the same object if no override is for it."""
    limits = _substituted(rules.limits, identifier, now)
    shadows = _substituted(rules.shadows, identifier, now)
    if limits is None and shadows is None:
        return rules
    if limits is None:
        limits = list(rules.limits)
    if shadows is None:
        shadows = list(rules.shadows)
    disabled = None
    if not limits:
        disabled = rules.disabled or untouched([limit.rule for limit in rules.limits])
    return EndpointRules(rules.endpoint, tuple(limits), tuple(shadows), disabled, rules.scopes, rules.policies)


def _substituted(limits: tuple[Limit, ...], identifier: str | dict[str, str], now: WallClock) -> list[Limit] | None:
    """Return the limits with those that an override replaces replaced, or left out; None if there is no such."""
    substituted: list[Limit] | None = None
    for at, limit in enumerate(limits):
        substitute = None
        if limit.overrides is not None:
            substitute = limit.overrides.find(limit.identifier_of(identifier), now)
        if substitute is not None:
            if substituted is None:
                substituted = list(limits[:at])
            if substitute.limit is not None:
                substituted.append(substitute.limit)
        elif substituted is not None:
            substituted.append(limit)
    return substituted


def _scopes_of_text(lists: Mapping[str, object], rules: EndpointRules | None) -> tuple[str, ...]:
    """Return the scopes that an identifier stands for in the lists if it is one text."""
    scopes = [scope for scope in rules.scopes if scope != RateLimitScope.GLOBAL] if rules is not None else []
    if scopes:
        return tuple(scopes)
    return tuple(lists) if len(lists) == 1 else ("ip",)


def _limit(rules: EndpointRules | None) -> int:
    if rules is None:
        return 0
    if rules.disabled is not None:
        return rules.disabled.limit
    return rules.max_cost
