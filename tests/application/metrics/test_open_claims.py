"""Calls in flight and reserved tokens as metrics: they equal what is held, whatever becomes of it."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sluicegate import (
    InlineEventBus,
    MemoryStorage,
    RateLimitClaimed,
    RateLimitClaimExtended,
    RateLimitClaimSettled,
    RateLimitRule,
    RedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.application.joint_check import Part
from sluicegate.application.metrics.catalogue import ACTIVE_LEASES, LEASE_DURATION, RESERVED
from sluicegate.application.metrics.open_claims import OpenClaims
from sluicegate.domain.rules.rule_names import RuleNames
from sluicegate.testing import FailingStorage, FakeClock
from support.redis_servers import RedisServer
from support.world import World

CHAT = "POST /v1/chat"
TOKENS = RateLimitRule(1000, 600, "ip", name="tokens")
CALLS = RateLimitRule.in_flight(3)
BOTH: dict[str, Any] = {CHAT: (TOKENS, CALLS), "GET /other": TOKENS}


class Durations:
    """A sink that keeps the durations of calls in flight."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[str, ...], float]] = []

    def add(self, metric: Any, labels: tuple[str, ...], amount: float) -> None:
        """Fail: nothing is counted."""
        raise AssertionError(metric)

    def record(self, metric: Any, labels: tuple[str, ...], value: float) -> None:
        """Keep a duration."""
        assert metric is LEASE_DURATION
        self.seen.append((labels, value))


class Followed:
    """A limiter whose claims are followed.

    Args:
        storage: Where the buckets are; None: in memory, on `clock`.
        rules: Its rules.
        **more: What else the limiter, or what follows the claims, is given.
    """

    def __init__(self, storage: Any = None, rules: Any = None, **more: Any) -> None:
        self.clock = FakeClock()
        self.bus = InlineEventBus()
        self.durations = Durations()
        most = {name: more.pop(name) for name in ("max_claims",) if name in more}
        self.limiter = TokenBucketAdapter(
            storage=storage or MemoryStorage(clock=self.clock),
            rules=rules or BOTH,
            event_bus=self.bus,
            clock=self.clock,
            deadline_ms=5_000,
            **more,
        )
        self.claims = OpenClaims(RuleNames(self.limiter.rules), self.durations, self.clock.now_us, **most)
        self.claims.subscribe(self.bus)

    async def reserve(self, cost: int, ttl_seconds: float = 30) -> Any:
        """Reserve, and return the reservation."""
        return (await self.limiter.reserve(endpoint=CHAT, identifier="a", cost=cost, ttl_seconds=ttl_seconds)).value  # type: ignore[union-attr]

    async def acquire(self) -> Any:
        """Begin a call, and return the hold."""
        return (await self.limiter.acquire(endpoint=CHAT, identifier="a")).value  # type: ignore[union-attr]

    @property
    def counted(self) -> tuple[float | None, float | None]:
        """The calls in flight and the reserved tokens of `CHAT`; None where there is no series."""
        read = {(metric, labels): value for metric, labels, value in self.claims.read()}
        return read.get((ACTIVE_LEASES, (CHAT, CALLS.policy))), read.get((RESERVED, (CHAT, "tokens")))


@pytest.fixture(params=["memory", "redis"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Memory on its own clock, and a real server."""
    if request.param == "memory":
        yield MemoryStorage()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    redis = RedisStorage.from_url(server.url, deadline_ms=5_000)
    yield redis
    await redis.aclose()


async def test_what_is_held_and_reserved_is_counted_until_it_is_settled(storage: Any) -> None:
    """By their rules; a denied call counts nothing, and a second settlement changes nothing."""
    world = Followed(storage)
    assert world.counted == (None, None)
    first, second = await world.reserve(300), await world.reserve(200)
    hold = await world.acquire()
    assert not (await world.acquire()).allowed
    assert world.counted == (3, 500)
    await world.limiter.commit(first.id, cost=450)
    await world.limiter.commit(first.id, cost=450)
    assert world.counted == (2, 200)
    world.clock.advance(2.5)
    await world.limiter.cancel(second)
    await world.limiter.release(hold)
    assert world.counted == (0, 0)
    assert world.durations.seen == [((CHAT, CALLS.policy), 0), ((CHAT, CALLS.policy), 2.5), ((CHAT, CALLS.policy), 2.5)]


async def test_budgets_and_holds_of_both_kinds_of_limiter_are_counted_while_their_body_runs() -> None:
    """Also where the body fails."""
    world = Followed()
    sync = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=world.limiter.rules, event_bus=world.bus)
    async with world.limiter.budget(endpoint=CHAT, identifier="a", cost=400):
        with sync.hold(endpoint=CHAT, identifier="a"):
            assert world.counted == (2, 400)
            with pytest.raises(KeyError, match=r"3, 470"), sync.budget(endpoint=CHAT, identifier="a", cost=70):
                raise KeyError(*world.counted)
        assert world.counted == (1, 400)
    assert world.counted == (0, 0)


async def test_what_ends_by_itself_is_counted_to_its_end() -> None:
    """Which an extension puts off; an earlier one changes nothing."""
    world = Followed()
    short, long = await world.reserve(100, ttl_seconds=10), await world.reserve(50, ttl_seconds=20)
    await world.limiter.extend(long, ttl_seconds=5)
    world.clock.advance(9)
    await world.limiter.extend(short, ttl_seconds=30)
    assert world.counted == (2, 150)
    world.clock.advance(11)
    assert world.counted == (1, 100)
    world.clock.advance(19)
    assert world.counted == (0, 0)
    assert world.durations.seen == []


async def test_a_call_that_ends_on_a_real_server_is_counted_no_more(redis_server: RedisServer) -> None:
    """At the latest when the server has forgotten it."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=5_000)
    bus = InlineEventBus()
    rules = {CHAT: RateLimitRule.in_flight(1, hold_seconds=0.2)}
    limiter = TokenBucketAdapter(storage=storage, rules=rules, event_bus=bus, deadline_ms=5_000)
    claims = OpenClaims(RuleNames(limiter.rules), Durations(), lambda: round(asyncio.get_running_loop().time() * 1e6))
    claims.subscribe(bus)
    await limiter.acquire(endpoint=CHAT, identifier="a")
    seen = {value for _, _, value in claims.read()}
    while not (await limiter.acquire(endpoint=CHAT, identifier="a")).value.allowed:  # type: ignore[union-attr]
        seen |= {value for _, _, value in claims.read()}
    await storage.aclose()
    assert seen <= {0, 1}
    assert [value for _, _, value in claims.read()] in (
        [1],
        [2],
    )  # 2 where the server's clock is ahead by less than a tick


async def test_without_the_storage_only_what_this_process_counts_is_counted() -> None:
    """Under the policy `local`, and nothing under `allow`, which has nothing to settle."""
    local = RateLimitRule(1000, 600, "ip", name="tokens", on_storage_error="local")
    world = Followed(FailingStorage(), {CHAT: (local, CALLS)})
    reservation = await world.reserve(100)
    assert reservation.degraded == "local"
    assert world.counted == (None, 100)
    await world.limiter.commit(reservation, cost=10)
    assert world.counted == (None, 0)
    world = Followed(FailingStorage())
    assert (await world.reserve(100)).degraded == "allow"
    assert world.counted == (None, None)


async def test_a_settlement_that_fails_ends_nothing() -> None:
    """The storage still counts it."""
    inner = MemoryStorage()
    world = Followed(inner)
    reservation = await world.reserve(100)
    broken = TokenBucketAdapter(storage=FailingStorage(), rules=BOTH, event_bus=world.bus)
    await broken.commit(reservation, cost=10)
    assert world.counted == (1, 100)


async def test_rules_in_shadow_mode_have_claims_of_their_own() -> None:
    """None where they would have denied; and none is left when nothing else claims anything."""
    watching = RateLimitRule(150, 0.001, "ip", name="watching", shadow=True)
    world = Followed(rules={CHAT: watching})
    first, second = await world.reserve(100), await world.reserve(100)
    assert [value for _, _, value in world.claims.read()] == [100]
    for reservation in (first, second):
        await world.limiter.commit(reservation, cost=0)
    assert [value for _, _, value in world.claims.read()] == [0]
    await world.reserve(150)
    assert world.limiter.shadow_denials == {"watching": 1}


async def test_a_denied_call_has_no_claims() -> None:
    """Nor under the rules in shadow mode beside those that denied it: it is not made."""
    world = Followed(rules={CHAT: (TOKENS, RateLimitRule(5000, 60, "ip", name="watching", shadow=True))})
    for cost in (900, 200):
        await world.reserve(cost)
    assert [(labels[1], value) for _, labels, value in sorted(world.claims.read(), key=str)] == [
        ("tokens", 900),
        ("watching", 900),
    ]


async def test_reservations_take_one_series_and_bounded_memory() -> None:
    """However long they would have lasted; those beyond the bound are counted as lost."""
    world = Followed(rules={CHAT: RateLimitRule(10**9, 10**9, "ip", name="tokens")}, max_claims=3)
    for number in range(1_000):
        one = (await world.limiter.reserve(endpoint=CHAT, identifier=f"{number}", ttl_seconds=86_400)).value  # type: ignore[union-attr]
        await world.limiter.commit(one, cost=0)
    assert len(world.claims._ends) < 200
    for number in range(5):
        await world.limiter.reserve(endpoint=CHAT, identifier=f"{number}", cost=7)
    assert list(world.claims.read()) == [(RESERVED, (CHAT, "tokens"), 21)]
    assert world.claims.overlooked == 2


async def test_rules_that_are_gone_leave_no_series() -> None:
    """What is still reserved under them is `other`'s."""
    world = Followed()
    reservation = await world.reserve(100)
    world.limiter.rules.replace({"GET /new": TOKENS})
    read = {(metric, labels): value for metric, labels, value in world.claims.read()}
    assert read == {(RESERVED, ("other", "other")): 100, (ACTIVE_LEASES, ("other", "other")): 1}
    world.limiter.rules.replace(BOTH)
    await world.limiter.commit(reservation)
    assert list(world.claims.read()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_none_of_the_parents() -> None:
    """They would be counted twice."""
    world = Followed()
    asyncio.run(world.reserve(100))
    child = os.fork()
    if not child:
        os._exit(int(sum(value for _, _, value in world.claims.read())))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert world.counted == (1, 100)


async def test_events_name_each_rule_and_are_built_only_where_somebody_listens() -> None:
    """Claimed, extended and settled, with the same number."""
    world = World(BOTH)
    reservation = (await world.limiter.reserve(endpoint=CHAT, identifier="a", cost=300, ttl_seconds=30)).value  # type: ignore[union-attr]
    await world.limiter.extend(reservation, ttl_seconds=40)
    await world.limiter.commit(reservation, cost=100)
    claimed, extended, settled = (
        world.heard(kind) for kind in (RateLimitClaimed, RateLimitClaimExtended, RateLimitClaimSettled)
    )
    facts = [(one.rule, one.in_flight, one.cost, one.expires_in, one.identifier, one.scope) for one in claimed]
    assert facts == [("tokens", False, 300, 30.0, "a", "ip"), (CALLS.policy, True, 1, 30.0, "a", "ip")]
    assert [(one.rule, one.expires_in) for one in extended] == [("tokens", 40.0), (CALLS.policy, 40.0)]
    assert [(one.rule, one.applied, one.charged, one.returned) for one in settled] == [
        ("tokens", True, 100, 200),
        (CALLS.policy, True, 0, 1),
    ]
    assert len({one.claim for one in (*claimed, *extended, *settled)}) == 1


async def test_what_is_reserved_together_is_counted_by_bucket() -> None:
    """Parts of one rule for two clients, and two of one client; a denial counts nothing, nor does one without the storage."""
    world = Followed()
    parts = [Part(CHAT, "a", 100), Part(CHAT, "b", 200), Part(CHAT, "b", 50)]
    reserved = await world.limiter.reserve_together(parts, ttl_seconds=30)
    assert world.counted[1] == 350
    assert not (
        await world.limiter.reserve_together([Part(CHAT, "c", 1), Part(CHAT, "b", 900)], ttl_seconds=30)
    ).allowed
    assert world.counted[1] == 350
    await world.limiter.commit_together(reserved.id, cost=10)
    assert world.counted == (0, 0)
    rules = {CHAT: RateLimitRule(1000, 600, "ip", name="tokens", on_storage_error="local")}
    world = Followed(FailingStorage(), rules)
    assert not (
        await world.limiter.reserve_together([Part(CHAT, "a", 1), Part(CHAT, "b", 1001)], ttl_seconds=30)
    ).allowed
    assert world.counted[1] in {None, 0}
