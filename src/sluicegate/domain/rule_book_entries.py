"""The records that a `RuleBook` is made of: groups, list entries, overrides and kill switches."""

from datetime import datetime

import msgspec

from sluicegate.domain.rule import RateLimitRule, RateLimitScope


class RuleGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints that share their buckets.

    Args:
        name: The group's name. It takes the endpoint's place in keys.
        rules: The rules for all of the endpoints together.
        endpoints: The endpoints, named as elsewhere in the book.
    """

    name: str
    rules: tuple[RateLimitRule, ...]
    endpoints: tuple[str, ...]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an allow or deny list.

    Args:
        scope: The scope of the identifier: `ip`, `user` or a scope of your own.
        identifier: For `ip` an address or a network, else the exact text.
        until: When the entry ends, with a time zone; None: never.
        reason: Why, for people.
    """

    scope: str
    identifier: str
    until: datetime | None = None
    reason: str = ""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Another limit for one identifier. Each address of a network keeps its own bucket.

    Args:
        policy: The name of the rule that it replaces.
        identifier: An address or a network if the rule counts addresses, else the exact text.
        rule: The rule that applies instead, with the same scope. If it is disabled, the identifier has no limit.
        until: When the override ends, with a time zone; None: never.
        reason: Why, for people.
    """

    policy: str
    identifier: str
    rule: RateLimitRule
    until: datetime | None = None
    reason: str = ""


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Rules that are switched off, whatever else the book says about them.

    Args:
        policies: The names of the rules; empty: all rules, and the lists.
        until: When they apply again, with a time zone; None: not until somebody switches them on.
        reason: Why, for people.
    """

    policies: tuple[str, ...] = ()
    until: datetime | None = None
    reason: str = ""


class Bound(msgspec.Struct, frozen=True):
    """A rule of an endpoint, and the bucket that it counts in.

    Args:
        rule: The rule.
        bucket: The endpoint's name, or its group's.
    """

    rule: RateLimitRule
    bucket: str


class Listed(msgspec.Struct, frozen=True, gc=False):
    """An entry of an allow or deny list as look-ups return it.

    Args:
        identifier: An address, a network or an exact text.
        until: When the entry ends; None: never.
        denied: Whether it is an entry of the deny list.
        listing: The entry as the operator wrote it.
    """

    identifier: str
    until: datetime | None
    denied: bool
    listing: Listing


def is_global(scope: str) -> bool:
    """Return whether a scope has one bucket for all clients, and so no identifiers."""
    return scope == RateLimitScope.GLOBAL
