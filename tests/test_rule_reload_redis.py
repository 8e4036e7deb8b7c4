"""Changes of rules, and rules in shadow mode, on a real Redis: the same as in memory."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluicegate import MemoryStorage, RateLimitResult, RateLimitRule, RedisStorage, Success, TokenBucketAdapter
from sluicegate.infrastructure.redis.connections import Connections
from sluicegate.infrastructure.redis.target import target_of_url
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.testing import FakeClock, RecordingLogger
from support.clocked_script import clocked_script
from support.redis_servers import RedisServer

PATIENT_MS = 10_000
IP = "10.0.0.1"


def one_rule(rate: str) -> str:
    """Return a rules file with one rule."""
    return f'[endpoints]\n"GET /a" = "{rate}"\n'


async def check(limiter: TokenBucketAdapter, cost: int = 0) -> RateLimitResult:
    """Check and unwrap; the storage must have decided."""
    result = await limiter.is_allowed(endpoint="GET /a", identifier=IP, cost=cost)
    assert isinstance(result, Success)
    assert limiter.failures == {}
    return result.value


@pytest.fixture
async def storage(redis_server: RedisServer) -> AsyncIterator[RedisStorage]:
    """A storage on an empty server."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS)
    yield storage
    await storage.aclose()


@pytest.mark.parametrize(
    ("old", "new", "spent", "left"),
    [
        ("10/day", "20/day", 4, 6),
        ("20/day", "10/day", 4, 10),
        ("20/day", "10/day", 15, 5),
        ("10/day", "10/hour", 4, 6),
        ("10/hour", "10/day", 4, 6),
        ("7/day burst 10", "13/hour burst 10", 3, 7),
    ],
)
async def test_tokens_survive_a_change_on_redis(
    storage: RedisStorage, old: str, new: str, spent: int, left: int
) -> None:
    """Higher and lower capacity and rate: the table of the memory storage's test."""
    limiter = TokenBucketAdapter(
        storage=storage, rules=parse_rules(one_rule(old)), logger=RecordingLogger(), deadline_ms=PATIENT_MS
    )
    assert [(await check(limiter)).allowed for _ in range(spent)] == [True] * spent
    limiter.rules.replace(parse_rules(one_rule(new)))
    assert sum([(await check(limiter)).allowed for _ in range(30)]) == left


RATES = st.builds(
    "{}/{} burst {}".format,
    st.integers(1, 40),
    st.sampled_from(["second", "minute", "hour", "day"]),
    st.integers(1, 40),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(RATES, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4000)), max_size=6)), max_size=5))
async def test_memory_and_redis_agree_through_changes(
    redis_server: RedisServer, story: list[tuple[str, list[tuple[int, int]]]]
) -> None:
    """The same traffic under the same changing rules gets the same answers from both, to the last digit."""
    redis_server.client().flushall()
    clock = FakeClock()
    redis = RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS, remember_denials=False)  # by the set clock
    redis.connections = Connections(target_of_url(redis_server.url), PATIENT_MS / 1000, script=clocked_script(clock))
    try:
        faces = [
            TokenBucketAdapter(storage=one, rules={}, logger=RecordingLogger(), deadline_ms=PATIENT_MS)
            for one in (MemoryStorage(clock=clock), redis)
        ]
        for rate, steps in story:
            for face in faces:
                face.rules.replace(parse_rules(one_rule(rate)))
            for cost, milliseconds in steps:
                in_memory, on_redis = [await check(face, cost) for face in faces]
                assert in_memory == on_redis
                clock.advance(milliseconds / 1000)
    finally:
        await redis.aclose()


async def test_a_shadow_goes_in_the_same_round_trip(storage: RedisStorage, redis_server: RedisServer) -> None:
    """The server runs the script once for a check and its shadows, and each has its verdict."""
    rules = (
        RateLimitRule(3, 3 / 1440, "ip", name="real"),
        RateLimitRule(1, 1 / 1440, "ip", name="tight", shadow=True),
        RateLimitRule(2, 2 / 1440, "ip", name="wide", shadow=True),
    )
    limiter = TokenBucketAdapter(
        storage=storage, rules={"GET /a": rules}, logger=RecordingLogger(), deadline_ms=PATIENT_MS
    )
    await check(limiter)  # loads the script and opens the connection

    def script_calls() -> int:
        commands = redis_server.client().info("commandstats")
        return sum(stats["calls"] for name, stats in commands.items() if "eval" in name)

    before = script_calls()
    assert [(await check(limiter)).allowed for _ in range(4)] == [True, True, False, False]
    assert script_calls() - before == 3  # the fourth denial is remembered, and its shadows with it
    assert limiter.shadow_denials == {"tight": 4, "wide": 3}


async def test_a_kill_switch_works_while_the_server_hangs(redis_server: RedisServer) -> None:
    """Nothing is sent, so nothing waits for the deadline."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=200)
    rule = RateLimitRule(1, 1, "ip", on_storage_error="deny")
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /a": rule}, logger=RecordingLogger())
    redis_server.pause()
    try:
        limiter.rules.switch_off()
        for _ in range(20):
            result = await limiter.is_allowed(endpoint="GET /a", identifier=IP)
            assert result == Success(RateLimitResult(True, 0.0, 1, 1, 0))
        assert limiter.failures == {}
    finally:
        redis_server.resume()
        await storage.aclose()
