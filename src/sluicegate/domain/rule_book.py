"""Everything that operators say about limits, as one immutable value: what a rules file holds, and what a reload swaps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import TypeAlias, cast

import msgspec

from sluicegate.domain.arguments import require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.identifier_index import IdentifierIndex
from sluicegate.domain.rule import RateLimitRule, RateLimitScope

Rules: TypeAlias = Mapping[str, RateLimitRule | Sequence[RateLimitRule]]
"""What users write: an endpoint and its rule, or several. A `RuleBook` is one, and holds more."""

UNMATCHED = "*"
"""What stands for the endpoint where no rule names it: in keys, events and metrics, so that random paths name nothing."""


class RuleGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints that share their buckets.

    Args:
        name: What stands in keys in place of the endpoint.
        rules: The rules that hold for all of them together.
        endpoints: The endpoints, as they are named elsewhere.
    """

    name: str
    rules: tuple[RateLimitRule, ...]
    endpoints: tuple[str, ...]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an allow or deny list.

    Args:
        scope: Whose identifier it is: `ip`, `user` or a scope of your own.
        identifier: Who: an address or a network for `ip`, else the exact text.
        until: When it ends; None: never. With a time zone.
        reason: Why, for people.
    """

    scope: str
    identifier: str
    until: datetime | None = None
    reason: str = ""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Another limit for one identifier. Each address of a network keeps a bucket of its own.

    Args:
        policy: The name of the rule that it replaces.
        identifier: Who: an address or a network if the rule counts addresses, else the exact text.
        rule: What holds in the rule's place; disabled: nothing does. Its scope is the rule's.
        until: When it ends; None: never. With a time zone.
        reason: Why, for people.
    """

    policy: str
    identifier: str
    rule: RateLimitRule
    until: datetime | None = None
    reason: str = ""


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Rules that are switched off, whatever else is said of them.

    Args:
        policies: The names of the rules; empty: all rules, and the lists.
        until: When they hold again; None: when somebody switches them on. With a time zone.
        reason: Why, for people.
    """

    policies: tuple[str, ...] = ()
    until: datetime | None = None
    reason: str = ""


class Bound(msgspec.Struct, frozen=True):
    """A rule of an endpoint, and the name of the bucket that it counts in: the endpoint's, or a group's."""

    rule: RateLimitRule
    bucket: str


class RuleBook(Mapping[str, tuple[RateLimitRule, ...]]):
    """Hold rules, groups, overrides, lists and kill switches. As a mapping: endpoints and all of their rules.

    Args:
        endpoints: Endpoints and their own rules.
        groups: Endpoints that share buckets, in the order in which their rules follow the endpoints' own.
        unmatched: The rules of endpoints that nothing else names; they share one bucket per identifier. The same as an
            endpoint `*`.
        overrides: Other limits for some identifiers.
        allow: Who is always let pass.
        deny: Who is always denied; of two entries that match one identifier the smaller network decides.
        kill_switches: What is switched off.
        costs: Endpoints whose requests cost another number of tokens than their rules say.
        policies: Named rules that code may refer to, used here or not.
        replaces_code: Endpoints whose rules here win over those declared in code.

    Raises:
        InvalidInputError: If an endpoint has no rule or two rules of one name, a group has the name of an endpoint, an
            override names a rule that nothing has, or two entries are for the same identifier.
        InvalidTypeError: If something is not a rule.
    """

    def __init__(  # noqa: PLR0913 - the parts of a rules file, given by name
        self,
        endpoints: Rules,
        *,
        groups: Sequence[RuleGroup] = (),
        unmatched: Sequence[RateLimitRule] = (),
        overrides: Sequence[Override] = (),
        allow: Sequence[Listing] = (),
        deny: Sequence[Listing] = (),
        kill_switches: Sequence[KillSwitch] = (),
        costs: Mapping[str, int] | None = None,
        policies: Mapping[str, RateLimitRule] | None = None,
        replaces_code: Iterable[str] = (),
    ) -> None:
        if not isinstance(endpoints, Mapping):
            raise InvalidTypeError(f"rules={endpoints!r:.80}: expected a mapping from endpoint to rule")
        self.endpoints = {
            require_text("endpoint", endpoint): rules_of(endpoint, rules) for endpoint, rules in endpoints.items()
        }
        if unmatched:
            if UNMATCHED in self.endpoints:
                raise InvalidInputError(
                    f"unmatched: the endpoint {UNMATCHED!r} has rules already, which means the same"
                )
            self.endpoints[UNMATCHED] = rules_of(UNMATCHED, unmatched)
        self.groups = tuple(groups)
        self.overrides = tuple(overrides)
        self.allow = tuple(allow)
        self.deny = tuple(deny)
        self.kill_switches = tuple(kill_switches)
        self.costs = dict(costs or {})
        self.replaces_code = frozenset(replaces_code)
        self._bound = self._bind()
        self.policies = dict(policies or {})
        """The rules that have a name, by name."""
        for rule in self.rules:
            if rule.name:
                self.policies.setdefault(rule.name, rule)
        self._require_known_policies()

    def bound(self, endpoint: str) -> tuple[Bound, ...]:
        """Return an endpoint's rules and their buckets: its own, then its groups'."""
        return self._bound[endpoint]

    def with_endpoints(self, endpoints: Rules) -> "RuleBook":
        """Return the same book with other endpoints.

        Raises:
            InvalidInputError: As the constructor.
        """
        return RuleBook(
            endpoints,
            groups=self.groups,
            overrides=self.overrides,
            allow=self.allow,
            deny=self.deny,
            kill_switches=self.kill_switches,
            costs=self.costs,
            policies=self.policies,
            replaces_code=self.replaces_code,
        )

    @property
    def rules(self) -> Iterable[RateLimitRule]:
        """Every rule, in the order of the book; one that several endpoints have comes several times."""
        for bound in self._bound.values():
            yield from (one.rule for one in bound)

    @cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits that stand for the content: equal books have equal versions, whatever their layout."""
        data = msgspec.json.encode(self.content(), order="deterministic")
        return blake2b(data, digest_size=6).hexdigest()

    def content(self) -> dict[str, object]:
        """Return everything in plain types, as `rules show --json` prints it."""
        return {
            "endpoints": [[name, [describe(rule) for rule in rules]] for name, rules in self.endpoints.items()],
            "groups": [
                {"name": group.name, "endpoints": group.endpoints, "rules": [describe(rule) for rule in group.rules]}
                for group in self.groups
            ],
            "costs": self.costs,
            "overrides": [
                {**msgspec.structs.asdict(override), "rule": describe(override.rule)} for override in self.overrides
            ],
            "allow": [msgspec.structs.asdict(listing) for listing in self.allow],
            "deny": [msgspec.structs.asdict(listing) for listing in self.deny],
            "kill_switches": [msgspec.structs.asdict(switch) for switch in self.kill_switches],
        }

    def index_lists(self) -> dict[str, IdentifierIndex["Listed"]]:
        """Return the allow and deny lists for lookups, by scope.

        Raises:
            InvalidInputError: If an address is not one, or is listed twice.
        """
        by_scope: dict[str, list[Listed]] = {}
        for denied, listings in ((False, self.allow), (True, self.deny)):
            for one in listings:
                by_scope.setdefault(one.scope, []).append(Listed(one.identifier, one.until, denied, one))
        return {scope: IdentifierIndex(scope, entries) for scope, entries in by_scope.items()}

    def __getitem__(self, endpoint: str) -> tuple[RateLimitRule, ...]:
        return tuple(one.rule for one in self._bound[endpoint])

    def __iter__(self) -> Iterator[str]:
        return iter(self._bound)

    def __len__(self) -> int:
        return len(self._bound)

    def __repr__(self) -> str:
        return f"RuleBook(endpoints={len(self._bound)}, version={self.version!r})"

    def _bind(self) -> dict[str, tuple[Bound, ...]]:
        bound = {endpoint: [Bound(rule, endpoint) for rule in rules] for endpoint, rules in self.endpoints.items()}
        groups: set[str] = set()
        for group in self.groups:
            if group.name in groups:
                raise InvalidInputError(f"groups: two groups are named {group.name!r}")
            groups.add(group.name)
            rules = rules_of(group.name, group.rules)
            for endpoint in group.endpoints:
                bound.setdefault(require_text("endpoint", endpoint), []).extend(
                    Bound(rule, group.name) for rule in rules
                )
        for name in groups:
            if name in bound or name == UNMATCHED:
                raise InvalidInputError(
                    f"groups: {name!r} names an endpoint as well, and their buckets would be the same"
                )
        for endpoint, cost in self.costs.items():
            if endpoint not in bound:
                raise InvalidInputError(f"costs: no rule is for {endpoint!r}")
            bound[endpoint] = [Bound(replace(one.rule, cost=cost), one.bucket) for one in bound[endpoint]]
        for endpoint, several in bound.items():
            _require_names_once(endpoint, [one.rule for one in several])
        return {endpoint: tuple(several) for endpoint, several in bound.items()}

    def _require_known_policies(self) -> None:
        known = {rule.policy for rule in self.rules} | self.policies.keys()
        for override in self.overrides:
            if override.policy not in self.policies:
                raise InvalidInputError(f"overrides: no rule is named {override.policy!r}")
        for switch in self.kill_switches:
            for policy in switch.policies:
                if policy not in known:
                    raise InvalidInputError(f"kill_switches: no rule is named {policy!r}")


class Listed(msgspec.Struct, frozen=True, gc=False):
    """A listing as lookups find it.

    Args:
        identifier: Whom it is about.
        until: When it ends.
        denied: Whether it denies; else it allows.
        listing: What the operator wrote.
    """

    identifier: str
    until: datetime | None
    denied: bool
    listing: Listing


def rules_of(endpoint: object, rules: object) -> tuple[RateLimitRule, ...]:
    """Return an endpoint's rules as a tuple.

    Raises:
        InvalidInputError: If there is none, or two have the same name.
        InvalidTypeError: If one is not a rule.
    """
    require_text("endpoint", endpoint)
    several = (rules,) if isinstance(rules, RateLimitRule) else rules
    if isinstance(several, str | bytes) or not isinstance(several, Sequence):
        raise InvalidTypeError(f"rules[{endpoint!r}]={rules!r:.80}: expected a RateLimitRule or a tuple of them")
    if not several:
        raise InvalidInputError(f"rules[{endpoint!r}]: expected at least one rule")
    for rule in cast("Sequence[object]", several):
        if not isinstance(rule, RateLimitRule):
            raise InvalidTypeError(f"rules[{endpoint!r}]: expected a RateLimitRule, not {rule!r:.80}")
    checked = tuple(cast("Sequence[RateLimitRule]", several))
    _require_names_once(endpoint, checked)
    return checked


def describe(rule: RateLimitRule) -> dict[str, object]:
    """Return a rule in plain types."""
    return {
        "policy": rule.policy,
        "name": rule.name,
        "scope": str(rule.scope),
        "max_tokens": rule.max_tokens,
        "refill_rate": rule.refill_rate,
        "cost": rule.cost,
        "enabled": rule.enabled,
        "shadow": rule.shadow,
        "lease": rule.lease,
        "on_storage_error": rule.on_storage_error,
    }


def is_global(scope: str) -> bool:
    """Return whether a scope has one bucket for everybody, and so no identifiers."""
    return scope == RateLimitScope.GLOBAL


def _require_names_once(endpoint: object, rules: Sequence[RateLimitRule]) -> None:
    seen: set[str] = set()
    for rule in rules:
        if rule.name and rule.name in seen:
            raise InvalidInputError(f"rules[{endpoint!r}]: two rules are named {rule.name!r}")
        seen.add(rule.name)
