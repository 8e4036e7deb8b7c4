"""Read what a limiter is at this moment: its limits, rules, storage and losses."""

from collections.abc import Callable, Iterator
from typing import Protocol

from sluicegate.application.metrics.catalogue import (
    BORROWED,
    BREAKER_OPEN,
    DENIALS_REPEATED,
    EVENTS_DROPPED,
    LENT,
    LIMIT,
    LIMIT_RATE,
    LOST,
    OF_CLAIMS,
    OF_RULES,
    OVERRIDES,
    RETURNED,
    RULES_CHANGES,
    RULES_REFUSALS,
    RULES_VALID,
    STORAGE_CALLS,
    STORAGE_ROUND_TRIPS,
    SWITCHED_OFF,
    Metric,
)
from sluicegate.application.metrics.open_claims import OpenClaims
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.storage_figures import StorageFigures

Reading = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, and its own."""


class Limiter(Protocol):
    """A limiter of either kind, as far as it is read."""

    rules: LiveRules

    @property
    def storage(self) -> object:
        """Where the buckets are."""
        ...

    @property
    def events_dropped(self) -> int:
        """How many events were lost."""
        ...


class LimiterState:
    """Read a limiter.

    Args:
        limiter: The limiter.
        bus: Its bus, which may lose events of its own.
        figures_of: Returns the figures of a storage; None: it has none.
        claims: Its calls in flight and reservations.
    """

    def __init__(
        self,
        limiter: Limiter,
        bus: object,
        figures_of: Callable[[object], StorageFigures | None],
        claims: OpenClaims,
    ) -> None:
        self._limiter = limiter
        self._figures_of = figures_of
        self._bus = bus
        self._claims = claims

    def read(self) -> Iterator[Reading]:
        """Return the values of `OF_STATE` at this moment. A storage without figures has none of its metrics."""
        yield from self._claims.read()
        yield from _limits(self._limiter.rules)
        yield from self._totals()

    def read_one(self, metric: Metric) -> Iterator[Reading]:
        """Return the values of one metric."""
        if metric in OF_CLAIMS:
            readings = self._claims.read()
        elif metric in OF_RULES:
            readings = _limits(self._limiter.rules)
        else:
            readings = self._totals()
        return (reading for reading in readings if reading[0] is metric)

    def _totals(self) -> Iterator[Reading]:
        rules = self._limiter.rules
        yield RULES_CHANGES, (), rules.changes
        yield RULES_REFUSALS, (), rules.refusals
        yield RULES_VALID, (), 0 if rules.last_error else 1
        yield SWITCHED_OFF, (), len(rules.switched_off)
        yield OVERRIDES, (), len(rules.added_overrides)
        lost = self._limiter.events_dropped + int(getattr(self._bus, "dropped", 0)) + self._claims.overlooked
        yield EVENTS_DROPPED, (), lost
        figures = self._figures_of(self._limiter.storage)
        if figures is not None:
            yield STORAGE_CALLS, (), figures.calls
            yield STORAGE_ROUND_TRIPS, (), figures.round_trips
            yield DENIALS_REPEATED, (), figures.denials_repeated
            yield BREAKER_OPEN, (), int(figures.breaker_open)
            yield LENT, (), figures.lent
            yield BORROWED, (), figures.borrowed
            yield RETURNED, (), figures.returned
            yield LOST, (), figures.lost


def _limits(rules: LiveRules) -> Iterator[Reading]:
    seen: set[tuple[str, str]] = set()
    for rules_of in (rules.book, rules.beside_code):
        for endpoint, own in rules_of.items():
            for rule in own:
                if (endpoint, rule.policy) in seen:
                    continue
                seen.add((endpoint, rule.policy))
                labels = (endpoint, rule.policy, str(rule.scope), _mode(rule))
                yield LIMIT, labels, rule.max_tokens
                if not rule.counts_in_flight:
                    yield LIMIT_RATE, labels, rule.refill_rate / 60


def _mode(rule: RateLimitRule) -> str:
    if not rule.enabled:
        return "disabled"
    return "shadow" if rule.shadow else "enforced"
