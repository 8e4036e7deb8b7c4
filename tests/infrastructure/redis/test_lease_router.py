"""Borrowing of real servers: few questions, the rule's bound, and nothing lost but what a crash takes along."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sluicegate import (
    RateLimitResult,
    RateLimitRule,
    RedisStorage,
    StorageError,
    Success,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from support.borrowing_worker import Hot, run
from support.bucket_requests import bucket_request
from support.fault_proxy import FaultProxy
from support.redis_servers import ClusterSet, RedisServer

KEY = "rate_limit:global:GET /hot"
HOT = "GET /hot"
SLOW = RateLimitRule(2_000, 1, "global", lease=True)
PATIENT_MS = 5_000


def request(rule: RateLimitRule = SLOW, *, cost: int = 1, lease: int = 500) -> BucketRequest:
    """Ask a bucket that lends for tokens."""
    return bucket_request(rule, KEY, cost=cost, lease=lease)


@pytest.fixture
async def storage(redis_server: RedisServer) -> AsyncIterator[RedisStorage]:
    """Return a storage on an empty server."""
    async with RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS) as one:
        yield one


def script_calls(server: RedisServer) -> int:
    """Return how many scripts the server has run."""
    stats: Any = server.client().info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def level_of(server: RedisServer, rule: RateLimitRule = SLOW) -> int:
    """Return the tokens in the bucket, as a process sees them that has borrowed nothing."""
    async with RedisStorage.from_url(server.url, deadline_ms=PATIENT_MS) as other:
        return (await other.peek([request(rule)]))[0].level // rule.spec.units_per_token


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def test_a_hot_bucket_is_spent_to_the_last_token_in_few_calls(
    redis_server: RedisServer, storage: RedisStorage
) -> None:
    """One process is admitted exactly what the bucket holds, and asks the server once for many checks."""
    before = script_calls(redis_server)
    verdicts = [await storage.take([request()]) for _ in range(3_000)]
    assert sum(verdict.allowed for verdict in verdicts) == 2_000
    assert not any(verdict.allowed for verdict in verdicts[2_000:])
    assert script_calls(redis_server) - before < 300
    assert storage.leases.borrowed > 1_000
    assert storage.leases.spent + storage.leases.returned == pytest.approx(storage.leases.borrowed)


async def test_concurrent_callers_are_admitted_what_the_bucket_holds(storage: RedisStorage) -> None:
    """With a hundred callers at a time no token is spent twice and none is left."""

    async def ask() -> int:
        return sum([(await storage.take([request()])).allowed for _ in range(30)])

    assert sum(await asyncio.gather(*[ask() for _ in range(100)])) == 2_000


async def test_an_idle_loan_goes_back_within_two_seconds(redis_server: RedisServer, storage: RedisStorage) -> None:
    """A process that stops asking leaves the bucket to the others."""
    for _ in range(100):
        await storage.take([request()])
    held = storage.leases.held[KEY]
    assert held > 0
    assert await level_of(redis_server) + held == 1_900
    await until(lambda: not storage.leases.held, 3.0)
    await until(lambda: storage.leases.returned == held)
    assert await level_of(redis_server) == 1_900
    await until(lambda: not storage.connections.router(asyncio.get_running_loop()).looking)


async def test_closing_returns_what_is_left(redis_server: RedisServer) -> None:
    """A process that ends properly strands nothing."""
    async with RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS) as storage:
        for _ in range(100):
            await storage.take([request()])
        assert storage.leases.held
    assert await level_of(redis_server) == 1_900


async def test_what_a_crash_takes_along_comes_back_with_the_refill(redis_server: RedisServer) -> None:
    """Borrowed tokens of a process that is gone count as spent; after the loan's end the bucket fills to the brim."""
    rule = RateLimitRule(2_000, 60_000, "global", lease=True)
    gone = RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS)
    for _ in range(100):
        await gone.take([request(rule)])
    held = sum(gone.leases.held.values())
    assert held > 0
    gone.leases._fork -= 1  # as if this process were a child of the one that borrowed
    await asyncio.sleep(0.3)
    assert await level_of(redis_server, rule) < 2_000
    await asyncio.sleep(3.0)
    assert await level_of(redis_server, rule) == 2_000
    await gone.aclose()


async def test_a_peek_counts_what_is_borrowed_here(storage: RedisStorage) -> None:
    """A caller cannot see whether the next token comes from the loan or the bucket."""
    for spent in range(1, 50):
        await storage.take([request()])
        levels = await storage.peek([request()])
        assert levels[0].level // SLOW.spec.units_per_token == 2_000 - spent


async def test_a_check_that_costs_more_than_the_loan_is_paid_from_both(storage: RedisStorage) -> None:
    """No check is denied that the bucket and this process's loan can pay together."""
    for _ in range(100):
        await storage.take([request()])
    assert 0 < storage.leases.held[KEY] < 1_900
    assert (await storage.take([request(cost=1_900)])).allowed
    assert not (await storage.take([request()])).allowed


async def test_a_reset_fills_a_bucket_that_is_lent(redis_server: RedisServer, storage: RedisStorage) -> None:
    """What this process had spent of its loan is there again as well."""
    for _ in range(300):
        await storage.take([request()])
    await storage.reset([request()])
    assert (await storage.peek([request()]))[0].level == SLOW.spec.capacity
    assert await level_of(redis_server) == 2_000
    assert sum([(await storage.take([request()])).allowed for _ in range(2_500)]) == 2_000


async def test_a_loan_under_an_old_rule_goes_back_with_the_first_check_under_the_new_one(
    redis_server: RedisServer, storage: RedisStorage
) -> None:
    """Nothing is lost to a reload of the rules."""
    for _ in range(300):
        await storage.take([request()])
    changed = RateLimitRule(5_000, 1, "global", lease=True)
    assert (await storage.take([request(changed)])).allowed
    assert await level_of(redis_server, changed) == 1_699


async def test_two_processes_never_spend_more_than_the_bucket_holds(redis_server: RedisServer) -> None:
    """Two storages in turn: what one has borrowed the other lacks until it comes back, and none is lost."""
    async with (
        RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS) as one,
        RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS) as other,
    ):
        admitted = 0
        end = time.monotonic() + 10
        while admitted < 2_000 and time.monotonic() < end:
            for storage in (one, other):
                admitted += sum([(await storage.take([request()])).allowed for _ in range(20)])
            await asyncio.sleep(0)
        for storage in (one, other):
            admitted += sum([(await storage.take([request()])).allowed for _ in range(200)])
    assert admitted == 2_000


async def test_a_caller_who_goes_away_loses_nothing_of_a_loan(redis_server: RedisServer) -> None:
    """The loan that was asked for on behalf of a cancelled check is there for the next."""
    async with FaultProxy(*redis_server.address) as proxy:
        async with RedisStorage.from_url(proxy.url, deadline_ms=PATIENT_MS) as storage:
            for _ in range(7):
                await storage.take([request()])
            proxy.faults.latency_s = 0.05
            asking = asyncio.create_task(storage.take([request()]))
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert asking.cancelled()
            await until(lambda: KEY in storage.leases.held)
            assert storage.leases.held[KEY] == 8


async def test_while_the_server_hangs_a_loan_is_spent_and_then_the_policy_answers(redis_server: RedisServer) -> None:
    """A loan carries a process over a short outage; what is in doubt afterwards is never spent twice."""
    async with FaultProxy(*redis_server.address) as proxy:
        storage = RedisStorage.from_url(proxy.url, deadline_ms=50)
        limiter = TokenBucketAdapter(storage=storage, rules={HOT: SLOW}, on_storage_error="deny")
        admitted = 0

        async def ask(times: int) -> int:
            answers = [await limiter.is_allowed(endpoint=HOT, identifier="x") for _ in range(times)]
            return sum(isinstance(answer, Success) and answer.value.allowed for answer in answers)

        admitted += await ask(100)
        held = storage.leases.held[KEY]
        assert held > 0
        proxy.faults.blackhole = True
        through = await ask(int(held) + 50)
        assert held <= through <= held + 1
        admitted += through
        assert limiter.failures
        proxy.faults.blackhole = False
        end = time.monotonic() + 15
        while time.monotonic() < end and (admitted < 1_500 or await ask(0)):
            got = await ask(50)
            admitted += got
            await asyncio.sleep(0.02)
        for _ in range(40):
            admitted += await ask(20)
        assert 1_500 <= admitted <= 2_000
        await limiter.aclose()


async def test_the_limiter_spends_loans_without_the_server(redis_server: RedisServer) -> None:
    """`is_allowed` and `check` answer from a loan with the numbers that the server would have told."""
    async with RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS) as storage:
        limiter = TokenBucketAdapter(storage=storage, rules={HOT: SLOW}, deadline_ms=PATIENT_MS)
        before = script_calls(redis_server)
        for spent in range(1, 1_001):
            answer = await limiter.is_allowed(endpoint=HOT, identifier="x")
            assert isinstance(answer, Success)
            assert answer.value == RateLimitResult(True, 0.0, 2_000 - spent, 2_000, answer.value.reset_seconds)
        checked = await limiter.check(endpoint=HOT, identifier="x")
        assert checked.result.remaining == 999
        assert script_calls(redis_server) - before < 100
        assert await limiter.get_remaining(endpoint=HOT, identifier="x") == Success(999)


async def test_a_loan_comes_before_a_denial_that_was_true_without_it(storage: RedisStorage) -> None:
    """All that is borrowed is spent, whatever was remembered of the bucket while nothing was."""
    limiter = TokenBucketAdapter(storage=storage, rules={HOT: SLOW}, deadline_ms=PATIENT_MS)
    for _ in range(100):
        await limiter.is_allowed(endpoint=HOT, identifier="x")
    held = int(storage.leases.held[KEY])
    assert held > 1
    assert storage.denials is not None
    one = request()
    storage.denials.store([one], Verdict(False, (BucketLevel(0, 0),)), storage.denials.begin())
    answers = [await limiter.is_allowed(endpoint=HOT, identifier="x") for _ in range(held)]
    assert [isinstance(answer, Success) and answer.value.allowed for answer in answers] == [True] * held


def test_threads_without_an_event_loop_borrow_too(redis_server: RedisServer) -> None:
    """The synchronous face spends loans in its callers' threads, and returns them when it is closed."""
    with SyncRedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS) as storage:
        limiter = SyncTokenBucketAdapter(storage=storage, rules={HOT: SLOW})
        before = script_calls(redis_server)

        def work(_: int) -> int:
            answers = [limiter.is_allowed(endpoint=HOT, identifier="x") for _ in range(150)]
            return sum(isinstance(answer, Success) and answer.value.allowed for answer in answers)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 1_200
        assert script_calls(redis_server) - before < 600
        assert limiter.failures == {}
        assert limiter.get_remaining(endpoint=HOT, identifier="x") == Success(800)
    assert asyncio.run(level_of(redis_server)) == 800


async def test_a_closed_storage_lends_nothing(storage: RedisStorage) -> None:
    """After closing there is nothing to spend, and the check says why."""
    for _ in range(50):
        await storage.take([request()])
    await storage.aclose()
    assert not storage.leases.held
    with pytest.raises(StorageError):
        await storage.take([request()])


async def test_a_bucket_on_a_cluster_is_lent(cluster_set: ClusterSet) -> None:
    """Loans are kept in the bucket's own key, on whichever node that is."""
    rule = RateLimitRule(1_000, 1, "ip", lease=True)
    async with RedisStorage.from_url(cluster_set.url, deadline_ms=PATIENT_MS) as storage:
        limiter = TokenBucketAdapter(storage=storage, rules={HOT: rule}, deadline_ms=PATIENT_MS)
        for client in ("a", "b", "c"):
            answers = [await limiter.is_allowed(endpoint=HOT, identifier=client) for _ in range(1_100)]
            assert sum(isinstance(answer, Success) and answer.value.allowed for answer in answers) == 1_000
        assert storage.leases.borrowed > 500


def test_processes_that_are_killed_at_random_never_admit_more_than_the_rule(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Four processes borrow from one bucket, and one is killed every half second: no window is above the bound."""
    hot = Hot(max_tokens=400, per_second=2_000)
    outcome = run(redis_server.url, hot, tmp_path / "tally", workers=4, seconds=5.0, kill_every_s=0.5)
    assert outcome.kills >= 2
    assert outcome.most_above_from_start(hot) <= 0
    assert outcome.most_above(hot) <= 0
    assert sum(outcome.by_bin) > 0.5 * (hot.max_tokens + hot.per_second * 5)
