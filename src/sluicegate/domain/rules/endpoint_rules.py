"""The rules of one endpoint, ready to be asked."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket_request import ClaimTerms
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.token_bucket import full
from sluicegate.domain.claims.claim import CHARGE, HOLD, PAID, RELEASE
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.identifier_index import IdentifierIndex
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book_entries import Override

_ANY_COST: Final = 2**53  # where no rule counts costs
_ON_EXPIRY: Final = {"charge": CHARGE, "release": RELEASE}


class Limit:
    """One rule of one endpoint, ready to be asked.

    Args:
        rule: The rule.
        bucket: What its keys name in the endpoint's place: the endpoint, a group, or `*`.
        key_frame: The parts of a key before and after the identifier; after is None if the key has no identifier.
        overrides: The identifiers that another limit holds for; None: there are none.
    """

    __slots__ = (
        "after",
        "before",
        "bucket",
        "cost_units",
        "hold_terms",
        "hold_us",
        "in_flight",
        "lease_units",
        "max_debt_units",
        "max_tokens",
        "on_reserve",
        "overrides",
        "policy",
        "rule",
        "scope",
        "spec",
    )

    def __init__(
        self,
        rule: RateLimitRule,
        bucket: str,
        key_frame: tuple[str, str | None],
        overrides: "IdentifierIndex[Substitute] | None" = None,
    ) -> None:
        spec: BucketSpec = rule.spec
        self.rule: Final = rule
        self.policy: Final[str] = rule.policy
        self.bucket: Final = bucket
        self.before: Final = key_frame[0]
        self.after: Final = key_frame[1]
        self.overrides: Final = overrides
        self.scope: Final = str(rule.scope)
        self.spec: Final = spec
        self.max_tokens: Final = spec.max_tokens
        self.cost_units: Final[i64] = rule.cost * spec.units_per_token
        self.lease_units: Final[i64] = rule.lease_tokens * spec.units_per_token
        self.in_flight: Final[bool] = rule.counts_in_flight
        self.hold_us: Final[i64] = round((rule.hold_seconds or 0) * 1_000_000)
        self.max_debt_units: Final[i64] = rule.max_debt_units
        self.on_reserve: Final[int] = HOLD if rule.counts_in_flight else _ON_EXPIRY[rule.on_expiry]
        """The kind of claim that a reservation makes; see `claims.py`."""
        self.hold_terms: Final = ClaimTerms(HOLD, self.hold_us) if self.in_flight else ClaimTerms(PAID, 0)
        """What a call in flight leaves."""

    def is_named_by(self, identifier: Mapping[str, str]) -> bool:
        """Return whether a mapping has the rule's scope, or the rule needs none."""
        return self.after is None or self.scope in identifier

    def identifier_of(self, identifier: str | Mapping[str, str]) -> str:
        """Return the identifier that this rule counts; empty for a global rule that got none.

        Raises:
            InvalidInputError: If the identifier is a mapping without the rule's scope.
        """
        if isinstance(identifier, str):
            return identifier
        named = identifier.get(self.scope)
        if named is not None:
            return named
        if self.is_named_by(identifier):
            return ""
        raise InvalidInputError(
            f"identifier={sorted(map(str, identifier))}: has no entry for the scope {self.scope!r} of a rule of this endpoint"
        )


class Substitute:
    """An override, ready to be asked.

    Args:
        override: What the operator wrote.
        limit: What takes the rule's place; None: nothing does.
    """

    __slots__ = ("identifier", "limit", "override", "until")

    def __init__(self, override: Override, limit: Limit | None) -> None:
        self.override: Final = override
        self.limit: Final = limit
        self.identifier: Final[str] = override.identifier
        self.until: Final[datetime | None] = override.until


class EndpointRules:
    """The rules of one endpoint, or what is left of them for one identifier.

    Args:
        endpoint: The endpoint as the rules name it.
        limits: The rules that are enabled and may deny, in their order.
        shadows: The enabled rules in shadow mode.
        disabled: The answer if there is no rule that may deny.
        scopes: The scopes that its enabled rules count, each once.
        policies: The names of all its rules, the disabled ones included, as a mapping of costs may have them.
        in_flight: The enabled rules of calls in flight, which checks do not ask.
    """

    __slots__ = (
        "_claimed",
        "counted",
        "disabled",
        "endpoint",
        "has_overrides",
        "in_flight",
        "limits",
        "max_cost",
        "max_debts",
        "policies",
        "rules",
        "scopes",
        "shadows",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one record, built in few places
        self,
        endpoint: str,
        limits: tuple[Limit, ...],
        shadows: tuple[Limit, ...],
        disabled: RateLimitResult | None,
        scopes: tuple[str, ...],
        policies: frozenset[str],
        in_flight: tuple[Limit, ...] = (),
    ) -> None:
        self.endpoint: Final = endpoint
        self.limits: Final = limits
        self.shadows: Final = shadows
        self.disabled: Final = disabled
        self.scopes: Final = scopes
        self.policies: Final = policies
        self.in_flight: Final = in_flight
        rates: list[int] = [limit.max_tokens for limit in limits if not limit.in_flight]
        self.max_cost: Final[int] = min(rates, default=_ANY_COST if limits else 0)
        """The greatest cost that fits all limits."""
        self._claimed: EndpointRules | None = None
        if in_flight:
            self._claimed = EndpointRules(endpoint, limits + in_flight, shadows, None, scopes, policies)
        self.counted: Final = (*limits, *shadows)
        """All rules that count, as they are settled: those that may deny, and then those in shadow mode."""
        self.max_debts: Final[tuple[int, ...]] = tuple([limit.max_debt_units for limit in self.counted])
        """For each of these, how far below zero a settlement may bring its bucket, in units."""
        self.rules: Final[tuple[RateLimitRule, ...]] = tuple([limit.rule for limit in limits])
        """The rules of the limits, in the same order."""
        self.has_overrides: Final[bool] = any(limit.overrides is not None for limit in (*limits, *shadows))
        """Whether another limit holds for some identifiers."""

    @property
    def claimed(self) -> "EndpointRules":
        """The rules that a reservation or a hold asks: these, and those of calls in flight."""
        return self if self._claimed is None else self._claimed

    def named_by(self, identifier: str | Mapping[str, str]) -> "EndpointRules":
        """Return those of the rules whose scopes an identifier names: of what it has claimed earlier, no others can be."""
        if isinstance(identifier, str) or all(scope in identifier for scope in self.scopes):
            return self
        limits = tuple([limit for limit in self.limits if limit.is_named_by(identifier)])
        shadows = tuple([limit for limit in self.shadows if limit.is_named_by(identifier)])
        disabled = self.disabled if limits else full(0)
        return EndpointRules(self.endpoint, limits, shadows, disabled, self.scopes, self.policies)

    @property
    def keys(self) -> dict[tuple[str, str | None], RateLimitRule]:
        """The parts of the keys before and after the identifier, and the rules that count there."""
        return {(limit.before, limit.after): limit.rule for limit in (*self.limits, *self.in_flight, *self.shadows)}

    def alone(self, shadow: Limit) -> "EndpointRules":
        """Return the rules of a check that asks one rule in shadow mode by itself."""
        return EndpointRules(self.endpoint, (shadow,), (), None, self.scopes, self.policies)


def joined(several: Sequence[EndpointRules]) -> EndpointRules:
    """Return the rules of several endpoints, or of one that has them at several places, as if they were the first one's."""
    limits = _each_bucket_once([limit for rules in several for limit in rules.limits])
    shadows = _each_bucket_once([limit for rules in several for limit in rules.shadows])
    in_flight = _each_bucket_once([limit for rules in several for limit in rules.in_flight])
    policies = frozenset([policy for rules in several for policy in rules.policies])
    disabled = [rules.disabled for rules in several if rules.disabled is not None]
    least = None if limits else min(disabled, key=_limit_of, default=None)
    scopes = tuple(dict.fromkeys([scope for rules in several for scope in rules.scopes]))
    return EndpointRules(several[0].endpoint, limits, shadows, least, scopes, policies, in_flight)


def _each_bucket_once(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Leave out limits whose bucket is there already; the one with the greater cost stays."""
    by_bucket: dict[tuple[str, str | None], Limit] = {}
    for limit in limits:
        frame = (limit.before, limit.after)
        present = by_bucket.get(frame)
        if present is None or limit.cost_units > present.cost_units:
            by_bucket[frame] = limit
    return tuple(by_bucket.values())


def _limit_of(result: RateLimitResult) -> int:
    return result.limit


def untouched(rules: Iterable[RateLimitRule]) -> RateLimitResult:
    """Return the answer where none of an endpoint's rules counts: allowed, and everything is left."""
    return full(min([rule.max_tokens for rule in rules]))
