"""Several reservations made together: all of them or none, in one step of the storage, and settled in one."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sluicegate import Failure, InvalidInputError, InvalidTypeError, MemoryStorage, RateLimitRule, Success
from sluicegate.application.joint_check import Part
from sluicegate.infrastructure.redis.storage import RedisStorage
from sluicegate.testing import FailingStorage, FakeClock
from support.awaited_storage import AwaitedStorage
from support.redis_servers import RedisServer
from support.world import World

RULES = {
    "user": RateLimitRule(100, 0.1, "user"),
    "team": (RateLimitRule(150, 0.1, "team"), RateLimitRule(1000, 600, "team", name="wide")),
    "tried": (RateLimitRule(100, 0.1, "user"), RateLimitRule(50, 0.1, "user", name="shadow", shadow=True)),
}
PAIR = (Part("user", "ann", 80), Part("team", "a", 80))


class CountedStorage(MemoryStorage):
    """Buckets in memory, and the calls for claims that they got."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.calls: list[str] = []

    def reserve_blocking(self, *arguments: Any) -> Any:
        """Reserve."""
        self.calls.append("reserve")
        return super().reserve_blocking(*arguments)

    def settle_blocking(self, *arguments: Any) -> Any:
        """Settle."""
        self.calls.append("settle")
        return super().settle_blocking(*arguments)

    def extend_blocking(self, *arguments: Any) -> Any:
        """Extend."""
        self.calls.append("extend")
        return super().extend_blocking(*arguments)


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Return a limiter with its buckets in memory, or in a real Redis."""
    if request.param == "memory":
        yield World(RULES)
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    yield World(RULES, storage=RedisStorage.from_url(server.url, deadline_ms=5000), deadline_ms=5000)


async def left(world: World, *keys: tuple[str, str]) -> list[int]:
    """Return the tokens left in some buckets."""
    counts: list[int] = []
    for endpoint, identifier in keys:
        match await world.limiter.peek(endpoint=endpoint, identifier=identifier):
            case Success(value=result):
                counts.append(result.remaining)
            case Failure(error=error):
                raise AssertionError(error)
    return counts


async def test_all_are_reserved_or_none(world: World) -> None:
    """A denial tells which part lacks tokens, and takes nothing from any."""
    keys = (("user", "ann"), ("team", "a"))
    reserved = await world.limiter.reserve_together(PAIR, ttl_seconds=30)
    assert (reserved.allowed, reserved.expires_in) == (True, 30.0)
    assert await left(world, *keys) == [20, 70]
    denied = await world.limiter.reserve_together([Part("team", "a", 50), Part("user", "ann", 50)], ttl_seconds=30)
    assert (denied.allowed, denied.id, denied.expires_in) == (False, "", 0.0)
    assert [one.allowed for one, _ in denied.parts] == [True, False]
    assert await left(world, *keys) == [20, 70]
    await world.limiter.aclose()


async def test_a_commit_settles_all_of_them_once(world: World) -> None:
    """The difference comes back to each; a second commit changes nothing, and says so; an id of one part will do as well."""
    keys = (("user", "ann"), ("team", "a"))
    reserved = await world.limiter.reserve_together(PAIR, ttl_seconds=30)
    settled = await world.limiter.commit_together(reserved.id, cost=[30, 60])
    assert isinstance(settled, Success)
    assert [(one.applied, one.charged, one.returned) for one in settled.value] == [(True, 30, 50), (True, 60, 20)]
    assert await left(world, *keys) == [70, 90]
    again = await world.limiter.commit_together(reserved.id, cost=0)
    assert isinstance(again, Success)
    assert [one.applied for one in again.value] == [False, False]
    assert await left(world, *keys) == [70, 90]
    single = await world.limiter.reserve_together([Part("user", "ann", 10)], ttl_seconds=30)
    assert isinstance(await world.limiter.commit(single.id, cost=5), Success)
    assert await left(world, ("user", "ann")) == [65]
    await world.limiter.aclose()


async def test_parts_that_share_a_bucket_are_counted_together(world: World) -> None:
    """Together they may not take more than there is, and together they are settled, also in the bucket of a shadow."""
    both = [Part("user", "ann", 60), Part("user", "ann", 60)]
    assert not (await world.limiter.reserve_together(both, ttl_seconds=30)).allowed
    tried = [Part("tried", "ann", 20), Part("tried", "ann", 20), Part("team", "a", 10)]
    reserved = await world.limiter.reserve_together(tried, ttl_seconds=30)
    assert await left(world, ("tried", "ann"), ("team", "a")) == [60, 140]
    with pytest.raises(InvalidInputError, match="parts of the same bucket"):
        await world.limiter.commit_together(reserved.id, cost=[5, None, 5])
    settled = await world.limiter.commit_together(reserved.id, cost=[15, 5, 5])
    assert isinstance(settled, Success)
    assert settled.value[0].rules[1].policy == "shadow"
    assert [settled.value[0].rules[at].charged for at in (0, 1)] == [20, 20]
    assert await left(world, ("tried", "ann"), ("team", "a")) == [80, 145]
    assert world.limiter.shadow_denials == {}
    assert (await world.limiter.reserve_together([Part("tried", "ann", 20)] * 2, ttl_seconds=30)).allowed
    assert world.limiter.shadow_denials == {"shadow": 1}  # of 50 it has 30
    await world.limiter.aclose()


async def test_they_are_one_call_of_the_storage() -> None:
    """To reserve, to extend and to settle."""
    clock = FakeClock()
    storage = CountedStorage(clock)
    world = World(RULES, storage=storage)
    reserved = await world.limiter.reserve_together(PAIR, ttl_seconds=30)
    assert isinstance(await world.limiter.extend_together(reserved.id, ttl_seconds=60), Success)
    clock.advance(45)
    assert isinstance(await world.limiter.commit_together(reserved.id, cost=10), Success)
    assert storage.calls == ["reserve", "extend", "settle"]
    assert await left(world, ("user", "ann"), ("team", "a")) == [90, 140]
    ended = await world.limiter.extend_together(reserved.id, ttl_seconds=60)
    assert isinstance(ended, Failure)
    assert ended.error.reason == "ended"


async def test_what_nobody_settles_ends_by_itself() -> None:
    """It is charged, as the rules say; an expired reservation can no longer be extended."""
    world = World({"user": RateLimitRule(100, 6, "user", on_expiry="release"), "team": RateLimitRule(100, 6, "team")})
    reserved = await world.limiter.reserve_together(PAIR, ttl_seconds=10)
    world.clock.advance(10)
    assert await left(world, ("user", "ann"), ("team", "a")) == [100, 21]
    assert isinstance(await world.limiter.extend_together(reserved.id, ttl_seconds=60), Failure)


@pytest.mark.parametrize("policy", ["allow", "local", "deny"])
async def test_while_the_storage_fails_a_denial_leaves_nothing(policy: Any) -> None:
    """The failure policy answers; what this process has reserved in the storage's place is given back if a part is denied."""
    rules = {
        "user": RateLimitRule(100, 0.1, "user", on_storage_error=policy),
        "team": RateLimitRule(100, 0.1, "team", on_storage_error="local"),
    }
    world = World(rules, storage=FailingStorage())
    first = await world.limiter.reserve_together(PAIR, ttl_seconds=30)
    assert (first.allowed, first.is_degraded) == (policy != "deny", True)
    second = await world.limiter.reserve_together([Part("team", "a", 40), Part("user", "ann", 40)], ttl_seconds=30)
    assert second.allowed == (policy == "never")
    team_alone = await world.limiter.reserve_together([Part("team", "a", 20)], ttl_seconds=30)
    assert team_alone.allowed
    if policy == "deny":  # what was denied before has left the whole bucket
        assert (await world.limiter.reserve_together([Part("team", "a", 80)], ttl_seconds=30)).allowed
        return
    settled = await world.limiter.commit_together(first.id, cost=0)
    assert isinstance(settled, Success) == (policy == "local")  # nothing counts what `allow` let pass
    assert (await world.limiter.reserve_together([Part("team", "a", 80)], ttl_seconds=30)).allowed


async def test_parts_that_share_a_bucket_while_the_storage_fails() -> None:
    """Each takes its own cost from the bucket of this process."""
    rule = RateLimitRule(100, 0.1, "user", on_storage_error="local")
    world = World({"user": rule}, storage=FailingStorage())
    reserved = await world.limiter.reserve_together([Part("user", "ann", 40)] * 2, ttl_seconds=30)
    assert [one.result.remaining for one, _ in reserved.parts] == [60, 20]


async def test_an_answer_comes_within_the_callers_time() -> None:
    """From the failure policy if the storage is slower; a settlement that took too long is a failure."""
    world = World(RULES, storage=SlowStorage(), deadline_ms=60_000)
    reserved = await world.limiter.reserve_together(PAIR, ttl_seconds=30, timeout_s=0.05)
    assert (reserved.allowed, reserved.is_degraded) == (True, True)
    other = await World(RULES).limiter.reserve_together(PAIR, ttl_seconds=30)
    settled = await world.limiter.commit_together(other.id, cost=1, timeout_s=0.05)
    assert isinstance(settled, Failure)
    assert settled.error.reason == "timeout"


class SlowStorage(AwaitedStorage):
    """A storage that answers no claim."""

    async def reserve(self, *_: object) -> Any:
        """Take for ever."""
        await asyncio.Event().wait()

    settle = reserve
    extend = reserve


async def test_wrong_arguments_change_nothing() -> None:
    """Each is named."""
    world = World(RULES)
    rule = RateLimitRule(5, 60, "user")
    for wrong in (Part("user", ""), Part("user", "x", 1, "peek"), Part("user", "x", rule=rule), Part("user", "x", -1)):
        with pytest.raises(InvalidInputError):
            await world.limiter.reserve_together([Part("team", "a", 10), wrong], ttl_seconds=30)
    assert await left(world, ("team", "a")) == [150]
    reserved = await world.limiter.reserve_together(PAIR, ttl_seconds=30)
    for identifier, cost in (("nonsense", 1), (reserved.id, [1]), (reserved.id + ".x", 1), (reserved.id, -1)):
        with pytest.raises(InvalidInputError):
            await world.limiter.commit_together(identifier, cost=cost)
    with pytest.raises(InvalidTypeError):
        await World(RULES, storage=AwaitedStorage()).limiter.reserve_together(PAIR, ttl_seconds=30)


async def test_parts_that_nothing_counts() -> None:
    """They are reserved without a claim, and settled without one; a cost that never fits denies the others too."""
    world = World(RULES)
    free = await world.limiter.reserve_together([Part("none", "x"), Part("user", "ann", 10)], ttl_seconds=30)
    assert free.allowed
    settled = await world.limiter.commit_together(free.id, cost=5)
    assert isinstance(settled, Success)
    assert [one.applied for one in settled.value] == [False, True]
    assert (await world.limiter.reserve_together([], ttl_seconds=30)).allowed
    never = await world.limiter.reserve_together([Part("user", "ann", 101), Part("team", "a", 1)], ttl_seconds=30)
    assert [one.allowed for one, _ in never.parts] == [False, True]
    assert await left(world, ("team", "a")) == [150]
