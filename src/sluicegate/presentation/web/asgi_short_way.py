"""The short way of a request through the middleware: counted by its address alone, at its rules' own cost.

Most requests are such. It asks what the long way asks (`RateLimitMiddleware`), in one plain call, and has at hand what is always
the same for an endpoint or an address. Whatever is not plain, a failure included, is left to the long way.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from sluicegate.application.checked import Checked
from sluicegate.application.quick_check import QuickCheck, QuickChecks, no_quick_check
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.compiled_rules import CompiledRules
from sluicegate.domain.rule import RateLimitRule
from sluicegate.presentation.web.asgi_messages import Scope, forwarded_lines, route_path
from sluicegate.presentation.web.client_address import ClientAddresses
from sluicegate.presentation.web.headers import Field, HeaderStyle, QuotaFields, build_quota_fields
from sluicegate.presentation.web.identifiers import BY_ADDRESS, Exemptions

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")  # OPTIONS may be a preflight
_NOTHING: tuple[Field, ...] = ()


class Endpoint(msgspec.Struct, frozen=True):
    """What is always the same for an endpoint whose requests are counted by their address alone.

    Args:
        name: What its rules are found by.
        rule: Its rule; None if it has several, or checks go no short way.
        fields: Returns the fields of a response that this rule lets pass; None if they have to be worked out.
        quick_check: The limiter's short way.
    """

    name: str
    rule: RateLimitRule | None
    fields: QuotaFields | None
    quick_check: QuickCheck


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request whose answer has to be awaited.

    Args:
        endpoint: Where it goes.
        identifier: Who is asking.
    """

    endpoint: Endpoint
    identifier: str


ShortWay: TypeAlias = Callable[[Scope], tuple[Field, ...] | Checked | Asked | None]
"""Scope in; the fields for a request that may pass, an answer of any kind, what to ask, or None: go the long way.

What it raises, the long way meets as well, and answers."""


_State: TypeAlias = tuple[object, Mapping[str, Callable[[str], str | None]], "_Endpoints"]


def no_short_way(_scope: Scope) -> None:
    """Leave every request to the long way."""


def build_short_way(
    limiter: TokenBucketAdapter,
    addresses: ClientAddresses,
    exempt: Exemptions,
    style: HeaderStyle,
    look: Callable[[Scope, str], int],
) -> ShortWay:
    """Build the short way to a limiter.

    Args:
        limiter: What decides.
        addresses: Who is asking.
        exempt: Paths that are not counted.
        style: Which fields tell of quotas.
        look: Gets a request and its peer, where nobody is trusted; returns how many requests it need not see after it.
    """
    # A closure: its variables are found faster than a method's attributes, and this is run for every request.
    in_force, of_peer, client_of = limiter.rules, addresses.of_peer, addresses.client
    trusts_proxies, header, unseen = addresses.trusts_proxies, addresses.header.encode(), 0
    state = _state(limiter, exempt, style)

    def short_way(scope: Scope) -> tuple[Field, ...] | Checked | Asked | None:
        nonlocal state, unseen
        way, matchers, endpoints = state  # at once: another thread may replace it
        if way is not in_force.short_way:
            _, matchers, endpoints = state = _state(limiter, exempt, style)
        match, client = matchers.get(scope["method"]), scope["client"]
        if match is None or not client:
            return None
        name = match(route_path(scope) if scope.get("root_path") else scope["path"])
        if name is None:
            return _NOTHING
        endpoint, peer = endpoints[name], client[0]
        if trusts_proxies:
            identifier = client_of(peer, forwarded_lines(scope, header))
        else:
            identifier = of_peer(peer)
            unseen = unseen - 1 if unseen else look(scope, peer)
        if endpoint is None or not identifier:
            return None
        rule = endpoint.rule
        if rule is None or (answer := endpoint.quick_check(identifier)) is None:
            return Asked(endpoint, identifier)
        result, fields = answer.value, endpoint.fields
        if result.allowed and fields is not None:
            return fields(result)
        return Checked(result, (rule,), rule)

    return short_way


def passed_by(checked: Checked, endpoint: Endpoint) -> tuple[Field, ...] | Checked:
    """Return, of an answer that had to be awaited, the fields for a request that may pass as the short way has them."""
    result, fields = checked.result, endpoint.fields
    # The answer may be of other rules, which came into force meanwhile.
    if fields is not None and result.allowed and checked.tightest is endpoint.rule and checked.degraded is None:
        return fields(result)
    return checked


class _Endpoints(dict[str, Endpoint | None]):
    """Endpoints as they are asked for; None: its requests go the long way."""

    def __init__(
        self,
        rules: CompiledRules,
        quick_checks: QuickChecks,
        only_rules: Mapping[str, RateLimitRule],
        style: HeaderStyle,
    ) -> None:
        super().__init__()
        self._rules = rules
        self._quick_checks = quick_checks
        self._only_rules = only_rules
        self._style: HeaderStyle = style

    def __missing__(self, name: str) -> Endpoint | None:
        endpoint = None
        if self._rules.scopes_of(name) == BY_ADDRESS:
            rule = self._only_rules.get(name)
            fields = None if rule is None else build_quota_fields(rule, self._style)
            endpoint = Endpoint(name, rule, fields, self._quick_checks.get(name, no_quick_check))
        self[name] = endpoint  # names are the rules', not the clients'
        return endpoint


def _state(limiter: TokenBucketAdapter, exempt: Exemptions, style: HeaderStyle) -> _State:
    """Return what holds as long as the limiter's short way is the same one.

    Rules come into force before their short way does. Whatever is read in between is thus read again.
    """
    way = limiter.rules.short_way
    quick_checks, only_rules = way
    rules = limiter.rules.now.rules
    return (
        way,
        {method: _matcher(rules, method, exempt) for method in _METHODS},
        _Endpoints(rules, quick_checks if limiter.immediate else {}, only_rules, style),
    )


def _matcher(rules: CompiledRules, method: str, exempt: Exemptions) -> Callable[[str], str | None]:
    matcher, otherwise = rules.routes.matcher(method), rules.otherwise
    if exempt:
        return lambda path: None if path in exempt else matcher(path) or otherwise
    return matcher if otherwise is None else lambda path: matcher(path) or otherwise
