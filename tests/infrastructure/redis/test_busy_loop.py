"""A busy event loop, or a process whose threads compute, is no outage: what was late is told from what was silent."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from sluicegate import (
    RateLimitRule,
    RedisStorage,
    StorageError,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.testing import RecordingLogger
from support.bucket_requests import bucket_request
from support.redis_servers import RedisServer, wait_until

RULE = RateLimitRule.per_day(1_000_000)
RULES = {"GET /": RULE}


def limiter_on(storage: RedisStorage, deadline_ms: int = 50) -> TokenBucketAdapter:
    """Return a limiter that logs to nobody."""
    return TokenBucketAdapter(storage=storage, rules=RULES, logger=RecordingLogger(), deadline_ms=deadline_ms)


@contextlib.asynccontextmanager
async def busy(tasks: int, seconds: float, *, chance: float = 1.0) -> AsyncIterator[None]:
    """Let tasks compute, again and again, for so many seconds at a time."""
    rng = random.Random(7)

    async def compute() -> None:
        while True:
            if rng.random() < chance:
                time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
            await asyncio.sleep(0)

    running = [asyncio.create_task(compute()) for _ in range(tasks)]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def check(limiter: TokenBucketAdapter, times: int) -> None:
    """Check one after another."""
    for _ in range(times):
        await limiter.is_allowed(endpoint="GET /", identifier="x")


@pytest.mark.parametrize("seconds", [0.005, 0.03, 0.06, 0.2])
async def test_a_busy_loop_does_not_make_a_healthy_server_late(redis_server: RedisServer, seconds: float) -> None:
    """Every check is decided by the server, however long the turns of the event loop are."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        limiter = limiter_on(storage)
        await check(limiter, 1)
        async with busy(2, seconds):
            await asyncio.gather(*[check(limiter, 4) for _ in range(5)])
        assert limiter.failures == {}


async def test_work_at_random_does_not_trip_the_breaker(redis_server: RedisServer) -> None:
    """Four tasks that compute 60 ms now and then."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        limiter = limiter_on(storage)
        await check(limiter, 1)
        async with busy(4, 0.06, chance=0.1):
            await asyncio.gather(*[check(limiter, 20) for _ in range(5)])
        assert limiter.failures == {}


async def test_the_breaker_closes_again_while_the_loop_is_busy(redis_server: RedisServer) -> None:
    """After an outage of the server, checks are decided by it again although two tasks compute all the time."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        limiter = limiter_on(storage)
        await check(limiter, 1)
        async with busy(2, 0.06):
            redis_server.client().execute_command("CLIENT", "PAUSE", "300")
            before = 0
            async with asyncio.timeout(30):
                while not limiter.failures.get("breaker_open"):
                    await check(limiter, 1)
                while True:
                    before = sum(limiter.failures.values())
                    await check(limiter, 5)
                    if sum(limiter.failures.values()) == before:
                        break
                    await asyncio.sleep(0.1)


async def test_the_first_connection_is_opened_while_the_loop_is_busy(redis_server: RedisServer) -> None:
    """Checks that wait for it are answered as the policy says, but no breaker opens, and the server decides from then on."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        limiter = limiter_on(storage)
        async with busy(2, 0.06):
            await asyncio.gather(*[check(limiter, 1) for _ in range(5)])
            first = dict(limiter.failures)
            assert set(first) <= {"loop_busy"}
            async with asyncio.timeout(30):
                while True:
                    before = dict(limiter.failures)
                    await check(limiter, 3)
                    if limiter.failures == before:
                        break
            assert set(limiter.failures) <= {"loop_busy"}


async def test_a_silent_server_is_noticed_although_the_loop_is_busy(redis_server: RedisServer) -> None:
    """The sockets were read, and nothing was in them: that trips the breaker."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        limiter = limiter_on(storage)
        await check(limiter, 1)
        redis_server.pause()
        try:
            async with busy(2, 0.06):
                async with asyncio.timeout(30):
                    while not limiter.failures.get("breaker_open"):
                        await check(limiter, 1)
        finally:
            redis_server.resume()
        assert limiter.failures["timeout"] >= 1
        assert "loop_busy" not in limiter.failures


async def test_one_long_turn_is_given_to_the_calls_that_it_kept_from_going_out(redis_server: RedisServer) -> None:
    """The deadline is 50 ms, and a check that could not even be sent for 200 ms is decided by the server."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        await storage.take([bucket_request(RULE)])
        for blocked in (0.2, 0.049, 0.051, 0.1):
            taking = asyncio.create_task(storage.take([bucket_request(RULE)]))
            await asyncio.sleep(0)  # it is asked for, and goes out in the next turn
            time.sleep(blocked)  # noqa: ASYNC251 - that is the fault
            assert (await taking).allowed


async def test_while_the_loop_is_free_a_silent_server_costs_one_deadline(redis_server: RedisServer) -> None:
    """What is given to busy loops is not given to slow servers."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        await storage.take([bucket_request(RULE)])
        loop = asyncio.get_running_loop()
        ended: list[float] = []
        redis_server.pause()
        try:
            asked = loop.time()
            with pytest.raises(StorageError) as caught:
                await storage.take([bucket_request(RULE)])
            ended.append(loop.time())
        finally:
            redis_server.resume()
        assert caught.value.reason == "timeout"
        assert ended[0] - asked < 1.0  # of a machine that may be busy; the figures are in benchmarks/redis_faults.py


def test_a_background_thread_that_gets_no_turn_makes_no_healthy_server_late(redis_server: RedisServer) -> None:
    """Threads that compute keep it from the interpreter; what it has not sent or read meanwhile is not late."""
    with SyncRedisStorage.from_url(redis_server.url, deadline_ms=100) as storage:
        limiter = SyncTokenBucketAdapter(storage=storage, rules=RULES, logger=RecordingLogger())
        limiter.is_allowed(endpoint="GET /", identifier="x")
        for _ in range(3):
            storage._background.loop().call_soon_threadsafe(time.sleep, 0.25)
            limiter.is_allowed(endpoint="GET /", identifier="x")
        assert limiter.failures == {}


async def test_a_custom_storage_is_not_late_because_the_loop_is_busy(redis_server: RedisServer) -> None:
    """A storage without a deadline of its own: the limiter's timer does not count what the loop lost."""

    class Waits(RedisStorage):
        """A storage whose answers take some turns of the loop, and that leaves the deadline to the limiter."""

    async with Waits.from_url(redis_server.url, deadline_ms=5_000) as storage:
        storage.traits = type(storage.traits)()
        storage.take_nowait = lambda requests, /: None  # type: ignore[method-assign]
        limiter = limiter_on(storage)
        await storage.take([bucket_request(RULE)])
        async with busy(2, 0.06):
            await check(limiter, 5)
        assert limiter.failures == {}


async def test_an_administrative_call_has_one_deadline_which_a_busy_loop_does_not_shorten(
    redis_server: RedisServer,
) -> None:
    """A reset that the server has done is no failure."""
    async with RedisStorage.from_url(redis_server.url) as storage:
        limiter = limiter_on(storage)
        await check(limiter, 1)
        results: Counter[str] = Counter()
        async with busy(2, 0.06):
            for _ in range(3):
                results[type(await limiter.reset(endpoint="GET /", identifier="x")).__name__] += 1
        assert results == {"Success": 3}


def test_a_paused_process_does_not_blame_the_server(redis_server: RedisServer) -> None:
    """What a stopped process could not read in time was in its sockets all the while."""
    wait_until(lambda: redis_server.client().ping(), "the server")

    async def main() -> dict[str, int]:
        async with RedisStorage.from_url(redis_server.url) as storage:
            limiter = limiter_on(storage)
            await check(limiter, 1)
            taking = [asyncio.create_task(check(limiter, 1)) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 - as long as a stopped virtual machine
            await asyncio.gather(*taking)
            return limiter.failures

    assert asyncio.run(main()) == {}
