"""Which rules hold for an endpoint, worked out once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

import msgspec

from sluicegate.domain.bucket_key import KeyFormat, require_text
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.route_table import RouteTable
from sluicegate.domain.route_template import parse_endpoint
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.token_bucket import BucketShape

Rules: TypeAlias = Mapping[str, RateLimitRule | Sequence[RateLimitRule]]
"""What users write: an endpoint and its rule, or several."""


UNMATCHED = "*"
"""The endpoint whose rules hold for requests that no other endpoint fits."""


class Meter(msgspec.Struct, frozen=True, gc=False):
    """One rule of one endpoint, ready to be asked.

    Args:
        rule: The rule.
        scope: Whom it counts.
        shape: Its arithmetic.
        cost_units: The rule's own cost in units.
        before: What stands in a key before the identifier.
        after: What stands after it; None if the key has no identifier and `before` is all of it.
    """

    rule: RateLimitRule
    scope: str
    shape: BucketShape
    cost_units: int
    before: str
    after: str | None


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What a check of one endpoint does.

    Args:
        endpoint: The endpoint as the rules name it.
        meters: The rules that are enabled, in their order.
        max_cost: The greatest cost that fits all of them.
        disabled: The answer if no rule is enabled.
        scopes: Whom the enabled rules count, each once.
    """

    endpoint: str
    meters: tuple[Meter, ...]
    max_cost: int
    disabled: RateLimitResult | None
    scopes: tuple[str, ...] = ()


class RuleSet:
    """Look up the plan of an endpoint.

    Args:
        rules: An endpoint (`POST /api/v1/sessions`) and its rule or rules.
        key_format: How buckets are named.

    Raises:
        InvalidInputError: If an endpoint is not a text of 1 to 1024 bytes, is a route that cannot be read or has no rule, or
            two rules of an endpoint have the same name.
        InvalidTypeError: If something is not a rule.
    """

    __slots__ = ("_plans", "_routes")

    def __init__(self, rules: Rules, key_format: KeyFormat) -> None:
        if not isinstance(rules, Mapping):
            raise InvalidTypeError(f"rules={rules!r:.80}: expected a mapping from endpoint to rule")
        self._plans = {
            endpoint: _plan(endpoint, _sequence(endpoint, rule), key_format) for endpoint, rule in rules.items()
        }
        self._routes = RouteTable(filter(None, map(parse_endpoint, self._plans)))

    def find(self, endpoint: str) -> Plan | None:
        """Return what to do for an endpoint; None if no rule names it.

        Args:
            endpoint: A name that the rules have, or a method and a path that one of their templates fits.
        """
        plan = self._plans.get(endpoint)
        if plan is not None:
            return plan
        method, space, path = endpoint.partition(" ")
        name = self.match(method, path) if space else self.match("*", endpoint)
        return None if name is None else self._plans[name]

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint that a request belongs to, `*` if no template fits but it has a rule; None otherwise.

        Unlike in `find`, a path that reads like a template's text is a path like any other.

        Args:
            method: The request's method in capitals, or `WEBSOCKET`.
            path: The path, decoded, without the query.
        """
        endpoint = self._routes.match(method, path)
        if endpoint is None and UNMATCHED in self._plans:
            return UNMATCHED
        return endpoint

    @property
    def plans(self) -> Iterable[Plan]:
        """All plans, in the order of the rules."""
        return self._plans.values()

    def __len__(self) -> int:
        return len(self._plans)

    def __repr__(self) -> str:
        return f"RuleSet(endpoints={len(self._plans)})"


def _sequence(endpoint: object, rules: object) -> tuple[RateLimitRule, ...]:
    require_text("endpoint", endpoint)
    several = (rules,) if isinstance(rules, RateLimitRule) else rules
    if isinstance(several, str | bytes) or not isinstance(several, Sequence):
        raise InvalidTypeError(f"rules[{endpoint!r}]={rules!r:.80}: expected a RateLimitRule or a tuple of them")
    if not several:
        raise InvalidInputError(f"rules[{endpoint!r}]: expected at least one rule")
    checked: list[RateLimitRule] = []
    for rule in cast("Sequence[object]", several):
        if not isinstance(rule, RateLimitRule):
            raise InvalidTypeError(f"rules[{endpoint!r}]: expected a RateLimitRule, not {rule!r:.80}")
        if any(rule.name and rule.name == other.name for other in checked):
            raise InvalidInputError(f"rules[{endpoint!r}]: two rules are named {rule.name!r}")
        checked.append(rule)
    return tuple(checked)


def _plan(endpoint: str, rules: tuple[RateLimitRule, ...], key_format: KeyFormat) -> Plan:
    meters: list[Meter] = []
    seen: dict[str, int] = {}
    for rule in rules:
        # The first rule of a scope has the plain key; the others carry their name, or their number among the scope's.
        seen[rule.scope] = nth = seen.get(rule.scope, 0) + 1
        before, after = key_format.frame(rule.scope, endpoint, "" if nth == 1 else rule.name or str(nth))
        shape = rule.shape
        if rule.enabled:
            meters.append(Meter(rule, str(rule.scope), shape, rule.cost * shape.units_per_token, before, after))
    if meters:
        scopes = tuple(dict.fromkeys(meter.scope for meter in meters))
        return Plan(endpoint, tuple(meters), min(meter.rule.max_tokens for meter in meters), None, scopes)
    full = min(rule.max_tokens for rule in rules)
    return Plan(
        endpoint, (), 0, RateLimitResult(allowed=True, retry_after=0.0, remaining=full, limit=full, reset_seconds=0)
    )
