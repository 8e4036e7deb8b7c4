"""Turn the tables of a rules file into a `RuleBook`. Each mistake is reported with the field that it is in."""

from collections.abc import Iterable, Mapping

from msgspec import UNSET

from sluicegate.domain.arguments import require_text
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.template import parse_endpoint
from sluicegate.domain.rules.identifier_index import read_network
from sluicegate.domain.rules.rule import RateLimitRule, RateLimitScope
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.domain.rules.rule_book_entries import KillSwitch, Listing, Override, RuleGroup, is_global
from sluicegate.infrastructure.rules_file.field_path import FieldError, FieldPath, format_path
from sluicegate.infrastructure.rules_file.rule_builder import RuleBuilder, did_you_mean
from sluicegate.infrastructure.rules_file.schema import (
    EndpointTable,
    KillSwitchTable,
    ListingTable,
    PolicyTable,
    RuleFileTable,
)


def to_rule_book(file: RuleFileTable) -> RuleBook:
    """Return the rules that a file describes.

    Raises:
        FieldError: If a value is invalid.
    """
    builder = RuleBuilder(file)
    overrides = [override for name, policy in file.policies.items() for override in _overrides(builder, name, policy)]
    endpoints = {name: builder.endpoint(name, value) for name, value in file.endpoints.items()}
    groups = [
        RuleGroup(
            name=name, rules=builder.rules(("groups", name, "rules"), group.rules), endpoints=tuple(group.endpoints)
        )
        for name, group in file.groups.items()
    ]
    unmatched = () if file.unmatched is UNSET else builder.rules(("unmatched",), file.unmatched)
    tables = {name: value for name, value in file.endpoints.items() if isinstance(value, EndpointTable)}
    costs = {name: table.cost for name, table in tables.items() if table.rules is not UNSET and table.cost is not UNSET}
    _check_endpoints(file)
    try:
        return RuleBook(
            endpoints,
            groups=groups,
            unmatched=unmatched,
            overrides=overrides,
            **_lists(file),
            kill_switches=_kill_switches(file, builder.policies),
            costs=costs,
            policies=builder.policies,
            replaces_code=[name for name, table in tables.items() if table.replaces_code],
        )
    except InvalidInputError as error:
        raise FieldError((), str(error)) from None


def _overrides(builder: RuleBuilder, name: str, policy: str | PolicyTable) -> list[Override]:
    if isinstance(policy, str):
        return []
    scope = builder.policies[name].scope
    path: FieldPath = ("policies", name, "overrides")
    if policy.overrides and is_global(scope):
        raise FieldError(path, "the scope global has no identifiers to override")
    _check_identifiers(scope, [((*path, n, "id"), table.id) for n, table in enumerate(policy.overrides)])
    return [builder.override((*path, n), name, table) for n, table in enumerate(policy.overrides)]


def _lists(file: RuleFileTable) -> dict[str, list[Listing]]:
    """Return the allow and deny lists."""
    lists: dict[str, list[Listing]] = {"allow": [], "deny": []}
    identifiers: dict[str, list[tuple[FieldPath, str]]] = {}  # by scope: none may be in both lists
    for which, scopes in (("allow", file.allow), ("deny", file.deny)):
        for scope, values in scopes.items():
            if is_global(scope):
                raise FieldError((which, scope), "the scope global has no identifiers to list")
            for n, value in enumerate(values):
                table = ListingTable(id=value) if isinstance(value, str) else value
                identifiers.setdefault(scope, []).append(((which, scope, n), table.id))
                until = None if table.until is UNSET else table.until
                lists[which].append(Listing(scope=scope, identifier=table.id, until=until, reason=table.reason))
    for scope, places in identifiers.items():
        _check_identifiers(scope, places)
    return lists


def _kill_switches(file: RuleFileTable, policies: Mapping[str, RateLimitRule]) -> list[KillSwitch]:
    value = file.kill_switch
    if isinstance(value, bool):
        return [KillSwitch()] if value else []
    switches: list[KillSwitch] = []
    for n, table in enumerate([value] if isinstance(value, KillSwitchTable) else value):
        path: FieldPath = ("kill_switch",) if isinstance(value, KillSwitchTable) else ("kill_switch", n)
        for m, name in enumerate(table.policies):
            if name not in policies:
                hint = did_you_mean(name, policies)
                raise FieldError((*path, "policies", m), f"no policy is named {name!r:.80}{hint}")
        until = None if table.until is UNSET else table.until
        switches.append(KillSwitch(policies=tuple(table.policies), until=until, reason=table.reason))
    return switches


def _check_endpoints(file: RuleFileTable) -> None:
    for name in file.endpoints:
        _check_endpoint(("endpoints", name), name)
    for name, group in file.groups.items():
        _check_endpoint(("groups", name), name)
        for n, endpoint in enumerate(group.endpoints):
            _check_endpoint(("groups", name, "endpoints", n), endpoint)
            if endpoint in group.endpoints[:n]:
                raise FieldError(("groups", name, "endpoints", n), f"{endpoint!r:.80} is listed twice")


def _check_endpoint(path: FieldPath, endpoint: str) -> None:
    try:
        parse_endpoint(require_text("endpoint", endpoint))
    except InvalidInputError as error:
        raise FieldError(path, str(error)) from None


def _check_identifiers(scope: str, places: Iterable[tuple[FieldPath, str]]) -> None:
    """Check that identifiers are valid and none occurs twice.

    Raises:
        FieldError: If one is invalid or occurs twice; it names the second field, and the first one in its message.
    """
    seen: dict[object, FieldPath] = {}
    for path, identifier in places:
        if not identifier:
            raise FieldError(path, "expected a text that is not empty")
        parsed: object = identifier
        if scope == RateLimitScope.IP:
            try:
                parsed = read_network(identifier)
            except InvalidInputError as error:
                raise FieldError(path, str(error)) from None
        first = seen.setdefault(parsed, path)
        if first is not path:
            raise FieldError(path, f"{identifier!r:.80} is already in {format_path(first)}")
