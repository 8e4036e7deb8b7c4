"""A request of the Envoy rate limit protocol in plain values, and what each of its descriptors asks the limiter.

What a domain means is either in a configuration of `envoyproxy/ratelimit`, as a tree of limits, or in the rules of the rules
file: then the entries name an endpoint and identifiers.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from sluicegate.application.joint_check import Part, Verb
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.descriptor_book import DescriptorBook
from sluicegate.domain.rules.descriptors import DescriptorNode, Entry, Window, identifier_of, override_endpoint
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.ratelimit_config.interpreter import UNIT_SECONDS, rule_per_unit
from sluicegate.presentation.service.endpoints import match_target

_ENDPOINT_KEYS: Final = ("endpoint", "generic_key")
_SCOPES: Final = {"remote_address": "ip", "masked_remote_address": "ip"}
_NEXT_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


class Descriptor(msgspec.Struct, frozen=True):
    """One descriptor of a request.

    Args:
        entries: Its keys and values, at least one.
        hits: Tokens that it asks for: 0 is a look; None: it does not say.
        is_refund: Whether the tokens are put back.
        is_look: Whether it only asks whether the tokens are there.
        override: A limit that the request brings; None: the configured one.
    """

    entries: tuple[Entry, ...]
    hits: int | None = None
    is_refund: bool = False
    is_look: bool = False
    override: Window | None = None


class Target(msgspec.Struct, frozen=True):
    """What a descriptor means.

    Args:
        part: What it asks the limiter; None: nothing.
        window: The limit as clients are told it; None: that of the rule that binds.
        is_unlimited: Whether it passes because a limit says so.
        is_refused: Whether it is denied whatever happens: a limit of 0 requests.
        is_owed: Whether what it takes is charged after the fact; see `DescriptorLimit.owes`.
        name: The limit's name, for others that replace it.
        replaces: The names of limits that do not count beside this one.
    """

    part: Part | None = None
    window: Window | None = None
    is_unlimited: bool = False
    is_refused: bool = False
    is_owed: bool = False
    name: str = ""
    replaces: frozenset[str] = frozenset()


UNCOUNTED: Final = Target()
"""A descriptor that no limit is for."""


class DescriptorReader:
    """Find out what descriptors mean.

    Args:
        rules_domain: The domain that means the rules of the rules file, unless a tree of descriptors has it.
    """

    def __init__(self, rules_domain: str) -> None:
        self._rules_domain = rules_domain

    def read(self, rules: RulesSnapshot, domain: str, descriptors: Sequence[Descriptor], hits: int) -> list[Target]:
        """Return what each descriptor means.

        Args:
            rules: The rules in force.
            domain: The request's domain.
            descriptors: Its descriptors.
            hits: Tokens that descriptors ask for which do not say; 0: the rules' own cost.

        Raises:
            InvalidInputError: If a descriptor names no endpoint, or lacks an identifier that its rules count.
        """
        book = rules.book
        tree = book.domains.get(domain) if isinstance(book, DescriptorBook) else None
        if tree is not None:
            targets = [_find(tree, domain, one, hits) for one in descriptors]
            replaced: set[str] = set()
            for target in targets:
                if target.replaces:
                    replaced |= target.replaces
            return [UNCOUNTED if target.name in replaced else target for target in targets] if replaced else targets
        if domain != self._rules_domain:
            return [UNCOUNTED] * len(descriptors)
        return [self._read_by_rules(rules, domain, one, hits) for one in descriptors]

    def _read_by_rules(self, rules: RulesSnapshot, domain: str, descriptor: Descriptor, hits: int) -> Target:
        if descriptor.override is not None:
            return _overridden(domain, descriptor, descriptor.override, hits)
        named = {key: value for key, value in descriptor.entries if value}
        endpoint = next((named.pop(key) for key in _ENDPOINT_KEYS if key in named), None)
        path, method = named.pop("path", ""), named.pop("method", "")
        if endpoint is None:
            if not path:
                raise InvalidInputError("descriptor: expected an entry endpoint, generic_key or path")
            endpoint = match_target(rules, method, path)
        if endpoint is None:
            return UNCOUNTED
        scopes = rules.scopes_of(endpoint)
        identifiers = {_SCOPES.get(key, key): value for key, value in named.items()}
        missing = [scope for scope in scopes if scope != "global" and scope not in identifiers]
        if missing and not identifiers:
            raise InvalidInputError(f"descriptor: the rules of {endpoint!r:.80} need an entry {missing[0]!r}")
        return Target(_part(endpoint, identifiers or {"global": "global"}, descriptor, hits))


def _find(tree: DescriptorNode, domain: str, descriptor: Descriptor, hits: int) -> Target:
    if descriptor.override is not None:
        return _overridden(domain, descriptor, descriptor.override, hits)
    found = tree.match(descriptor.entries)
    if found is None:
        return UNCOUNTED
    limit, identifier = found
    window = limit.window
    if limit.unlimited:
        return Target(is_unlimited=True, name=window.name, replaces=limit.replaces)
    if window.requests == 0:
        return Target(window=window, is_refused=not limit.shadow, name=window.name, replaces=limit.replaces)
    part = _part(limit.endpoint, identifier, descriptor, hits)
    return Target(
        part,
        window,
        is_owed=limit.owes and part.verb == "take",
        name=window.name,
        replaces=limit.replaces,
    )


def _overridden(domain: str, descriptor: Descriptor, window: Window, hits: int) -> Target:
    if window.unit not in UNIT_SECONDS:
        raise InvalidInputError(f"limit.unit={window.unit!r:.80}: expected one of {', '.join(UNIT_SECONDS)}")
    if window.requests == 0:
        return Target(window=window, is_refused=True)
    rule = _override_rule(window.requests, window.unit, window.multiplier)
    return Target(_part(override_endpoint(domain), identifier_of(descriptor.entries), descriptor, hits, rule), window)


def _part(
    endpoint: str,
    identifier: str | dict[str, str],
    descriptor: Descriptor,
    hits: int,
    rule: RateLimitRule | None = None,
) -> Part:
    cost = hits if descriptor.hits is None else descriptor.hits
    verb: Verb = "take"
    if descriptor.hits == 0 or descriptor.is_look:
        verb = "peek"
    elif descriptor.is_refund:
        verb = "refund"
    return Part(endpoint, identifier, cost, verb, rule)


@lru_cache(4096)
def _override_rule(requests: int, unit: str, multiplier: int) -> RateLimitRule:
    return rule_per_unit(requests, unit, max(1, multiplier))


def told_window(rule: RateLimitRule, window: Window | None) -> Window:
    """Return the window that clients are told of a rule.

    Args:
        rule: The rule that decided.
        window: The limit as it was configured or came with the request. It is told unless the rule has another rate, because
            an operator's override holds. None: the rule is one of the rules file, of which as many requests are told as the
            bucket holds, in the time that it takes to fill.
    """
    if window is not None:
        per_minute = window.requests * 60 / (UNIT_SECONDS[window.unit] * window.multiplier)
        if math.isclose(per_minute, rule.refill_rate, rel_tol=1e-12):
            return window
    return _window_of(rule)


@lru_cache(4096)
def _window_of(rule: RateLimitRule) -> Window:
    seconds = rule.full_seconds
    unit, length = next((unit, length) for unit, length in _NEXT_UNITS if seconds % length == 0)
    return Window(rule.max_tokens, unit, seconds // length, rule.policy)
