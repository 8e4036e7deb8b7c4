"""Turn the tables of a configuration into a tree of descriptors and the rules of its limits."""

import re
from typing import Final

import msgspec

from sluicegate.domain.arguments import require_text
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.descriptors import (
    SCOPE,
    DescriptorLimit,
    DescriptorNode,
    Entry,
    ValuePattern,
    Window,
    endpoint_of,
)
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.ratelimit_config.schema import DescriptorTable, DomainTable, RateLimitTable
from sluicegate.infrastructure.rules_file.field_path import FieldError, FieldPath

UNIT_SECONDS: Final = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
}
"""The units and their lengths, as the reference server counts them."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.*/-]{1,64}")


class Interpreted(msgspec.Struct):
    """What a file says.

    Args:
        domain: Its domain.
        root: Its tree.
        rules: The rules of the tree's limits, by endpoint.
        warnings: What was read but has no effect; one line each.
    """

    domain: str
    root: DescriptorNode
    rules: dict[str, RateLimitRule]
    warnings: list[str]


def interpret(file: DomainTable) -> Interpreted:
    """Return what a file says.

    Raises:
        FieldError: If a value is invalid.
    """
    if not file.domain:
        raise FieldError(("domain",), "expected a domain that is not empty")
    root = DescriptorNode(values={}, patterns={}, keys={})
    interpreted = Interpreted(file.domain, root, {}, [])
    _add_children(interpreted, root, file.descriptors, (), ())
    return interpreted


def _add_children(
    into: Interpreted,
    parent: DescriptorNode,
    tables: list[DescriptorTable],
    steps: tuple[Entry, ...],
    above: FieldPath,
) -> None:
    for n, table in enumerate(tables):
        path: FieldPath = (*above, "descriptors", n)
        if not table.key:
            raise FieldError((*path, "key"), "expected a key that is not empty")
        if "*" in table.key:
            raise FieldError((*path, "key"), f"{table.key!r:.80}: only a value may have a *")
        if table.share_threshold and "*" not in table.value:
            raise FieldError((*path, "share_threshold"), "needs a value with a *")
        if table.quota_mode:
            raise FieldError((*path, "quota_mode"), "not supported: a limit either denies or is in shadow_mode")
        node = DescriptorNode(values={}, patterns={}, keys={})
        _place(parent, table, node, path)
        way = (*steps, (table.key, table.value))
        node.limit = _limit(into, table, way, path)
        _warn(into, table)
        _add_children(into, node, table.descriptors, way, path)


def _place(parent: DescriptorNode, table: DescriptorTable, node: DescriptorNode, path: FieldPath) -> None:
    """Put a node below another one."""
    key, value = table.key, table.value
    if not value:
        known = key in parent.keys
        parent.keys[key] = node
    elif "*" in value:
        patterns = parent.patterns.setdefault(key, [])
        known = any(pattern.text == value for pattern, _ in patterns)
        patterns.append((ValuePattern(value, table.share_threshold), node))
    else:
        known = (key, value) in parent.values
        parent.values[key, value] = node
    if known:
        raise FieldError(path, f"the key {key!r:.80} with the value {value!r:.80} is there twice")


def _limit(
    into: Interpreted, table: DescriptorTable, way: tuple[Entry, ...], path: FieldPath
) -> DescriptorLimit | None:
    limit = table.rate_limit
    if limit is None:
        return None
    path = (*path, "rate_limit")
    endpoint = endpoint_of(into.domain, way)
    unit = _unit(limit, path)
    replaces = _replaces(limit, path)
    if limit.name and not _NAME.fullmatch(limit.name):
        raise FieldError((*path, "name"), f"{limit.name!r:.80}: expected up to 64 letters, digits or any of _.*/-")
    if not limit.unlimited and limit.requests_per_unit:
        into.rules[endpoint] = _rule(limit, unit, path, endpoint, shadow=table.shadow_mode)
    return DescriptorLimit(
        endpoint=endpoint,
        window=Window(limit.requests_per_unit, unit, limit.unit_multiplier, limit.name),
        replaces=replaces,
        unlimited=limit.unlimited,
        shadow=table.shadow_mode,
        owes=limit.max_debt is not None,
    )


def _unit(limit: RateLimitTable, path: FieldPath) -> str:
    unit = limit.unit.lower()
    if limit.unlimited:
        for field, given in (
            ("unit", unit),
            ("requests_per_unit", limit.requests_per_unit),
            ("burst", limit.burst),
            ("max_debt", limit.max_debt),
        ):
            if given:
                raise FieldError((*path, field), "cannot be used with unlimited")
        return ""
    if unit not in UNIT_SECONDS:
        raise FieldError((*path, "unit"), f"{limit.unit!r:.80}: expected one of {', '.join(UNIT_SECONDS)}")
    return unit


def _replaces(limit: RateLimitTable, path: FieldPath) -> frozenset[str]:
    for n, one in enumerate(limit.replaces):
        if not one.name:
            raise FieldError((*path, "replaces", n, "name"), "expected a name that is not empty")
        if one.name == limit.name:
            raise FieldError((*path, "replaces", n, "name"), f"{one.name!r:.80} is the limit's own name")
    return frozenset(one.name for one in limit.replaces)


def _rule(limit: RateLimitTable, unit: str, path: FieldPath, endpoint: str, *, shadow: bool) -> RateLimitRule:
    try:
        require_text("endpoint", endpoint)
        return rule_per_unit(
            limit.requests_per_unit,
            unit,
            limit.unit_multiplier,
            burst=limit.burst,
            name=limit.name,
            shadow=shadow,
            max_debt=limit.max_debt,
        )
    except InvalidInputError as error:
        raise FieldError(path, str(error)) from None


def rule_per_unit(  # noqa: PLR0913 - the parts of a limit
    requests_per_unit: int,
    unit: str,
    unit_multiplier: int = 1,
    *,
    burst: int = 0,
    name: str = "",
    shadow: bool = False,
    max_debt: int | None = None,
) -> RateLimitRule:
    """Return the rule that a limit means: a bucket with as many tokens as requests, which refills in one window.

    Args:
        requests_per_unit: Requests in a window, at least 1.
        unit: The unit, one of `UNIT_SECONDS`.
        unit_multiplier: How many units the window has.
        burst: The bucket's capacity; 0: `requests_per_unit`.
        name: The rule's name.
        shadow: Whether it only observes.
        max_debt: How many tokens below zero it may be charged for what was done already; None: see `RateLimitRule`.

    Raises:
        InvalidInputError: If the bucket could not be counted exactly.
    """
    seconds = UNIT_SECONDS[unit] * unit_multiplier
    per_minute, rest = divmod(requests_per_unit * 60, seconds)
    return RateLimitRule(
        max_tokens=burst or requests_per_unit,
        refill_rate=requests_per_unit * 60 / seconds if rest else per_minute,
        scope=SCOPE,
        name=name,
        shadow=shadow,
        max_debt=max_debt,
    )


def _warn(into: Interpreted, table: DescriptorTable) -> None:
    place = f"{into.domain}: descriptors of {table.key!r:.80}"
    for field in ("detailed_metric", "value_to_metric"):
        if getattr(table, field):
            into.warnings.append(
                f"{place}: {field} has no effect: values of descriptors never become labels of metrics"
            )
    if table.metadata:
        into.warnings.append(f"{place}: metadata has no effect: answers carry no dynamic metadata")
