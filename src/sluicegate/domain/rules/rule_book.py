"""All rules of a limiter as one immutable value: what a rules file describes, and what a reload replaces as a whole."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TypeAlias, TypeVar, cast

import msgspec

from sluicegate.domain.arguments import require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.identifier_index import IdentifierIndex
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book_entries import (
    Bound,
    KillSwitch,
    Listed,
    Listing,
    Override,
    RuleGroup,
    require_texts,
)

E = TypeVar("E")
V = TypeVar("V")

Rules: TypeAlias = Mapping[str, RateLimitRule | str | Sequence[RateLimitRule | str]]
"""Endpoints and their rules, as users write them: rules, or texts such as `5/minute; 100/hour`. A `RuleBook` is one too."""

UNMATCHED = "*"
"""The name in keys, events and metrics for every endpoint without a rule: random paths must not create names there."""


class RuleBook(Mapping[str, tuple[RateLimitRule, ...]]):
    """Hold rules, groups, overrides, lists and kill switches. As a mapping: endpoints and all of their rules.

    Args:
        endpoints: Endpoints and their own rules.
        groups: Endpoints that share buckets. Their rules come after the endpoints' own, in the order of the groups.
        unmatched: The rules of endpoints without any other; these share one bucket per identifier. The same as an
            endpoint `*`.
        overrides: Other limits for some identifiers.
        allow: Identifiers that are always allowed.
        deny: Identifiers that are always denied. If both lists match an address, the smaller network decides.
        kill_switches: Rules that are switched off.
        costs: Tokens that a request to an endpoint costs, in place of its rules' own cost.
        policies: Named rules that code may refer to, used in this book or not.
        replaces_code: Endpoints whose rules replace those declared in code.

    Raises:
        InvalidInputError: If an endpoint has no rule or two rules with the same name, a group has the name of an endpoint or
            lists one twice, an override names an unknown rule, or two entries are for the same identifier.
        InvalidTypeError: If a value is not a rule.
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
        self.policies: dict[str, RateLimitRule] = {}
        """The named rules, by name."""
        for name, policy in _mapping("policies", policies).items():
            if not isinstance(policy, RateLimitRule):
                raise InvalidTypeError(f"policies[{name!r:.80}]={policy!r:.80}: expected a RateLimitRule")
            self.policies[require_text("policies", name)] = policy
        self.endpoints = {
            require_text("endpoint", endpoint): rules_of(endpoint, rules, self.policies)
            for endpoint, rules in endpoints.items()
        }
        if unmatched:
            if UNMATCHED in self.endpoints:
                raise InvalidInputError(
                    f"unmatched: the endpoint {UNMATCHED!r} has rules already, which means the same"
                )
            self.endpoints[UNMATCHED] = rules_of(UNMATCHED, unmatched)
        self.groups = _entries("groups", groups, RuleGroup)
        self.overrides = _entries("overrides", overrides, Override)
        self.allow = _entries("allow", allow, Listing)
        self.deny = _entries("deny", deny, Listing)
        self.kill_switches = _entries("kill_switches", kill_switches, KillSwitch)
        self.costs = {require_text("costs", endpoint): cost for endpoint, cost in _mapping("costs", costs).items()}
        self.replaces_code = frozenset(require_texts("replaces_code", replaces_code))
        self._bound = self._bind()
        for rule in self.rules:
            if rule.name:
                self.policies.setdefault(rule.name, rule)
        self._require_known_policies()

    def bound(self, endpoint: str) -> tuple[Bound, ...]:
        """Return an endpoint's rules and their buckets: its own, then those of its groups."""
        return self._bound[endpoint]

    def with_endpoints(self, endpoints: Rules) -> "RuleBook":
        """Return a book with other endpoints and everything else unchanged.

        Raises:
            InvalidInputError: If the endpoints do not fit the rest of the book.
        """
        return self._with(endpoints, self.overrides)

    def with_overrides(self, overrides: Sequence[Override]) -> "RuleBook":
        """Return a book with other overrides; of what is in no rule, such as trees of descriptors, it has nothing.

        Raises:
            InvalidInputError: If an override names an unknown rule.
        """
        return self._with(self.endpoints, overrides)

    def _with(self, endpoints: Rules, overrides: Sequence[Override]) -> "RuleBook":
        return RuleBook(
            endpoints,
            groups=self.groups,
            overrides=overrides,
            allow=self.allow,
            deny=self.deny,
            kill_switches=self.kill_switches,
            costs=self.costs,
            policies=self.policies,
            replaces_code=self.replaces_code,
        )

    @property
    def rules(self) -> Iterable[RateLimitRule]:
        """Every rule, in the order of the book; a rule of several endpoints occurs once for each."""
        for bound in self._bound.values():
            yield from (one.rule for one in bound)

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits, a hash of the content: equal books have equal versions, however their files are laid out."""
        # Not a `cached_property`: before Python 3.12 it has a lock, which another thread may hold while the process forks.
        known: str | None = vars(self).get("_version")
        if known is None:
            data = msgspec.json.encode(self.content(), order="deterministic")
            known = vars(self)["_version"] = blake2b(data, digest_size=6).hexdigest()
        return known

    def content(self) -> dict[str, object]:
        """Return the content in plain types, as `rules show --json` prints it."""
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

    def index_lists(self) -> dict[str, IdentifierIndex[Listed]]:
        """Return the allow and deny lists, indexed for look-ups, by scope.

        Raises:
            InvalidInputError: If an address is invalid or listed twice.
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
            for at, endpoint in enumerate(group.endpoints):
                if endpoint in group.endpoints[:at]:  # its requests would count twice
                    raise InvalidInputError(f"groups.{group.name}.endpoints[{at}]: {endpoint!r} is listed twice")
                bound.setdefault(endpoint, []).extend(Bound(rule, group.name) for rule in rules)
        for name in groups:
            if name in bound or name == UNMATCHED:
                raise InvalidInputError(
                    f"groups: {name!r} names an endpoint as well, and their buckets would be the same"
                )
        for endpoint, cost in self.costs.items():
            if endpoint not in bound:
                raise InvalidInputError(f"costs: no rule is for {endpoint!r}")
            bound[endpoint] = [
                one if one.rule.counts_in_flight else Bound(replace(one.rule, cost=cost), one.bucket)
                for one in bound[endpoint]
            ]
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


def rules_of(
    endpoint: object, rules: object, policies: Mapping[str, RateLimitRule] | None = None
) -> tuple[RateLimitRule, ...]:
    """Return an endpoint's rules as a tuple.

    Args:
        endpoint: The endpoint, for messages.
        rules: A rule, a text, or several of them. A text is the name of a policy, or one rate or several with semicolons between.
        policies: The named rules.

    Raises:
        InvalidInputError: If there is no rule, a text is neither a policy's name nor a rate, or two rules have the same name.
        InvalidTypeError: If a value is neither a rule nor a text.
    """
    require_text("endpoint", endpoint)
    several = (rules,) if isinstance(rules, RateLimitRule | str) else rules
    if isinstance(several, bytes) or not isinstance(several, Sequence):
        raise InvalidTypeError(
            f"rules[{endpoint!r}]={rules!r:.80}: expected a RateLimitRule, a text or several of them"
        )
    if not several:
        raise InvalidInputError(f"rules[{endpoint!r}]: expected at least one rule")
    found: list[RateLimitRule] = []
    for rule in cast("Sequence[object]", several):
        found += _resolved(f"rules[{endpoint!r}]", rule, policies or {})
    _require_names_once(endpoint, found)
    return tuple(found)


def _resolved(field: str, rule: object, policies: Mapping[str, RateLimitRule]) -> tuple[RateLimitRule, ...]:
    if isinstance(rule, RateLimitRule):
        return (rule,)
    if not isinstance(rule, str):
        raise InvalidTypeError(f"{field}: expected a RateLimitRule or a text such as '5/minute', not {rule!r:.80}")
    policy = policies.get(rule)
    if policy is not None:
        return (policy,)
    if reads_as_name(rule):
        raise InvalidInputError(f"{field}={rule!r:.80}: no policy of the rules file has this name, and it is no rate")
    try:
        return RateLimitRule.parse_all(rule)
    except InvalidInputError as error:
        raise InvalidInputError(f"{field}: {error}") from None


def reads_as_name(text: str) -> bool:
    """Return whether a text can only be a policy's name: a rate begins with a number."""
    return not text.lstrip()[:1].isdigit()


def _mapping(field: str, value: Mapping[str, V] | None) -> Mapping[str, V]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidTypeError(f"{field}={value!r:.80}: expected a mapping")
    return value or {}


def _entries(field: str, entries: object, kind: type[E]) -> tuple[E, ...]:
    """Return records of one kind as a tuple.

    Raises:
        InvalidTypeError: If there is something else among them.
    """
    if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
        raise InvalidTypeError(f"{field}={entries!r:.80}: expected a sequence of {kind.__name__}")
    checked: list[E] = []
    for entry in cast("Iterable[object]", entries):
        if not isinstance(entry, kind):
            raise InvalidTypeError(f"{field}: expected a {kind.__name__}, not {entry!r:.80}")
        checked.append(entry)
    return tuple(checked)


def describe(rule: RateLimitRule) -> dict[str, object]:
    """Return a rule in plain types. What is as it always was is left out, so that versions of older books stay the same."""
    claims = {"max_debt": rule.max_debt, "on_expiry": rule.on_expiry, "hold_seconds": rule.hold_seconds}
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
        **{name: value for name, value in claims.items() if value not in {None, "charge"}},
    }


def _require_names_once(endpoint: object, rules: Sequence[RateLimitRule]) -> None:
    seen: set[str] = set()
    for rule in rules:
        if rule.name and rule.name in seen:
            raise InvalidInputError(f"rules[{endpoint!r}]: two rules are named {rule.name!r}")
        seen.add(rule.name)
