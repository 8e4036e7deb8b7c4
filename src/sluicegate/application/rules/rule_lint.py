"""What is doubtful about rules that are correct: findings for operators, each with its place and a hint."""

import re
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from ipaddress import ip_network

import msgspec

from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import Parameter, RouteTemplate, parse_endpoint, sample_method
from sluicegate.domain.rules.identifier_index import read_network
from sluicegate.domain.rules.rate import exact_rate
from sluicegate.domain.rules.rule import RateLimitRule, RateLimitScope
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.domain.rules.rule_book_entries import Bound, Listing, is_global

Place = tuple[str | int, ...]
"""Where in a rules file: keys and positions."""

_LOGIN = re.compile(
    r"(?<![a-z])(log-?in|log-?on|sign-?in|sessions?|tokens?|oauth2?|auth|authenticate|passwords?|passwd|otp|totp|mfa|2fa|pin"
    r"|reset|forgot|recover|verify)(?![a-z])"
)
_CLIENT_BITS = 64  # of an IPv6 address that make a client to the middleware, by default
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_SAMPLES = {"str": "sample", "int": "7", "float": "7.5", "uuid": "00000000-0000-4000-8000-000000000000", "path": "a/b"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something doubtful.

    Args:
        code: What kind, one word.
        place: Where.
        message: What.
        hint: What to do about it.
    """

    code: str
    place: Place
    message: str
    hint: str


def lint(book: RuleBook, now: datetime) -> list[Finding]:
    """Return what is doubtful about rules, in the order of the checks.

    Args:
        book: The rules.
        now: The wall clock's instant, for entries that have ended.
    """
    return [
        *_unreachable_endpoints(book),
        *_idle_rules(book),
        *_unguarded_logins(book),
        *_unused_policies(book),
        *_ended(book, now),
        *_lists_of_everybody(book),
        *_parts_of_clients(book),
        *_switched_off(book),
    ]


def sample_path(template: RouteTemplate) -> str:
    """Return a path that a template fits."""
    return "".join(_SAMPLES[token.converter] if isinstance(token, Parameter) else token for token in template.tokens)


def _unreachable_endpoints(book: RuleBook) -> Iterator[Finding]:
    templates = [template for template in map(parse_endpoint, book) if template is not None]
    table = RouteTable(templates)
    for template in templates:
        first = table.match(sample_method(template), sample_path(template))
        if first is not None and first != template.endpoint:
            yield Finding(
                code="shadowed",
                place=("endpoints", template.endpoint),
                message=f"{first} comes before it and fits the same requests: its rules are never asked",
                hint="put the more special endpoint first",
            )


def _idle_rules(book: RuleBook) -> Iterator[Finding]:
    for endpoint in book:
        bound = [one for one in book.bound(endpoint) if one.rule.enabled and not one.rule.shadow]
        for place, one in enumerate(bound):
            # Of two that are equal, the first has its use.
            after = [other for other in bound[place + 1 :] if not _never_denies(other, one, endpoint)]
            candidates = [*bound[:place], *after]
            tighter = next((other for other in candidates if _never_denies(one, other, endpoint)), None)
            if tighter is not None:
                earlier = bound.index(tighter) < place
                yield Finding(
                    code="never_denies",
                    place=("endpoints", endpoint),
                    message=f"the rule {one.rule.policy} can never deny: {tighter.rule.policy}"
                    f"{', which comes before it,' if earlier else ''} always denies first",
                    hint="remove it, or make its capacity or its rate smaller",
                )


def _never_denies(one: Bound, other: Bound, endpoint: str) -> bool:
    """Return whether a rule's bucket is never emptier than another's that counts at least the same requests.

    That holds if both count per the same scope, or the other counts everybody; if the first gets no requests from other
    endpoints; and if it has room for at least as many requests and refills at least as fast.
    """
    rule, tighter = one.rule, other.rule
    if rule.counts_in_flight or tighter.counts_in_flight:
        return False
    if one.bucket not in {endpoint, other.bucket} or not (rule.scope == tighter.scope or is_global(tighter.scope)):
        return False
    room, other_room = Fraction(rule.max_tokens, rule.cost), Fraction(tighter.max_tokens, tighter.cost)
    return room >= other_room and _speed(rule) >= _speed(tighter)


def _speed(rule: RateLimitRule) -> Fraction:
    return exact_rate(rule.refill_rate) / rule.cost


def _unguarded_logins(book: RuleBook) -> Iterator[Finding]:
    for endpoint in book:
        method = endpoint.partition(" ")[0]
        if method in _SAFE_METHODS or not _LOGIN.search(endpoint.lower()):
            continue
        counted = [one.rule for one in book.bound(endpoint) if one.rule.enabled and not one.rule.shadow]
        if not any(rule.scope == RateLimitScope.IP for rule in counted):
            yield Finding(
                code="login_without_ip",
                place=("endpoints", endpoint),
                message="looks like a login, and no rule counts addresses: one client may try every account",
                hint='add a rule such as "5/minute per ip"',
            )


def _unused_policies(book: RuleBook) -> Iterator[Finding]:
    used = {rule.name for rule in book.rules}
    for name in book.policies:
        if name not in used:
            yield Finding(
                code="unused",
                place=("policies", name),
                message="no endpoint, group or unmatched rule uses it",
                hint="remove it, unless code refers to it",
            )


def _ended(book: RuleBook, now: datetime) -> Iterator[Finding]:
    for which, listings in (("allow", book.allow), ("deny", book.deny)):
        for place, listing in _placed(which, listings):
            if listing.until is not None and listing.until <= now:
                yield _is_over(place, listing.identifier, listing.until)
    seen: dict[str, int] = {}
    for override in book.overrides:
        n = seen[override.policy] = seen.get(override.policy, -1) + 1
        if override.until is not None and override.until <= now:
            yield _is_over(("policies", override.policy, "overrides", n), override.identifier, override.until)
    for switch in book.kill_switches:
        if switch.until is not None and switch.until <= now:
            yield _is_over(("kill_switch",), "the kill switch", switch.until)


def _is_over(place: Place, what: str, until: datetime) -> Finding:
    return Finding(code="ended", place=place, message=f"{what} ended at {until.isoformat()}", hint="remove it")


def _lists_of_everybody(book: RuleBook) -> Iterator[Finding]:
    everybody = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    for which, listings in (("allow", book.allow), ("deny", book.deny)):
        for place, listing in _placed(which, listings):
            if listing.scope == RateLimitScope.IP and read_network(listing.identifier) in everybody:
                yield Finding(
                    code="everybody",
                    place=place,
                    message=f"{listing.identifier} is every address: no rule is ever asked",
                    hint="to switch everything off, use kill_switch, which is loud"
                    if which == "allow"
                    else "remove it",
                )


def _parts_of_clients(book: RuleBook) -> Iterator[Finding]:
    """Find IPv6 entries smaller than what the middleware takes for one client, unless it is told otherwise."""
    seen: dict[str, int] = {}
    for override in book.overrides:
        n = seen[override.policy] = seen.get(override.policy, -1) + 1
        if override.rule.scope == RateLimitScope.IP and _is_part(override.identifier):
            yield _part(("policies", override.policy, "overrides", n), override.identifier)
    for which, listings in (("allow", book.allow), ("deny", book.deny)):
        for place, listing in _placed(which, listings):
            if listing.scope == RateLimitScope.IP and _is_part(listing.identifier):
                yield _part(place, listing.identifier)


def _is_part(identifier: str) -> bool:
    network = read_network(identifier)
    return network.version == 6 and network.prefixlen > _CLIENT_BITS  # noqa: PLR2004 - IPv6 is called so


def _part(place: Place, identifier: str) -> Finding:
    return Finding(
        code="part_of_client",
        place=place,
        message=f"{identifier} is less than a /{_CLIENT_BITS}, which is one client to the middleware: it matches no client there",
        hint=f"write its /{_CLIENT_BITS}, or give the middleware another ipv6_prefix",
    )


def _switched_off(book: RuleBook) -> Iterator[Finding]:
    for switch in book.kill_switches:
        yield Finding(
            code="kill_switch",
            place=("kill_switch",),
            message=f"{', '.join(switch.policies) or 'everything'} is switched off"
            + (f" until {switch.until.isoformat()}" if switch.until else ""),
            hint="give it an end" if switch.until is None else "nothing, if it is meant",
        )


def _placed(which: str, listings: tuple[Listing, ...]) -> Iterator[tuple[Place, Listing]]:
    seen: dict[str, int] = {}
    for listing in listings:
        n = seen[listing.scope] = seen.get(listing.scope, -1) + 1
        yield (which, listing.scope, n), listing
