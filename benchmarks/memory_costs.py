"""What a check in memory costs beyond the plain one: a cost, a mapping, listeners, metrics, lists, overrides, several rules."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import memory_peers as peers
import metrics_costs
from report import KIND, Goal, Section, at_most, compare
from rounds import Check, Contestant, alternate, one_by_one, ratio
from sizes import Size
from sluicegate import (
    InlineEventBus,
    KillSwitch,
    Listing,
    MemoryStorage,
    Override,
    RateLimitCheckDenied,
    RateLimitEvent,
    RateLimitRule,
    RateLimitScope,
    RuleBook,
    TokenBucketAdapter,
)
from sluicegate.testing import RecordingLogger

_MILLION = 10**6
_PLENTY = (
    10**5
)  # a bucket of three times as many, refilled this slowly, is still counted in microseconds, as usual ones are
_PLAIN = replace(peers.rule(_PLENTY, 1), name="items")
_OTHER = replace(peers.rule(_PLENTY * 2, 1), name="other")
_BY_USER = RateLimitRule(_PLAIN.max_tokens, _PLAIN.refill_rate, RateLimitScope.USER, name="items")
_BOTH = {peers.ENDPOINT: _PLAIN, "GET /other": _OTHER}
_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Variant:
    """A check that differs from the plain one in one thing.

    Args:
        name: What differs.
        check: The check.
        most: The goal: how many times the plain check's time it may take; None: there is no goal.
        is_try: Whether the goal is one to try for, beyond what is required.
    """

    name: str
    check: Check
    most: float | None = None
    is_try: bool = False


async def compare_costs(names: list[str], size: Size, section: Section) -> None:
    """Compare the plain check with each variant and with three checks of the peers.

    Args:
        names: The clients, all of whom are allowed.
        size: How much work.
        section: Gets the table and the goals.
    """
    variants = list(_variants())
    plain, *ours = [Contestant(one.name, one_by_one(one.check, names), ours=True) for one in variants]
    theirs = [
        Contestant("limits, three checks (fixed window)", one_by_one(_thrice(peers.limits_async(_MILLION, 1)), names)),
        Contestant("throttled-py, three checks", one_by_one(_thrice(peers.throttled_async(_MILLION, 1)), names)),
    ]
    contestants = [plain, *ours, *theirs]
    for contestant in contestants:
        await contestant.work(len(names))
    await alternate(contestants, rounds=size.rounds, checks=size.memory_checks)
    conditions = (
        f"Allowed, {len(names):,} clients whose buckets are in use, all seen before; `times ours` is relative to the plain check."
        " The peers check three rules one after the other."
    )
    section.tables.append(compare("what costs more", conditions, contestants))
    for variant, contestant in zip(variants[1:], ours, strict=True):
        if variant.most is not None:
            section.goals.append(_goal(variant, ratio(contestant, plain)))


def _goal(variant: Variant, reached: float) -> Goal:
    goal = at_most(f"{variant.name}, memory, {KIND}", variant.most or 0, reached, unit="times the plain check")
    return replace(goal, wanted=f"try: {goal.wanted}") if variant.is_try else goal


def _variants() -> Iterator[Variant]:
    yield Variant("the plain check", _check(_limiter(_BOTH)))
    yield Variant("an explicit cost", _with_cost(_limiter(_BOTH)), 1.3)
    yield Variant("a mapping of identifiers", _with_mapping(_limiter(_BOTH)), 1.3, is_try=True)
    yield Variant("a listener to denials only", _check(_limiter(_BOTH, RateLimitCheckDenied)), 1.3)
    yield Variant("a listener to all events", _check(_limiter(_BOTH, RateLimitEvent)))
    for name, watch in metrics_costs.WATCHED:
        yield Variant(name, metrics_costs.watched_check(watch))
    until = datetime.now(UTC) + timedelta(hours=1)
    switched = RuleBook(_BOTH, kill_switches=[KillSwitch(policies=("other",), until=until)])
    yield Variant("another rule switched off for an hour", _check(_limiter(switched)), 1.3)
    elsewhere = RuleBook(_BOTH, overrides=[Override(policy="other", identifier="192.0.2.1", rule=_PLAIN)])
    yield Variant("an override of another rule", _check(_limiter(elsewhere)), 1.3)
    others = [Override(policy="items", identifier=f"user-{n}", rule=_OTHER) for n in range(_LISTED)]
    by_user = _limiter(RuleBook({peers.ENDPOINT: _BY_USER}, overrides=others))
    yield Variant(f"overrides for {_LISTED:,} other users", _check(by_user), 1.3, is_try=True)
    users = [Listing(scope="user", identifier=f"user-{n}") for n in range(_LISTED)]
    by_user = _limiter(RuleBook({peers.ENDPOINT: _BY_USER}, deny=users))
    yield Variant(f"a list of {_LISTED:,} other users", _check(by_user), 1.3, is_try=True)
    networks = [Listing(scope="ip", identifier=f"198.18.{n >> 2}.{n % 4 * 64}/26") for n in range(_LISTED)]
    listed = _limiter(RuleBook(_BOTH, deny=networks))
    yield Variant(f"a list of {_LISTED:,} other networks", _check(listed), 1.3, is_try=True)
    template = _limiter({"GET /items/{item_id}": _PLAIN})
    yield Variant("a concrete path of a template", _check(template, "GET /items/7"), 2)
    shadow = replace(peers.rule(_PLENTY * 2, 1), name="shadow", shadow=True)
    yield Variant("a second rule, in shadow mode", _check(_limiter({peers.ENDPOINT: (_PLAIN, shadow)})))
    three = [replace(peers.rule(_PLENTY * (n + 1), 1), name=f"rule-{n}") for n in range(3)]
    yield Variant("three rules in one check", _check(_limiter({peers.ENDPOINT: three})), 1.5)


def _limiter(rules: object, listens_to: type[RateLimitEvent] | None = None) -> TokenBucketAdapter:
    bus = None
    if listens_to is not None:
        bus = InlineEventBus()
        bus.subscribe(listens_to, lambda _: None)
    # The recording logger, because the one that logs says on stderr that a rule is switched off.
    return TokenBucketAdapter(storage=MemoryStorage(), rules=rules, event_bus=bus, logger=RecordingLogger())


def _check(limiter: TokenBucketAdapter, endpoint: str = peers.ENDPOINT) -> Check:
    is_allowed = limiter.is_allowed
    return lambda client: is_allowed(endpoint=endpoint, identifier=client)


def _with_cost(limiter: TokenBucketAdapter) -> Check:
    is_allowed = limiter.is_allowed
    return lambda client: is_allowed(endpoint=peers.ENDPOINT, identifier=client, cost=2)


def _with_mapping(limiter: TokenBucketAdapter) -> Check:
    is_allowed = limiter.is_allowed
    return lambda client: is_allowed(endpoint=peers.ENDPOINT, identifier={"ip": client})


def _thrice(check: Check) -> Check:
    async def three(client: str) -> None:
        await check("a" + client)
        await check("b" + client)
        await check("c" + client)

    return three
