"""The records that a `RuleBook` is made of: groups, list entries, overrides and kill switches."""

from collections.abc import Iterable
from datetime import datetime
from typing import cast

import msgspec

from sluicegate.domain.arguments import plain_text, require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.rule import RateLimitRule, RateLimitScope, require_scope


class RuleGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints that share their buckets.

    Args:
        name: The group's name. It takes the endpoint's place in keys.
        rules: The rules for all of the endpoints together.
        endpoints: The endpoints, named as elsewhere in the book.

    Raises:
        InvalidInputError: If a text is empty or too long.
        InvalidTypeError: If a value is of the wrong type.
    """

    name: str
    rules: tuple[RateLimitRule, ...]
    endpoints: tuple[str, ...]

    def __post_init__(self) -> None:
        _set(self, name=require_text("name", self.name), endpoints=require_texts("endpoints", self.endpoints))


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an allow or deny list.

    Args:
        scope: The scope of the identifier: `ip`, `user` or a scope of your own.
        identifier: For `ip` an address or a network, else the exact text.
        until: When the entry ends, with a time zone; None: never.
        reason: Why, for people.

    Raises:
        InvalidInputError: If the scope is none, the identifier is empty or too long, or `until` has no time zone.
        InvalidTypeError: If a value is of the wrong type.
    """

    scope: str
    identifier: str
    until: datetime | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        _set(
            self,
            scope=str(require_scope(self.scope)),
            identifier=require_text("identifier", self.identifier),
            until=_require_until(self.until),
            reason=_require_reason(self.reason),
        )


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Another limit for one identifier. Each address of a network keeps its own bucket.

    Args:
        policy: The name of the rule that it replaces.
        identifier: An address or a network if the rule counts addresses, else the exact text.
        rule: The rule that applies instead, with the same scope. If it is disabled, the identifier has no limit.
        until: When the override ends, with a time zone; None: never.
        reason: Why, for people.

    Raises:
        InvalidInputError: If a text is empty or too long, or `until` has no time zone.
        InvalidTypeError: If a value is of the wrong type.
    """

    policy: str
    identifier: str
    rule: RateLimitRule
    until: datetime | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.rule, RateLimitRule):
            raise InvalidTypeError(f"rule={self.rule!r:.80}: expected a RateLimitRule")
        _set(
            self,
            policy=require_text("policy", self.policy),
            identifier=require_text("identifier", self.identifier),
            until=_require_until(self.until),
            reason=_require_reason(self.reason),
        )


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Rules that are switched off, whatever else the book says about them.

    Args:
        policies: The names of the rules; empty: all rules, and the lists.
        until: When they apply again, with a time zone; None: not until somebody switches them on.
        reason: Why, for people.

    Raises:
        InvalidInputError: If a text is empty or too long, or `until` has no time zone.
        InvalidTypeError: If a value is of the wrong type.
    """

    policies: tuple[str, ...] = ()
    until: datetime | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        _set(
            self,
            policies=require_texts("policies", self.policies),
            until=_require_until(self.until),
            reason=_require_reason(self.reason),
        )

    def is_over(self, now: datetime) -> bool:
        """Return whether it has ended by itself.

        Args:
            now: The wall clock's instant.
        """
        return self.until is not None and self.until <= now


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


def require_texts(field: str, values: object) -> tuple[str, ...]:
    """Return texts as a tuple of plain ones.

    Raises:
        InvalidInputError: If one is empty or longer than 1024 bytes.
        InvalidTypeError: If it is a single text, which would be read letter by letter, or no collection of texts.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidTypeError(f"{field}={values!r:.80}: expected a tuple of texts")
    return tuple([require_text(field, value) for value in cast("Iterable[object]", values)])


def _require_until(until: object) -> datetime | None:
    if until is None:
        return None
    if not isinstance(until, datetime):
        raise InvalidTypeError(f"until={until!r:.80}: expected a datetime with a time zone, or None")
    if until.utcoffset() is None:
        raise InvalidInputError(
            f"until={until!r}: has no time zone, so it is no instant; write datetime(…, tzinfo=UTC) or .astimezone()"
        )
    return until


def _require_reason(reason: object) -> str:
    if not isinstance(reason, str):
        raise InvalidTypeError(f"reason={reason!r:.80}: expected a text")
    return plain_text(reason)


def _set(entry: msgspec.Struct, **plain: object) -> None:
    """Put the plain values into a record that is being made."""
    for name, value in plain.items():
        msgspec.structs.force_setattr(entry, name, value)


def is_global(scope: str) -> bool:
    """Return whether a scope has one bucket for all clients, and so no identifiers."""
    return scope == RateLimitScope.GLOBAL
