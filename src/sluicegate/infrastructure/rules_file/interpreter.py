"""What a rules file means: from its tables to a `RuleBook`, each mistake named with the field that holds it."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from msgspec import UNSET, UnsetType, json

from sluicegate.domain.bucket_key import require_text
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.identifier_index import read_network
from sluicegate.domain.rate import parse_rate
from sluicegate.domain.routing.template import parse_endpoint
from sluicegate.domain.rule import OnStorageError, RateLimitRule, RateLimitScope
from sluicegate.domain.rule_book import RuleBook
from sluicegate.domain.rule_book_entries import KillSwitch, Listing, Override, RuleGroup, is_global
from sluicegate.infrastructure.rules_file.schema import (
    DefaultsTable,
    EndpointTable,
    KillSwitchTable,
    LimitTable,
    ListingTable,
    OverrideTable,
    PolicyTable,
    RuleFileTable,
    RuleTable,
)
from sluicegate.infrastructure.rules_file.toml_positions import FieldPath

T = TypeVar("T")

_Written: TypeAlias = str | RuleTable | Sequence[str | RuleTable]


class FieldError(Exception):
    """A field of a rules file is wrong.

    Args:
        path: Where.
        message: What is wrong and what was expected.
    """

    def __init__(self, path: FieldPath, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def to_rule_book(file: RuleFileTable) -> RuleBook:
    """Return what a rules file means.

    Raises:
        FieldError: If a value is wrong.
    """
    reader = _Reader(file)
    overrides = [override for name, policy in file.policies.items() for override in reader.overrides(name, policy)]
    endpoints = {name: reader.endpoint(name, written) for name, written in file.endpoints.items()}
    groups = [
        RuleGroup(
            name=name, rules=reader.rules(("groups", name, "rules"), group.rules), endpoints=tuple(group.endpoints)
        )
        for name, group in file.groups.items()
    ]
    unmatched = () if file.unmatched is UNSET else reader.rules(("unmatched",), file.unmatched)
    tables = {name: written for name, written in file.endpoints.items() if isinstance(written, EndpointTable)}
    costs = {name: table.cost for name, table in tables.items() if table.rules is not UNSET and table.cost is not UNSET}
    _require_endpoints(file)
    try:
        return RuleBook(
            endpoints,
            groups=groups,
            unmatched=unmatched,
            overrides=overrides,
            **_lists(file),
            kill_switches=_kill_switches(file, reader.policies),
            costs=costs,
            policies=reader.policies,
            replaces_code=[name for name, table in tables.items() if table.replaces_code],
        )
    except InvalidInputError as error:
        raise FieldError((), str(error)) from None


class _Reader:
    """Read rules, with the file's policies and defaults in hand."""

    def __init__(self, file: RuleFileTable) -> None:
        self._defaults = file.defaults
        self.policies: dict[str, RateLimitRule] = {}
        for name, written in file.policies.items():
            path = ("policies", name)
            if _is_rate(name):
                raise FieldError(path, "a policy's name must not read as a rate")
            self.policies[name] = self._rule(path, written, name)

    def endpoint(
        self, name: str, written: str | Sequence[str | RuleTable] | EndpointTable
    ) -> tuple[RateLimitRule, ...]:
        path: FieldPath = ("endpoints", name)
        if not isinstance(written, EndpointTable):
            return self.rules(path, written)
        if written.rules is UNSET:
            return (self._rule(path, written, ""),)
        for field in ("rate", "max_tokens", "refill_rate", "scope", "on_storage_error", "shadow", "lease"):
            if getattr(written, field) is not UNSET:
                raise FieldError((*path, field), "stands beside rules; write it in the rule itself")
        rules = self.rules((*path, "rules"), written.rules)
        if written.enabled is False:
            rules = tuple(_changed(path, rule, enabled=False) for rule in rules)
        if written.cost is not UNSET:
            for rule in rules:
                _changed((*path, "cost"), rule, cost=written.cost)
        return rules

    def rules(self, path: FieldPath, written: _Written) -> tuple[RateLimitRule, ...]:
        if isinstance(written, str | RuleTable):
            return (self._one(path, written),)
        if not written:
            raise FieldError(path, "expected at least one rule")
        rules = tuple(self._one((*path, n), one) for n, one in enumerate(written))
        names = [rule.name for rule in rules]
        for n, name in enumerate(names):
            if name and name in names[:n]:
                raise FieldError((*path, n), f"the policy {name!r} stands here a second time")
        return rules

    def overrides(self, name: str, policy: str | PolicyTable) -> list[Override]:
        if isinstance(policy, str):
            return []
        rule = self.policies[name]
        path: FieldPath = ("policies", name, "overrides")
        if policy.overrides and is_global(rule.scope):
            raise FieldError(path, "the scope global has no identifiers to override")
        _require_identifiers_once(
            rule.scope, [((*path, n, "id"), table.id) for n, table in enumerate(policy.overrides)]
        )
        return [self._override((*path, n), name, rule, table) for n, table in enumerate(policy.overrides)]

    def _override(self, path: FieldPath, name: str, rule: RateLimitRule, table: OverrideTable) -> Override:
        if table.enabled is False and table.rate is UNSET and table.max_tokens is UNSET and table.refill_rate is UNSET:
            instead = _changed(path, rule, enabled=False)
        else:
            max_tokens, refill_rate, _ = _limit(path, table, rule.scope, rule.scope)
            enabled = table.enabled if table.enabled is not UNSET else True
            instead = _changed(path, rule, max_tokens=max_tokens, refill_rate=refill_rate, enabled=enabled)
        until = None if table.until is UNSET else table.until
        return Override(policy=name, identifier=table.id, rule=instead, until=until, reason=table.reason)

    def _one(self, path: FieldPath, written: str | RuleTable) -> RateLimitRule:
        if isinstance(written, RuleTable):
            return self._rule(path, written, "")
        policy = self.policies.get(written)
        if policy is not None:
            return policy
        if not any(character.isdigit() for character in written[:1]):
            raise FieldError(
                path, f"no policy is named {written!r:.80}{_hint(written, self.policies)}, and it is no rate"
            )
        return self._rule(path, written, "")

    def _rule(self, path: FieldPath, written: str | RuleTable, name: str) -> RateLimitRule:
        if isinstance(written, str):
            try:
                return self._rule(path, RuleTable(rate=written), name)
            except FieldError as error:
                raise FieldError(path, error.message) from None
        table, defaults = written, self._defaults
        given = None if table.scope is UNSET else table.scope
        max_tokens, refill_rate, scope = _limit(path, table, given, _first(defaults.scope, RateLimitScope.IP))
        try:
            return RateLimitRule(
                max_tokens,
                refill_rate,
                scope,
                cost=_first(table.cost, 1),
                enabled=_first(table.enabled, True),  # noqa: FBT003 - the default of a rule's field
                name=name,
                on_storage_error=_on_storage_error(table, defaults),
                shadow=_first(table.shadow, _first(defaults.shadow, False)),  # noqa: FBT003 - the same
                lease=_lease(table, defaults, max_tokens),
            )
        except InvalidInputError as error:
            raise _blamed(path, error) from None


def _limit(path: FieldPath, table: LimitTable, given: str | None, default: str) -> tuple[int, float, str]:
    """Return capacity, refill rate and scope: as the rate says, else as the table does, else the default."""
    if table.rate is UNSET:
        if table.max_tokens is UNSET or table.refill_rate is UNSET:
            raise FieldError(path, "expected a rate, or both max_tokens and refill_rate")
        return table.max_tokens, table.refill_rate, given or default
    if table.max_tokens is not UNSET or table.refill_rate is not UNSET:
        raise FieldError((*path, "rate"), "stands beside max_tokens or refill_rate; write one or the other")
    try:
        named = parse_rate(table.rate)[3]
        if named and given and named != given:
            raise FieldError((*path, "rate"), f"names the scope {named!r}, but the scope {str(given)!r} was given")
        rule = RateLimitRule.parse(table.rate, scope=named or given or default)
    except InvalidInputError as error:
        raise _blamed(path, error, "rate") from None
    return rule.max_tokens, rule.refill_rate, rule.scope


def _lists(file: RuleFileTable) -> dict[str, list[Listing]]:
    """Return the allow and deny lists."""
    found: dict[str, list[Listing]] = {"allow": [], "deny": []}
    by_scope: dict[str, list[tuple[FieldPath, str]]] = {}
    for which, scopes in (("allow", file.allow), ("deny", file.deny)):
        for scope, listings in scopes.items():
            if is_global(scope):
                raise FieldError((which, scope), "the scope global has no identifiers to list")
            for n, written in enumerate(listings):
                table = ListingTable(id=written) if isinstance(written, str) else written
                by_scope.setdefault(scope, []).append(((which, scope, n), table.id))
                until = None if table.until is UNSET else table.until
                found[which].append(Listing(scope=scope, identifier=table.id, until=until, reason=table.reason))
    for scope, places in by_scope.items():
        _require_identifiers_once(scope, places)
    return found


def _kill_switches(file: RuleFileTable, policies: Mapping[str, RateLimitRule]) -> list[KillSwitch]:
    written = file.kill_switch
    if isinstance(written, bool):
        return [KillSwitch()] if written else []
    switches: list[KillSwitch] = []
    for n, table in enumerate([written] if isinstance(written, KillSwitchTable) else written):
        path: FieldPath = ("kill_switch",) if isinstance(written, KillSwitchTable) else ("kill_switch", n)
        for m, name in enumerate(table.policies):
            if name not in policies:
                raise FieldError((*path, "policies", m), f"no policy is named {name!r:.80}{_hint(name, policies)}")
        until = None if table.until is UNSET else table.until
        switches.append(KillSwitch(policies=tuple(table.policies), until=until, reason=table.reason))
    return switches


def _require_endpoints(file: RuleFileTable) -> None:
    for name in file.endpoints:
        _require_endpoint(("endpoints", name), name)
    for name, group in file.groups.items():
        _require_endpoint(("groups", name), name)
        for n, endpoint in enumerate(group.endpoints):
            _require_endpoint(("groups", name, "endpoints", n), endpoint)
            if endpoint in group.endpoints[:n]:
                raise FieldError(("groups", name, "endpoints", n), f"{endpoint!r:.80} stands here a second time")


def _require_endpoint(path: FieldPath, endpoint: str) -> None:
    try:
        parse_endpoint(require_text("endpoint", endpoint))
    except InvalidInputError as error:
        raise FieldError(path, str(error)) from None


def _require_identifiers_once(scope: str, places: Iterable[tuple[FieldPath, str]]) -> None:
    """Raise the error that names the field if an identifier is no identifier, or stands in two places."""
    seen: dict[object, FieldPath] = {}
    for path, identifier in places:
        if not identifier:
            raise FieldError(path, "expected a text that is not empty")
        what: object = identifier
        if scope == RateLimitScope.IP:
            try:
                what = read_network(identifier)
            except InvalidInputError as error:
                raise FieldError(path, str(error)) from None
        first = seen.setdefault(what, path)
        if first is not path:
            raise FieldError(path, f"{identifier!r:.80} stands in {dotted(first)} already")


def dotted(path: FieldPath) -> str:
    """Return a place in a file as people write it: `endpoints."POST /x"[0].cost`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("_", "").replace("-", "")
            key = step if plain.isascii() and plain.isalnum() else json.encode(step[:80]).decode()
            text += f".{key}" if text else key
    return text


def _blamed(path: FieldPath, error: InvalidInputError, field: str = "") -> FieldError:
    """Name the field that a rule's error begins with, as in `cost=9: expected …`."""
    text = str(error)
    return FieldError((*path, field or text.partition("=")[0]), text)


def _changed(path: FieldPath, rule: RateLimitRule, **changes: object) -> RateLimitRule:
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
    lease = _first(defaults.lease, False)  # noqa: FBT003 - the default of a rule's field
    return lease if isinstance(lease, bool) else min(lease, max_tokens)


def _first(value: T | UnsetType, otherwise: T) -> T:
    return otherwise if value is UNSET else value


def _is_rate(text: str) -> bool:
    try:
        parse_rate(text)
    except InvalidInputError:
        return False
    return True


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
