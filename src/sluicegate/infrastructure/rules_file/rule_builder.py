"""Build rules from the tables of a rules file, with the file's policies and defaults."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from msgspec import UNSET, UnsetType

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.rate import parse_in_flight, parse_rate
from sluicegate.domain.rules.rule import OnStorageError, RateLimitRule, RateLimitScope
from sluicegate.domain.rules.rule_book_entries import Override
from sluicegate.infrastructure.rules_file.field_path import FieldError, FieldPath
from sluicegate.infrastructure.rules_file.schema import (
    DefaultsTable,
    EndpointTable,
    LimitTable,
    OverrideTable,
    RuleFileTable,
    RuleTable,
)

T = TypeVar("T")

RulesValue: TypeAlias = str | RuleTable | Sequence[str | RuleTable]
"""What a field for rules may hold: a policy's name, a rate, a table, or a list of these."""

_LIMIT_FIELDS = ("rate", "max_tokens", "refill_rate", "in_flight", "hold_seconds")
_OF_ONE_RULE = (*_LIMIT_FIELDS, "scope", "on_storage_error", "shadow", "lease", "max_debt", "on_expiry")


class RuleBuilder:
    """Build rules.

    Args:
        file: The file that policies and defaults are taken from.

    Raises:
        FieldError: If a policy is invalid. Each method raises it too, for what it is given.
    """

    def __init__(self, file: RuleFileTable) -> None:
        self._defaults = file.defaults
        self.policies: dict[str, RateLimitRule] = {}
        """The file's named rules."""
        for name, value in file.policies.items():
            path = ("policies", name)
            if _is_rate(name):
                raise FieldError(path, "a policy's name must not read as a rate")
            self.policies[name] = self._rule(path, value, name)

    def endpoint(self, name: str, value: str | Sequence[str | RuleTable] | EndpointTable) -> tuple[RateLimitRule, ...]:
        """Return the rules of an endpoint."""
        path: FieldPath = ("endpoints", name)
        if not isinstance(value, EndpointTable):
            return self.rules(path, value)
        if value.rules is UNSET:
            return (self._rule(path, value, ""),)
        for field in _OF_ONE_RULE:
            if getattr(value, field) is not UNSET:
                raise FieldError((*path, field), "cannot be used with rules; write it in the rule itself")
        rules = self.rules((*path, "rules"), value.rules)
        if value.enabled is False:
            rules = tuple(_replace(path, rule, enabled=False) for rule in rules)
        if value.cost is not UNSET:
            for rule in rules:  # the book applies the cost; here it is only checked, to name the field
                if not rule.counts_in_flight:
                    _replace((*path, "cost"), rule, cost=value.cost)
        return rules

    def rules(self, path: FieldPath, value: RulesValue) -> tuple[RateLimitRule, ...]:
        """Return the rules in a field. A text may have several, with semicolons between."""
        if isinstance(value, str) and ";" in value:
            value = [part.strip() for part in value.split(";")]
        if isinstance(value, str | RuleTable):
            return (self._policy_or_rule(path, value),)
        if not value:
            raise FieldError(path, "expected at least one rule")
        rules = tuple(self._policy_or_rule((*path, n), one) for n, one in enumerate(value))
        names = [rule.name for rule in rules]
        for n, name in enumerate(names):
            if name and name in names[:n]:
                raise FieldError((*path, n), f"the policy {name!r} is listed twice")
        return rules

    def override(self, path: FieldPath, policy: str, table: OverrideTable) -> Override:
        """Return an override of a policy."""
        rule = self.policies[policy]
        if table.enabled is False and all(getattr(table, field) is UNSET for field in _LIMIT_FIELDS):
            replacement = _replace(path, rule, enabled=False)
        else:
            limit = _limit(path, table, rule.scope, rule.scope)
            if limit.counts_in_flight != rule.counts_in_flight:
                kinds = "calls in flight", "a rate"
                mine, other = kinds if rule.counts_in_flight else kinds[::-1]
                raise FieldError(path, f"the policy limits {mine}; an override cannot make that {other}")
            enabled = _or_default(table.enabled, True)  # noqa: FBT003 - the default of a rule's field
            replacement = _replace(
                path,
                rule,
                max_tokens=limit.max_tokens,
                refill_rate=limit.refill_rate,
                hold_seconds=limit.hold_seconds,
                enabled=enabled,
            )
        until = _or_default(table.until, None)
        return Override(policy=policy, identifier=table.id, rule=replacement, until=until, reason=table.reason)

    def _policy_or_rule(self, path: FieldPath, value: str | RuleTable) -> RateLimitRule:
        if isinstance(value, RuleTable):
            return self._rule(path, value, "")
        policy = self.policies.get(value)
        if policy is not None:
            return policy
        if not any(character.isdigit() for character in value[:1]):
            hint = did_you_mean(value, self.policies)
            raise FieldError(path, f"no policy is named {value!r:.80}{hint}, and it is no rate")
        return self._rule(path, value, "")

    def _rule(self, path: FieldPath, value: str | RuleTable, name: str) -> RateLimitRule:
        if isinstance(value, str):
            try:
                return self._rule(path, RuleTable(rate=value), name)
            except FieldError as error:
                raise FieldError(path, error.message) from None  # there is no field `rate`: the text is the rate
        table, defaults = value, self._defaults
        scope = None if table.scope is UNSET else table.scope
        limit = _limit(path, table, scope, _or_default(defaults.scope, RateLimitScope.IP))
        in_flight = limit.counts_in_flight
        try:
            return RateLimitRule(
                limit.max_tokens,
                limit.refill_rate,
                limit.scope,
                cost=_or_default(table.cost, 1),
                enabled=_or_default(table.enabled, True),  # noqa: FBT003 - the default of a rule's field
                name=name,
                on_storage_error=_on_storage_error(table, defaults),
                shadow=_or_default(table.shadow, _or_default(defaults.shadow, False) and not in_flight),  # noqa: FBT003 - a default
                lease=False if in_flight and table.lease is UNSET else _lease(table, defaults, limit.max_tokens),
                max_debt=_or_default(table.max_debt, None),
                on_expiry=_or_default(table.on_expiry, "charge"),
                hold_seconds=limit.hold_seconds,
            )
        except InvalidInputError as error:
            raise _rule_error(path, error) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like a wrong one; empty if none is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _limit(path: FieldPath, table: LimitTable, scope: str | None, default_scope: str) -> RateLimitRule:
    """Return a rule with the limit and the scope that a table describes.

    Args:
        path: The table.
        table: It has a rate, which may name a scope, the two numbers, or a number of calls in flight.
        scope: The scope that the table names in a field; None: none.
        default_scope: The scope if neither names one.
    """
    given = [
        field for field in ("rate", "max_tokens", "refill_rate", "in_flight") if getattr(table, field) is not UNSET
    ]
    hold = {} if table.hold_seconds is UNSET else {"hold_seconds": table.hold_seconds}
    try:
        if table.in_flight is not UNSET:
            if given != ["in_flight"]:
                raise FieldError((*path, "in_flight"), f"cannot be used with {given[0]}; write one or the other")
            return RateLimitRule.in_flight(table.in_flight, scope=scope or default_scope, **hold)
        if table.rate is UNSET:
            if table.max_tokens is UNSET or table.refill_rate is UNSET:
                raise FieldError(path, "expected a rate, both max_tokens and refill_rate, or in_flight")
            rule = RateLimitRule(table.max_tokens, table.refill_rate, scope or default_scope)
        else:
            if given != ["rate"]:
                raise FieldError(
                    (*path, "rate"), "cannot be used with max_tokens or refill_rate; write one or the other"
                )
            rule = _parse((*path, "rate"), table.rate, scope, default_scope)
            if rule.counts_in_flight:
                return RateLimitRule.in_flight(rule.max_tokens, scope=rule.scope, **hold)
    except InvalidInputError as error:
        raise _rule_error(
            path, error, "rate" if given == ["rate"] and not str(error).startswith("hold") else ""
        ) from None
    if hold:
        raise FieldError((*path, "hold_seconds"), "is for calls in flight only")
    return rule


def _parse(path: FieldPath, text: str, scope: str | None, default_scope: str) -> RateLimitRule:
    in_flight = parse_in_flight(text)
    named = parse_rate(text)[3] if in_flight is None else in_flight[1]
    if named and scope and named != scope:
        raise FieldError(path, f"names the scope {named!r}, but the scope {str(scope)!r} was given")
    return RateLimitRule.parse(text, scope=named or scope or default_scope)


def _rule_error(path: FieldPath, error: InvalidInputError, field: str = "") -> FieldError:
    """Return the error for a field of a table; without a name, the one that the message begins with: `cost=9: …`."""
    text = str(error)
    return FieldError((*path, field or text.partition("=")[0]), text)


def _replace(path: FieldPath, rule: RateLimitRule, **changes: object) -> RateLimitRule:
    try:
        return replace(rule, **changes)  # type: ignore[arg-type]
    except InvalidInputError as error:
        raise FieldError(path, str(error)) from None


def _on_storage_error(table: RuleTable, defaults: DefaultsTable) -> OnStorageError | None:
    if table.on_storage_error is not UNSET:
        return table.on_storage_error
    return None if defaults.on_storage_error is UNSET else defaults.on_storage_error


def _lease(table: RuleTable, defaults: DefaultsTable, max_tokens: int) -> bool | int:
    if table.lease is not UNSET:
        return table.lease
    lease = _or_default(defaults.lease, False)  # noqa: FBT003 - the default of a rule's field
    return lease if isinstance(lease, bool) else min(lease, max_tokens)


def _or_default(value: T | UnsetType, default: T) -> T:
    return default if value is UNSET else value


def _is_rate(text: str) -> bool:
    if parse_in_flight(text) is not None:
        return True
    try:
        parse_rate(text)
    except InvalidInputError:
        return False
    return True
