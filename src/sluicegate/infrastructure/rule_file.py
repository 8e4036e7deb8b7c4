"""Rules files: TOML that operators write, read into rules."""

import tomllib
from pathlib import Path
from typing import Any, cast

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rule import OnStorageError, RateLimitRule

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The largest rules file that is read."""


class _RuleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule written as a table: a rate, or the two numbers, and what else a rule has."""

    rate: str | None = None
    max_tokens: int | None = None
    refill_rate: float | None = None
    scope: str | None = None
    cost: int = 1
    enabled: bool = True
    on_storage_error: OnStorageError | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rules file as it is written."""

    policies: dict[str, str | _RuleTable] = {}
    endpoints: dict[str, str | list[str]] = {}


def load_rules(path: str | Path) -> dict[str, tuple[RateLimitRule, ...]]:
    """Read a rules file.

    Args:
        path: A TOML file with the tables `policies` (a name and a rate such as `"5/minute per ip"`, or a table of a rule's
            fields) and `endpoints` (an endpoint and the name of a policy, a rate, or a list of them).

    Returns:
        Endpoints and their rules, in the file's order.

    Raises:
        InvalidInputError: If the file cannot be read or something in it is wrong; the message names file and field.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInputError(f"{path}: {len(data)} bytes long, expected at most {MAX_FILE_BYTES}")
    try:
        document: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
        file = msgspec.convert(document, _File)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInputError(f"{path}: {error}") from None
    policies = {name: _located(path, f"policies.{name}", policy, name) for name, policy in file.policies.items()}
    rules: dict[str, tuple[RateLimitRule, ...]] = {}
    for endpoint, named in file.endpoints.items():
        names = [named] if isinstance(named, str) else named
        rules[endpoint] = tuple(
            policies.get(name) or _located(path, f"endpoints.{endpoint!r}", name, "") for name in names
        )
    return rules


def _located(path: Path, field: str, policy: str | _RuleTable, name: str) -> RateLimitRule:
    try:
        return _rule(policy, name)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {field}: {error}") from None


def _rule(policy: str | _RuleTable, name: str) -> RateLimitRule:
    table = _RuleTable(rate=policy) if isinstance(policy, str) else policy
    if (table.rate is None) == (table.max_tokens is None and table.refill_rate is None):
        raise InvalidInputError("expected either rate, or max_tokens and refill_rate")
    if table.rate is not None:
        parsed = RateLimitRule.parse(table.rate, scope=table.scope)
        max_tokens, refill_rate, scope = parsed.max_tokens, parsed.refill_rate, parsed.scope
    else:
        max_tokens, refill_rate, scope = (
            cast("int", table.max_tokens),
            cast("float", table.refill_rate),
            table.scope or "ip",
        )
    return RateLimitRule(
        max_tokens, refill_rate, scope, table.cost, table.enabled, name=name, on_storage_error=table.on_storage_error
    )
