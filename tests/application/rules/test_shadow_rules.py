"""Rules in shadow mode: counted and told, never denying, never in the way of the rules that decide."""

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import (
    MemoryStorage,
    RateLimitResult,
    RateLimitRule,
    StorageError,
    Success,
    SyncTokenBucketAdapter,
)
from sluicegate.domain.events import RateLimitCheckAllowed, RateLimitCheckDenied, RateLimitShadowDenied
from sluicegate.testing import FailingStorage, FakeClock, RecordingLogger
from support.awaited_storage import AwaitedStorage
from support.world import IP, World

REAL = RateLimitRule(3, 3 / 1440, "ip", name="real")
SHADOW = RateLimitRule(1, 1 / 1440, "ip", name="shadow", shadow=True)


def world_of(*rules: RateLimitRule, **settings: Any) -> World:
    """Return a limiter with one endpoint, `a`."""
    return World({"a": rules}, **settings)


def shadows(world: World) -> list[RateLimitShadowDenied]:
    """Return what rules in shadow mode told."""
    return world.heard(RateLimitShadowDenied)


async def test_it_tells_and_does_not_deny() -> None:
    """The second request would have waited a day, and passes."""
    world = world_of(REAL, SHADOW)
    results = [await world.check() for _ in range(3)]
    assert [result.allowed for result in results] == [True] * 3
    assert [result.limit for result in results] == [3] * 3
    assert [result.remaining for result in results] == [2, 1, 0]
    told = [(e.policy, e.scope, e.identifier, e.endpoint, e.cost, e.retry_after) for e in shadows(world)]
    assert told == [("shadow", "ip", IP, "a", 1, 86400.0)] * 2
    assert world.limiter.shadow_denials == {"shadow": 2}


async def test_it_counts_what_the_other_rules_deny() -> None:
    """It is a check of its own: paid although the request was denied."""
    shadow = RateLimitRule(10, 10 / 1440, "ip", name="shadow", shadow=True)
    world = world_of(REAL, shadow)
    results = [await world.check() for _ in range(12)]
    assert [result.allowed for result in results] == [True] * 3 + [False] * 9
    assert len(shadows(world)) == 2
    assert len([event for event in world.bus.events if isinstance(event, RateLimitCheckDenied)]) == 9


async def test_alone_it_lets_everything_pass() -> None:
    """The answer is that of rules that do not count; the storage counts all the same."""
    world = world_of(SHADOW)
    assert [await world.check() for _ in range(3)] == [RateLimitResult(True, 0.0, 1, 1, 0)] * 3
    assert len(shadows(world)) == 2
    assert not [event for event in world.bus.events if isinstance(event, RateLimitCheckAllowed)]


async def test_a_cost_it_could_never_hold() -> None:
    """Told as a denial for ever, passed all the same."""
    world = world_of(REAL, SHADOW)
    assert (await world.check(cost=2)).allowed
    assert [event.retry_after for event in shadows(world)] == [math.inf]
    assert (await world.check(cost=4)).retry_after == math.inf


async def test_several_do_not_know_each_other() -> None:
    """One that would deny keeps no other from counting."""
    wide = RateLimitRule(2, 2 / 1440, "ip", name="wide", shadow=True)
    world = world_of(SHADOW, wide, REAL)
    for _ in range(3):
        await world.check()
    assert world.limiter.shadow_denials == {"shadow": 2, "wide": 1}


async def test_a_reset_fills_its_bucket_too() -> None:
    """An operator's reset means all of the endpoint's buckets."""
    world = world_of(REAL, SHADOW)
    await world.check()
    assert await world.limiter.reset(endpoint="a", identifier=IP) == Success(None)
    await world.check()
    assert shadows(world) == []


async def test_a_peek_is_about_the_rules_that_decide() -> None:
    """Remaining and limit are theirs."""
    world = world_of(REAL, SHADOW)
    await world.check()
    assert await world.limiter.get_remaining(endpoint="a", identifier=IP) == Success(2)


async def test_disabled_or_switched_off_it_does_not_count() -> None:
    """A kill switch is for rules in shadow mode as well."""
    world = world_of(REAL, SHADOW)
    world.limiter.rules.switch_off("shadow")
    for _ in range(3):
        await world.check()
    assert shadows(world) == []


class ShadowFails(AwaitedStorage):
    """A storage that answers the deciding rule, and fails, hangs or lies for the one in shadow mode."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    async def take(self, requests: Any, /) -> Any:
        """Fail for one key."""
        if "~shadow" not in requests[0].key:
            return await super().take(requests)
        if self.how == "raise":
            raise StorageError("connection", "refused")
        if self.how == "hang":
            await asyncio.get_running_loop().create_future()
        return "garbage"


@pytest.mark.parametrize("how", ["raise", "hang", "garbage"])
async def test_its_failure_is_nobodys(how: str) -> None:
    """The deciding rule's answer stands, exact and in time; a warning says that the other one was not counted."""
    world = world_of(REAL, SHADOW, storage=ShadowFails(how))
    results = [await world.check() for _ in range(5)]
    assert [result.allowed for result in results] == [True] * 3 + [False] * 2
    assert world.limiter.failures == {}
    assert [message for level, message, _ in world.logger.records if level == "warning"] == [
        "The storage could not decide a rule in shadow mode; it was not counted."
    ]


@pytest.mark.parametrize("failure", ["raise", "hang", "garbage"])
async def test_a_storage_that_fails_for_all_is_answered_as_ever(failure: str) -> None:
    """Open, counted once a check, told once; alone in shadow mode it is counted too."""
    world = world_of(REAL, SHADOW, storage=FailingStorage(failure))
    assert await world.check() == RateLimitResult(True, 0.0, 3, 3, 0)
    assert sum(world.limiter.failures.values()) == 1
    alone = world_of(SHADOW, storage=FailingStorage(failure))
    assert await alone.check() == RateLimitResult(True, 0.0, 1, 1, 0)
    assert sum(alone.limiter.failures.values()) == 1


def test_a_caller_waits_for_one_deadline_only() -> None:
    """Without an event loop the rules are asked in turn: where the first was not answered, the others are not asked."""
    asked: list[str] = []

    class Hanging(MemoryStorage):
        take_nowait = None  # type: ignore[assignment] - every check waits

        def take_blocking(self, requests: Any, /) -> Any:
            asked.append(requests[0].key)
            raise StorageError("timeout")

    limiter = SyncTokenBucketAdapter(storage=Hanging(), rules={"a": (REAL, SHADOW)}, logger=RecordingLogger())
    assert limiter.is_allowed(endpoint="a", identifier=IP) == Success(RateLimitResult(True, 0.0, 3, 3, 0))
    assert len(asked) == 1
    assert limiter.failures == {"timeout": 1}


async def test_both_are_asked_together() -> None:
    """Neither waits for the other: a storage that batches carries them in one round trip."""
    waiting: list[object] = []
    together = asyncio.Event()

    class Batching(AwaitedStorage):
        async def take(self, requests: Any, /) -> Any:
            waiting.append(requests)
            if len(waiting) == 2:
                together.set()
            await together.wait()
            return await super().take(requests)

    world = world_of(REAL, SHADOW, storage=Batching(), deadline_ms=30_000)
    assert (await world.check()).remaining == 2
    assert [len(requests) for requests in waiting] == [1, 1]


async def test_cancellation_goes_through() -> None:
    """Who cancels a check with shadows has it cancelled."""
    world = world_of(REAL, SHADOW, storage=FailingStorage("hang"), deadline_ms=30_000)
    checking = asyncio.create_task(world.check())
    await asyncio.sleep(0)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking


RULES = st.builds(
    lambda tokens, rate, scope, cost: RateLimitRule(tokens, rate, scope, min(cost, tokens)),
    st.integers(1, 6),
    st.integers(1, 60),
    st.sampled_from(["ip", "global", "user"]),
    st.integers(1, 2),
)


@given(
    st.lists(RULES, min_size=1, max_size=2),
    st.lists(RULES, min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from(["x", "y"]), st.integers(0, 7), st.integers(0, 90)), max_size=30),
)
def test_no_answer_depends_on_shadows(
    real: list[RateLimitRule], shadows: list[RateLimitRule], steps: list[tuple[str, int, int]]
) -> None:
    """With and without them, the same traffic gets the same answers; and they tell what they would deny alone."""
    clocks = FakeClock(), FakeClock(), FakeClock()
    watching = [
        RateLimitRule(r.max_tokens, r.refill_rate, r.scope, r.cost, name=f"s{n}", shadow=True)
        for n, r in enumerate(shadows)
    ]
    named = [RateLimitRule(r.max_tokens, r.refill_rate, r.scope, r.cost, name=f"r{n}") for n, r in enumerate(real)]
    plain, shadowed, alone = (
        SyncTokenBucketAdapter(storage=MemoryStorage(clock=clock), rules=rules, logger=RecordingLogger())
        for clock, rules in zip(
            clocks,
            (
                {"a": named},
                {"a": [*named, *watching]},
                {f"a{n}": rule for n, rule in enumerate(shadows)},
            ),
            strict=True,
        )
    )
    would_deny = {f"s{n}": 0 for n in range(len(shadows))}
    for identifier, cost, seconds in steps:
        first = plain.is_allowed(endpoint="a", identifier=identifier, cost=cost)
        assert shadowed.is_allowed(endpoint="a", identifier=identifier, cost=cost) == first
        for n in range(len(shadows)):
            result = alone.is_allowed(endpoint=f"a{n}", identifier=identifier, cost=cost)
            assert isinstance(result, Success)
            would_deny[f"s{n}"] += not result.value.allowed
        for clock in clocks:
            clock.advance(seconds)
    assert shadowed.shadow_denials == {name: count for name, count in would_deny.items() if count}
