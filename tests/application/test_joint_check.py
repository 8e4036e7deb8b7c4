"""Several checks decided together: all are paid or none."""

import asyncio
from typing import Any

import pytest

from sluicegate import (
    InvalidInputError,
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitFailedOpen,
    RateLimitRule,
    RateLimitShadowDenied,
    TokenBucketAdapter,
)
from sluicegate.application.joint_check import JointCheck, Part
from sluicegate.infrastructure.redis.storage import RedisStorage
from sluicegate.testing import FailingStorage
from support.awaited_storage import AwaitedStorage
from support.redis_servers import RedisServer
from support.world import World

RULES = {"a": RateLimitRule.per_minute(3), "b": RateLimitRule.per_minute(10)}


def told(joint: JointCheck) -> list[tuple[bool, int]]:
    """Return each check's verdict and the tokens left."""
    return [(check.result.allowed, check.result.remaining) for check in joint.checks if check.result is not None]


@pytest.fixture(params=["memory", "awaited"])
def world(request: pytest.FixtureRequest) -> World:
    """Return a limiter whose storage decides at once, or one that is awaited."""
    world = World(RULES)
    return world if request.param == "memory" else World(RULES, storage=AwaitedStorage())


async def test_all_are_paid_or_none(world: World) -> None:
    """When one lacks tokens the others keep theirs, and are told so."""
    parts = [Part("a", "x"), Part("b", "x")]
    joints = [await world.limiter.check_together(parts) for _ in range(4)]
    assert [joint.allowed for joint in joints] == [True, True, True, False]
    assert told(joints[2]) == [(True, 0), (True, 7)]
    assert told(joints[3]) == [(False, 0), (True, 7)]
    assert joints[3].checks[0].result is not None
    assert joints[3].checks[0].result.retry_after == 20.0


async def test_a_look_takes_nothing_and_can_deny(world: World) -> None:
    """A peek tells whether its cost could be paid; if not the whole is denied and nobody is charged."""
    looks = [await world.limiter.check_together([Part("a", "x", verb="peek"), Part("b", "x")]) for _ in range(2)]
    assert [told(joint) for joint in looks] == [[(True, 3), (True, 9)], [(True, 3), (True, 8)]]
    await world.limiter.check_together([Part("a", "x", 3)])
    joint = await world.limiter.check_together([Part("a", "x", verb="peek"), Part("b", "x")])
    assert not joint.allowed
    assert told(joint) == [(False, 0), (True, 8)]


async def test_a_refund_comes_with_an_allowed_whole_only(world: World) -> None:
    """Never above the capacity, and not at all if another part is denied."""
    await world.limiter.check_together([Part("a", "x", 2), Part("b", "x", 9)])
    denied = await world.limiter.check_together([Part("a", "x", 2, "refund"), Part("b", "x", 5)])
    assert told(denied) == [(True, 1), (False, 1)]
    assert told(await world.limiter.check_together([Part("a", "x", 1, "refund")])) == [(True, 2)]
    assert told(await world.limiter.check_together([Part("a", "x", 100, "refund"), Part("b", "x")])) == [
        (True, 3),
        (True, 0),
    ]


async def test_parts_that_share_a_bucket_pay_their_sum(world: World) -> None:
    """And are denied for ever if the sum can never fit."""
    assert told(await world.limiter.check_together([Part("a", "x"), Part("a", "x", 2)])) == [(True, 0), (True, 0)]
    short = await world.limiter.check_together([Part("b", "x", 6), Part("b", "x", 3), Part("a", "x")])
    assert told(short) == [(True, 10), (True, 10), (False, 0)]
    never = await world.limiter.check_together([Part("b", "x", 6), Part("b", "x", 6), Part("a", "y")])
    assert told(never) == [(False, 0), (False, 0), (True, 3)]


async def test_a_part_may_bring_its_rule(world: World) -> None:
    """Its bucket is the endpoint's and identifier's, whatever the book says; a switch for everything is for it too."""
    rule = RateLimitRule.per_minute(1)
    parts = [Part("own", "x", rule=rule)]
    assert [(await world.limiter.check_together(parts)).allowed for _ in range(2)] == [True, False]
    world.limiter.rules.switch_off(reason="test")
    assert told(await world.limiter.check_together(parts)) == [(True, 1)]


async def test_a_whole_that_is_denied_already_only_looks(world: World) -> None:
    """`denied` says that something else has denied it."""
    joint = await world.limiter.check_together([Part("b", "x", 4)], denied=True)
    assert (joint.allowed, told(joint)) == (False, [(True, 10)])


async def test_endpoints_without_rules_pass(world: World) -> None:
    """Beside those that have some; and no parts at all are allowed."""
    joint = await world.limiter.check_together([Part("nothing", "x"), Part("a", "x")])
    assert told(joint) == [(True, 0), (True, 2)]
    assert (await world.limiter.check_together([])).allowed


async def test_observers_are_told_what_was_decided(world: World) -> None:
    """Of a denied whole the check that lacked tokens; of looks and refunds nothing."""
    await world.limiter.check_together([Part("a", "x", 3), Part("b", "x")])
    assert [event.endpoint for event in world.heard(RateLimitCheckAllowed)] == ["a", "b"]
    await world.limiter.check_together([Part("a", "x"), Part("b", "x")])
    assert [event.endpoint for event in world.heard(RateLimitCheckDenied)] == ["a"]
    assert len(world.heard(RateLimitCheckAllowed)) == 2
    await world.limiter.check_together([Part("b", "x", verb="peek"), Part("a", "x", 1, "refund")])
    assert len(world.heard(RateLimitCheckAllowed)) == 2


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_shadow_only_observes(awaited: bool) -> None:
    """It counts for itself, whatever becomes of the others, and denies nothing."""
    rules: dict[str, Any] = {"s": RateLimitRule(2, 2, "ip", shadow=True), **RULES}
    world = World(rules)
    if awaited:
        world = World(rules, storage=AwaitedStorage())
    joints = [await world.limiter.check_together([Part("s", "x"), Part("a", "x")]) for _ in range(4)]
    assert [joint.allowed for joint in joints] == [True, True, True, False]
    shadows = [joint.checks[0].shadows[0].result for joint in joints]
    assert [result is not None and result.allowed for result in shadows] == [True, True, False, False]
    assert len(world.heard(RateLimitShadowDenied)) == 2


async def test_the_failure_policy_answers_for_each() -> None:
    """While the storage fails, each check has the answer of its own rules."""
    deny = RateLimitRule(3, 3, "ip", on_storage_error="deny")
    world = World({"open": RateLimitRule.per_minute(3), "closed": deny}, storage=FailingStorage())
    joint = await world.limiter.check_together([Part("open", "x"), Part("closed", "x")])
    assert [check.degraded for check in joint.checks] == ["allow", "deny"]
    assert (joint.allowed, told(joint)) == (False, [(True, 3), (False, 0)])
    assert [event.endpoint for event in world.heard(RateLimitFailedOpen)] == ["open"]


async def test_it_keeps_a_shorter_deadline_of_its_caller() -> None:
    """A storage that hangs is answered by the failure policy once the caller's time is over."""

    class Hanging(AwaitedStorage):
        async def take(self, requests: Any, /) -> Any:
            await asyncio.sleep(60)

    world = World(RULES, storage=Hanging(), deadline_ms=60_000)
    async with asyncio.timeout(5):
        joint = await world.limiter.check_together([Part("a", "x")], timeout_s=0.02)
    assert joint.checks[0].degraded == "allow"
    assert world.limiter.failures == {"timeout": 1}


@pytest.mark.parametrize("part", [Part("", "x"), Part("a", ""), Part("a", "x", -1), Part("a", {"user": "x"})])
async def test_wrong_arguments_are_refused_before_anything_happens(world: World, part: Part) -> None:
    """Nobody is charged."""
    with pytest.raises(InvalidInputError):
        await world.limiter.check_together([Part("b", "x"), part])
    assert await world.passed(20, "b", "x") == 10


async def test_redis_decides_alike(redis_server: RedisServer) -> None:
    """Looks, payments and refunds in one joint check."""
    limiter = TokenBucketAdapter(
        storage=RedisStorage.from_url(redis_server.url, deadline_ms=2000), rules=RULES, deadline_ms=2000
    )
    joints = [
        await limiter.check_together([Part("a", "x"), Part("b", "x"), Part("b", "y", verb="peek")]) for _ in range(4)
    ]
    assert [told(joint) for joint in joints] == [[(True, n), (True, n + 7), (True, 10)] for n in (2, 1, 0)] + [
        [(False, 0), (True, 7), (True, 10)]
    ]
    refunded = await limiter.check_together([Part("a", "x", 2, "refund"), Part("b", "x")])
    assert told(refunded) == [(True, 2), (True, 6)]
    await limiter.aclose()
