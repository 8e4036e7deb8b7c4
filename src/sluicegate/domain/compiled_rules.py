"""Which rules hold for an endpoint, worked out once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.identifier_index import IdentifierIndex
from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import parse_endpoint
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.rule_book import UNMATCHED, Bound, Override, RuleBook, Rules

__all__ = ["UNMATCHED", "CompiledRules", "EndpointRules", "Limit", "Rules", "Substitute", "max_cost_of", "untouched"]


class Limit(msgspec.Struct, frozen=True, gc=False):
    """One rule of one endpoint, ready to be asked.

    Args:
        rule: The rule.
        scope: Whom it counts.
        spec: Its arithmetic.
        cost_units: The rule's own cost in units.
        before: What stands in a key before the identifier.
        after: What stands after it; None if the key has no identifier and `before` is all of it.
        bucket: What the key names in the endpoint's place: the endpoint, a group, or `*`.
        overrides: Whom another limit holds for; None: for nobody.
        lease_units: The most that a process may borrow at a time; 0: nothing.
    """

    rule: RateLimitRule
    scope: str
    spec: BucketSpec
    cost_units: int
    before: str
    after: str | None
    bucket: str
    overrides: "IdentifierIndex[Substitute] | None" = None
    lease_units: int = 0


class Substitute(msgspec.Struct, frozen=True, gc=False):
    """An override, ready to be asked.

    Args:
        identifier: Whom it is about.
        until: When it ends; None: never.
        limit_: What takes the rule's place; None: nothing does.
        override: What the operator wrote.
    """

    identifier: str
    until: datetime | None
    limit_: Limit | None
    override: Override


class EndpointRules(msgspec.Struct, frozen=True, gc=False):
    """What a check of one endpoint does.

    Args:
        endpoint: The endpoint as the rules name it.
        limits: The rules that are enabled and may deny, in their order.
        max_cost: The greatest cost that fits all of them.
        disabled: The answer if there is no such rule.
        scopes: Whom its enabled rules count, each once.
        shadows: The enabled rules in shadow mode.
        special: Whether there are shadows or overrides; else nothing is looked up for them.
        expires: Whether the plan holds only until the end of an override.
    """

    endpoint: str
    limits: tuple[Limit, ...]
    max_cost: int
    disabled: RateLimitResult | None
    scopes: tuple[str, ...]
    shadows: tuple[Limit, ...] = ()
    special: bool = False
    expires: bool = False


class CompiledRules:
    """Look up the plan of an endpoint.

    Args:
        rules: An endpoint (`POST /api/v1/sessions`) and its rule or rules, or a `RuleBook`.
        key_format: How buckets are named.
        switched_off: Which rules do not count, whatever they say of themselves; None: none. If `everything` is, the lists
            do not count either.

    Raises:
        InvalidInputError: If an endpoint is not a text of 1 to 1024 bytes, is a route that cannot be read or has no rule, or
            two rules of an endpoint have the same name.
        InvalidTypeError: If something is not a rule.
    """

    __slots__ = ("_plans", "lists", "otherwise", "routes", "unmatched")

    def __init__(
        self,
        rules: Rules,
        key_format: KeyFormat,
        *,
        switched_off: Callable[[RateLimitRule], bool] | None = None,
        everything: bool = False,
    ) -> None:
        book = rules if isinstance(rules, RuleBook) else RuleBook(rules)
        compiler = _Compiler(book, key_format, (lambda _: True) if everything else switched_off)
        self._plans = {endpoint: compiler.endpoint_rules(endpoint, book.bound(endpoint)) for endpoint in book}
        self.routes = RouteTable(filter(None, map(parse_endpoint, self._plans)))
        """The endpoints that are templates."""
        self.unmatched = self._plans.get(UNMATCHED)
        """What to do for endpoints that no rule names; None: let them pass."""
        self.lists = {} if everything else book.index_lists()
        """The allow and deny lists, by scope."""
        self.otherwise = UNMATCHED if self.unmatched is not None or self.lists else None
        """The endpoint of a request that fits no template; None if there is nothing to ask for it."""

    def find(self, endpoint: str) -> EndpointRules | None:
        """Return what to do for an endpoint; None if no rule is for it.

        Args:
            endpoint: A name that the rules have, or a method and a path that one of their templates fits; else the rules of
                unmatched endpoints are for it.
        """
        endpoint_rules = self._plans.get(endpoint)
        if endpoint_rules is not None:
            return endpoint_rules
        method, space, path = endpoint.partition(" ")
        name = self.match(method, path) if space else self.match("*", endpoint)
        return self.unmatched if name is None else self._plans.get(name)

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint that a request belongs to; None if there is nothing to ask.

        If no template fits, that is `*` if it has a rule, or if there are lists, which may know the client all the same.
        Unlike in `find`, a path that reads like a template's text is a path like any other.

        Args:
            method: The request's method in capitals, or `WEBSOCKET`.
            path: The path, decoded, without the query.
        """
        return self.routes.match(method, path) or self.otherwise

    @property
    def scopes(self) -> frozenset[str]:
        """Whom the rules count, all together."""
        return frozenset(scope for endpoint_rules in self._plans.values() for scope in endpoint_rules.scopes)

    def scopes_of(self, endpoint: str) -> tuple[str, ...]:
        """Return whose identifiers a check of an endpoint needs, each scope once: its rules' and the lists'."""
        endpoint_rules = self.find(endpoint)
        return tuple(dict.fromkeys((*(endpoint_rules.scopes if endpoint_rules else ()), *self.lists)))

    @property
    def plans(self) -> Iterable[EndpointRules]:
        """All plans, in the order of the rules."""
        return self._plans.values()

    def __len__(self) -> int:
        return len(self._plans)

    def __repr__(self) -> str:
        return f"CompiledRules(endpoints={len(self._plans)})"


class _Compiler:
    """Make plans of rules."""

    def __init__(
        self, book: RuleBook, key_format: KeyFormat, switched_off: Callable[[RateLimitRule], bool] | None
    ) -> None:
        self._key_format = key_format
        self._switched_off = switched_off
        self._overrides: dict[str, list[Override]] = {}
        for override in book.overrides:
            self._overrides.setdefault(override.policy, []).append(override)

    def endpoint_rules(self, endpoint: str, bound: tuple[Bound, ...]) -> EndpointRules:
        limits: list[Limit] = []
        shadows: list[Limit] = []
        seen: dict[tuple[str, str], int] = {}
        for rule, bucket in ((one.rule, one.bucket) for one in bound):
            # The first rule of a scope has the plain key; the others carry their name, or their number among the scope's.
            seen[bucket, rule.scope] = nth = seen.get((bucket, rule.scope), 0) + 1
            frame = self._key_format.frame(rule.scope, bucket, "" if nth == 1 else rule.name or str(nth))
            if rule.enabled and not (self._switched_off and self._switched_off(rule)):
                (shadows if rule.shadow else limits).append(self._meter(rule, bucket, frame))
        special = bool(shadows) or any(limit_.overrides is not None for limit_ in limits)
        return EndpointRules(
            endpoint,
            tuple(limits),
            max_cost_of(limits),
            None if limits else untouched([one.rule for one in bound]),
            tuple(dict.fromkeys(limit_.scope for limit_ in (*limits, *shadows))),
            tuple(shadows),
            special,
        )

    def _meter(self, rule: RateLimitRule, bucket: str, frame: tuple[str, str | None]) -> Limit:
        overrides = self._overrides.get(rule.name) if rule.name else None
        index = None
        if overrides:
            substitutes = [self._substitute(rule, override, bucket, frame) for override in overrides]
            index = IdentifierIndex(rule.scope, substitutes)
        return _meter(rule, bucket, frame, index)

    def _substitute(
        self, rule: RateLimitRule, override: Override, bucket: str, frame: tuple[str, str | None]
    ) -> Substitute:
        instead = override.rule
        limit_ = None
        if instead.enabled:
            # Only the limit is another; whom it counts, at what cost and to what effect stays the rule's own.
            capacity = instead.max_tokens
            lease = rule.lease if isinstance(rule.lease, bool) else min(rule.lease, capacity)
            instead = replace(rule, max_tokens=capacity, refill_rate=instead.refill_rate, lease=lease)
            limit_ = _meter(instead, bucket, frame)
        return Substitute(override.identifier, override.until, limit_, override)


def _meter(
    rule: RateLimitRule,
    bucket: str,
    frame: tuple[str, str | None],
    overrides: "IdentifierIndex[Substitute] | None" = None,
) -> Limit:
    spec = rule.spec
    # Without a size it is a quarter of the capacity: a few processes find something, and storages lend less as a rule.
    lease = max(1, rule.max_tokens // 4) if rule.lease is True else int(rule.lease)
    token = spec.units_per_token
    return Limit(rule, str(rule.scope), spec, rule.cost * token, *frame, bucket, overrides, lease * token)


def max_cost_of(limits: Sequence[Limit]) -> int:
    """Return the greatest cost that fits all of some rules."""
    return min((limit_.rule.max_tokens for limit_ in limits), default=0)


def untouched(rules: Iterable[RateLimitRule]) -> RateLimitResult:
    """Return the answer where none of an endpoint's rules counts: allowed, and everything is left."""
    full = min(rule.max_tokens for rule in rules)
    return RateLimitResult(allowed=True, retry_after=0.0, remaining=full, limit=full, reset_seconds=0)
