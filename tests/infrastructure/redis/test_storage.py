"""The storage on one real server: whatever fails, each call is answered by its deadline and the limit holds."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from sluicegate import RateLimitRule, RedisStorage, StorageError, Success, TokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.infrastructure.redis.batcher import MAX_WAITING
from sluicegate.infrastructure.redis.connections import Connections
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.target import target_of_url
from sluicegate.testing import FakeClock, RecordingLogger
from support.bucket_requests import bucket_request
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisServer, redis_6, redis_7

DAILY = RateLimitRule.per_day(5)
ROOMY = RateLimitRule.per_day(1_000_000)

DEADLINE_MS = 100
GENEROUS_S = 10 * DEADLINE_MS / 1000
"""What an answer may take on a machine that others use too. Figures are measured by `benchmarks/redis_faults.py`."""


@pytest.fixture
async def storage(redis_server: RedisServer) -> AsyncIterator[RedisStorage]:
    """Return a storage with a deadline that holds on a busy machine."""
    async with RedisStorage.from_url(redis_server.url, deadline_ms=10_000) as storage_:
        yield storage_


async def outcomes(storage: RedisStorage, count: int = 1) -> list[str]:
    """Take a token `count` times in a row; return who decided, and check that no call waits long."""
    reasons: list[str] = []
    for _ in range(count):
        started = time.monotonic()
        try:
            await storage.take([bucket_request(ROOMY)])
            reasons.append("storage")
        except StorageError as error:
            reasons.append(error.reason)
        assert time.monotonic() - started < GENEROUS_S
    return reasons


async def until(storage: RedisStorage, reason: str, *, timeout_s: float = 20.0) -> None:
    """Wait until a take has a certain outcome."""
    end = time.monotonic() + timeout_s
    while (await outcomes(storage))[-1] != reason:
        assert time.monotonic() < end, f"no {reason} within {timeout_s} s"
        await asyncio.sleep(0.02)


# Together and apart


async def test_simultaneous_checks_of_one_bucket_are_admitted_up_to_the_capacity(storage: RedisStorage) -> None:
    """However many ask at once, five tokens pay for five."""
    one = bucket_request(DAILY)
    verdicts = await asyncio.gather(*[storage.take([one]) for _ in range(500)])
    assert sum(verdict.allowed for verdict in verdicts) == 5


async def test_checks_that_arrive_together_go_out_together(storage: RedisStorage, redis_server: RedisServer) -> None:
    """A hundred checks are a few script calls, and a lone one is one."""
    await storage.take([bucket_request(ROOMY)])
    client: Any = redis_server.client()
    client.config_resetstat()
    await asyncio.gather(*[storage.take([bucket_request(ROOMY)]) for _ in range(100)])
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] <= 3
    client.config_resetstat()
    await storage.take([bucket_request(ROOMY)])
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


async def test_each_caller_gets_the_own_answer(storage: RedisStorage) -> None:
    """In batches of mixed verbs and sizes each caller gets the level of the own bucket."""

    async def one(number: int) -> None:
        requests = [bucket_request(ROOMY, cost=number + 1 + i) for i in range(number % 4 + 1)]
        verdict = await storage.take(requests)
        for asked, bucket_level in zip(requests, verdict.levels, strict=True):
            assert bucket_level.level == ROOMY.spec.capacity - asked.cost_units
        peeked = await storage.peek(requests)
        assert [bucket_level.level for bucket_level in peeked] >= [
            bucket_level.level for bucket_level in verdict.levels
        ]
        await storage.reset(requests[:1])
        assert (await storage.peek(requests[:1]))[0].level == ROOMY.spec.capacity

    await asyncio.gather(*[one(number) for number in range(400)])


async def test_a_pause_of_the_server_is_not_a_way_past_the_limit(redis_server: RedisServer) -> None:
    """Two thousand checks during a pause: the storage admits the capacity, whatever the policy answers to the others."""
    client: Any = redis_server.client()
    async with RedisStorage.from_url(redis_server.url, deadline_ms=10_000) as storage:
        await storage.take([bucket_request(ROOMY)])
        one = bucket_request(DAILY)
        client.execute_command("CLIENT", "PAUSE", 50, "ALL")
        verdicts = await asyncio.gather(*[storage.take([one]) for _ in range(2000)], return_exceptions=True)
    assert sum(isinstance(verdict, Verdict) and verdict.allowed for verdict in verdicts) == 5
    assert all(isinstance(verdict, Verdict) for verdict in verdicts)


async def test_too_many_waiting_checks_are_refused_and_not_let_through(storage: RedisStorage) -> None:
    """Beyond what the queue holds, a check is a storage error with its own reason; those in the queue are answered."""
    most = MAX_WAITING
    answers = await asyncio.gather(
        *[storage.take([bucket_request(ROOMY)]) for _ in range(most + 10)], return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, StorageError)]
    assert 0 < len(refused) <= 10
    assert {error.reason for error in refused} == {"overload"}
    assert len(answers) - len(refused) >= most


# Script and state


@pytest.mark.parametrize("binary", [redis_7, redis_6], indirect=True)
async def test_a_script_that_the_server_has_forgotten_is_sent_along(binary: Any) -> None:
    """SCRIPT FLUSH and FLUSHALL lose no check; the limit starts anew where its state is gone."""
    with RedisServer(binary=binary()) as server:
        client: Any = server.client()
        async with RedisStorage.from_url(server.url, deadline_ms=10_000, remember_denials=False) as storage:
            one = bucket_request(DAILY)
            allowed = 0
            for _ in range(10):
                client.script_flush()
                allowed += (await storage.take([one])).allowed
            assert allowed == 5
            client.flushall()
            assert (await storage.take([one])).allowed
            client.script_flush()
            client.config_resetstat()
            await asyncio.gather(*[storage.take([bucket_request(ROOMY)]) for _ in range(50)])
            # One script call was sent and not known; the one that was sent again brought the script.
            assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1


async def test_a_server_that_restarts_between_checks_goes_unnoticed() -> None:
    """An idle connection that was closed is replaced before the next check is sent on it."""
    with RedisServer() as server:
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            await storage.take([bucket_request(ROOMY)])
            server.kill()
            server.start()
            await asyncio.sleep(0.1)
            assert await outcomes(storage, 3) == ["storage"] * 3


# Faults of the server


async def test_a_server_that_hangs_costs_a_deadline_and_then_nothing() -> None:
    """Stopped under load: answers in time, then at once; afterwards the limit holds again, and nothing has leaked."""
    with RedisServer() as server:
        async with RedisStorage.from_url(server.url, deadline_ms=DEADLINE_MS) as storage:
            await until(storage, "storage")
            server.pause()
            answers = await asyncio.gather(*[outcomes(storage, 3) for _ in range(50)])
            assert {reason for reasons in answers for reason in reasons} <= {"timeout", "breaker_open"}
            await until(storage, "breaker_open")
            server.resume()
            await until(storage, "storage")
            one = bucket_request(DAILY)
            assert sum([(await storage.take([one])).allowed for _ in range(8)]) == 5
        assert len(asyncio.all_tasks()) == 1


async def test_a_server_that_hangs_before_the_first_check_is_no_different() -> None:
    """The deadline covers connecting and loading the script."""
    with RedisServer() as server:
        server.pause()
        async with RedisStorage.from_url(f"redis://:x@127.0.0.1:{server.port}", deadline_ms=DEADLINE_MS) as storage:
            # On a machine that is very busy, this process may take longer than the server did.
            assert (await outcomes(storage))[0] in {"timeout", "loop_busy"}
            await until(storage, "breaker_open")
        async with RedisStorage.from_url(server.url, deadline_ms=DEADLINE_MS) as storage:
            await until(storage, "breaker_open")
            server.resume()
            await until(storage, "storage")


async def test_a_server_that_is_gone_is_found_when_it_is_back() -> None:
    """Refused connections open the breaker; a restart closes it."""
    with RedisServer() as server:
        async with RedisStorage.from_url(server.url, deadline_ms=DEADLINE_MS) as storage:
            await until(storage, "storage")
            server.kill()
            await until(storage, "breaker_open")
            assert set(await outcomes(storage, 20)) == {"breaker_open"}
            server.start()
            await until(storage, "storage")


async def test_an_open_breaker_sends_one_probe_at_a_time(redis_server: RedisServer) -> None:
    """Hundreds of checks while the server refuses are a handful of connection attempts."""
    async with FaultProxy(*redis_server.address) as proxy:
        async with RedisStorage.from_url(proxy.url, deadline_ms=DEADLINE_MS) as storage:
            proxy.faults.refuse = True
            await until(storage, "breaker_open")
            before = proxy.accepted
            started = time.monotonic()
            for _ in range(20):
                await asyncio.gather(*[outcomes(storage, 5) for _ in range(20)])
                await asyncio.sleep(0.02)
            # The shortest pause is 25 ms, and pauses grow.
            assert proxy.accepted - before <= (time.monotonic() - started) / 0.025 / 2
            proxy.faults.refuse = False
            await until(storage, "storage")


@pytest.mark.parametrize("binary", [redis_7, redis_6], indirect=True)
async def test_a_full_server_is_told_by_its_reason_and_denials_still_come_from_it(binary: Any) -> None:
    """Without memory nothing can be paid; what is denied is still denied, and nothing is half paid."""
    with RedisServer("--maxmemory-policy", "noeviction", binary=binary()) as server:
        client: Any = server.client()
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            spent = bucket_request(DAILY, cost=5)
            assert (await storage.take([spent])).allowed
            client.config_set("maxmemory", "1")
            assert await outcomes(storage, 2) == ["oom", "oom"]
            assert not (await storage.take([spent])).allowed
            client.config_set("maxmemory", "0")
            assert await outcomes(storage) == ["storage"]


async def test_a_replica_is_refused_until_it_is_a_master(redis_server: RedisServer) -> None:
    """READONLY drops the connection, so that the next one goes to whichever server is the master then."""
    with RedisServer() as server:
        client: Any = server.client()
        async with RedisStorage.from_url(server.url, deadline_ms=DEADLINE_MS) as storage:
            await until(storage, "storage")
            client.execute_command("REPLICAOF", "127.0.0.1", redis_server.port)
            await until(storage, "breaker_open")
            client.execute_command("REPLICAOF", "NO", "ONE")
            await until(storage, "storage")


async def test_too_few_replicas_are_told_by_their_reason() -> None:
    """A server that refuses writes without replicas is neither waited for nor taken for broken."""
    with RedisServer("--min-replicas-to-write", "1") as server:
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            assert await outcomes(storage, 3) == ["noreplicas"] * 3


async def test_a_busy_script_of_somebody_else_is_told_by_its_reason() -> None:
    """While another script runs on for ever, checks are refused at once, not held."""
    with RedisServer("--lua-time-limit", "20", "--busy-reply-threshold", "20") as server:
        async with RedisStorage.from_url(server.url, deadline_ms=DEADLINE_MS) as storage:
            await until(storage, "storage")
            hog = asyncio.create_task(asyncio.to_thread(_run_for_ever, server))
            await until(storage, "busy")
            server.client().script_kill()
            await until(storage, "storage")
            await hog


def _run_for_ever(server: RedisServer) -> None:
    with pytest.raises(redis.RedisError):
        server.client(socket_timeout=60).eval("while true do end", 0)


async def test_a_wrong_password_opens_the_breaker_and_is_named() -> None:
    """A login that fails is not tried for every check; the reason stands in the message, the password does not."""
    with RedisServer("--requirepass", "right") as server:
        url = f"redis://:wrong-secret@127.0.0.1:{server.port}"
        async with RedisStorage.from_url(url, deadline_ms=10_000) as storage:
            assert (await outcomes(storage))[0] == "auth"
            with pytest.raises(StorageError, match="auth") as caught:
                await storage.take([bucket_request(ROOMY)])
            assert caught.value.reason == "breaker_open"
            assert "wrong-secret" not in str(caught.value)
            server.client(password="right").config_set("requirepass", "wrong-secret")
            await until(storage, "storage")


# Faults of the network


@pytest.mark.parametrize(
    ("faults", "reasons"),
    [
        ({"blackhole": True}, {"timeout"}),
        ({"half_open": True}, {"timeout"}),
        ({"latency_s": 0.5}, {"timeout"}),
        ({"garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, {"wrong_reply"}),
        ({"garbage": b"+OK\r\n"}, {"wrong_reply"}),
        ({"garbage": b"*4\r\n:0\r\n:1\r\n:5\r\n:0\r\n"}, {"wrong_reply"}),
        ({"garbage": b"*4\r\n:1\r\n$1\r\n1\r\n:5\r\n:0\r\n"}, {"wrong_reply"}),
        ({"garbage": b"$2000000000\r\nxxxx"}, {"timeout"}),
        ({"garbage": b"-ERR what\r\n"}, {"server_error"}),
    ],
    ids=["blackhole", "half-open", "slow", "http", "ok", "not ours", "not numbers", "huge", "error"],
)
async def test_a_network_that_fails_is_survived_and_told(
    redis_server: RedisServer, faults: dict[str, Any], reasons: set[str]
) -> None:
    """Silent, slow or garbled: an answer in time with its reason, and the storage decides again after it."""
    async with FaultProxy(*redis_server.address) as proxy:
        async with RedisStorage.from_url(proxy.url, deadline_ms=DEADLINE_MS) as storage:
            await until(storage, "storage")
            for name, value in faults.items():
                setattr(proxy.faults, name, value)
            seen: set[str] = set()
            for _ in range(10):
                seen |= set(await outcomes(storage, 3))
                await asyncio.sleep(0.01)
            # On a busy machine some of these checks find that this process did not get to run in time.
            assert reasons <= seen <= reasons | {"breaker_open", "timeout", "loop_busy"}
            proxy.faults = type(proxy.faults)()
            await until(storage, "storage")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_replies_may_arrive_in_any_pieces(redis_server: RedisServer, size: int) -> None:
    """A reply cut at any byte is read whole."""
    async with FaultProxy(*redis_server.address) as proxy:
        proxy.faults.slice_bytes = size
        async with RedisStorage.from_url(proxy.url, deadline_ms=10_000) as storage:
            one = bucket_request(DAILY)
            assert sum([(await storage.take([one])).allowed for _ in range(8)]) == 5


async def test_a_connection_reset_fails_the_calls_in_flight_and_no_others(redis_server: RedisServer) -> None:
    """What may have been executed is not sent again; what waited goes out on the next connection."""
    async with (
        FaultProxy(*redis_server.address) as proxy,
        RedisStorage.from_url(proxy.url, deadline_ms=10_000) as storage,
    ):
        one = bucket_request(DAILY)
        assert (await storage.take([one])).allowed
        proxy.faults.half_open = True
        lost = asyncio.create_task(storage.take([one]))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(storage.take([one]))
        await asyncio.sleep(0)
        proxy.faults.half_open = False
        proxy.reset()
        with pytest.raises(StorageError) as caught:
            await lost
        assert caught.value.reason == "connection"
        assert (await waiting).levels[0].level // DAILY.spec.units_per_token == 2


# Callers that leave


async def test_cancelled_callers_damage_nothing(redis_server: RedisServer) -> None:
    """Callers cancelled at random points: the others get their own answers, over connections that are few and kept."""
    rng = random.Random(5)
    async with FaultProxy(*redis_server.address) as proxy:
        proxy.faults.latency_s = 0.002
        proxy.faults.jitter_s = 0.003
        async with RedisStorage.from_url(proxy.url, deadline_ms=10_000) as storage:
            await storage.take([bucket_request(ROOMY)])
            cancelled = 0

            async def one(number: int) -> None:
                cost = number % 97 + 1
                asked = bucket_request(ROOMY, cost=cost)
                verdict = await storage.take([asked])
                assert verdict.levels[0].level == ROOMY.spec.capacity - asked.cost_units

            for start in range(0, 2000, 50):
                tasks = [asyncio.create_task(one(start + i)) for i in range(50)]
                await asyncio.sleep(rng.random() * 0.01)
                for task in tasks:
                    if rng.random() < 0.5:
                        cancelled += task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results), results
            assert cancelled > 100
            assert proxy.accepted <= 4
    gc.collect()
    assert len(asyncio.all_tasks()) == 1


async def test_a_check_that_is_cancelled_before_it_is_sent_costs_nothing(storage: RedisStorage) -> None:
    """A caller who leaves while waiting for the connection is not charged."""
    one = bucket_request(DAILY)
    tasks = [asyncio.create_task(storage.take([one])) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await storage.peek([one]))[0].level == DAILY.spec.capacity


# Loops, threads, processes


def test_a_storage_serves_one_event_loop_after_another(redis_server: RedisServer) -> None:
    """Each `asyncio.run` gets connections of its own; the buckets are the same."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    one = bucket_request(DAILY)

    async def once() -> bool:
        return (await storage.take([one])).allowed

    assert [asyncio.run(once()) for _ in range(7)] == [True] * 5 + [False] * 2
    asyncio.run(storage.aclose())


async def test_a_storage_serves_several_event_loops_at_once(redis_server: RedisServer) -> None:
    """Threads with loops of their own share the buckets and nothing else."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    one = bucket_request(DAILY)

    async def some() -> int:
        return sum([(await storage.take([one])).allowed for _ in range(20)])

    allowed = await asyncio.gather(some(), *[asyncio.to_thread(asyncio.run, some()) for _ in range(3)])
    assert sum(allowed) == 5
    await storage.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_storage_that_was_used_before_a_fork_works_on_both_sides(redis_server: RedisServer, tmp_path: Path) -> None:
    """The child's event loop gets connections of its own, and the parent's go on."""
    program = tmp_path / "forks.py"
    program.write_text(
        f"""
import asyncio, os, sys
from sluicegate import RateLimitRule, RedisStorage
from sluicegate.domain.buckets.bucket_request import BucketRequest
rule = RateLimitRule.per_day(100)
storage = RedisStorage.from_url({redis_server.url!r}, deadline_ms=10_000)
async def takes(count):
    for _ in range(count):
        assert (await storage.take([BucketRequest("forked", rule.spec, rule.spec.units_per_token)])).allowed
runner = asyncio.Runner()
runner.run(takes(5))
pid = os.fork()
if pid == 0:
    asyncio.run(takes(20))
    os._exit(0)
runner.run(takes(20))
assert os.waitpid(pid, 0)[1] == 0
runner.run(storage.aclose())
runner.close()
"""
    )
    subprocess.run([sys.executable, "-W", "error", str(program)], check=True, timeout=60)
    level = int(str(redis_server.client().get("forked")).split()[0])
    rule = RateLimitRule.per_day(100)
    assert level // rule.spec.units_per_token == 55


async def test_closing_is_final_and_harmless_twice(redis_server: RedisServer) -> None:
    """After `aclose` a check is a storage error, and no connection and no task is left."""
    client: Any = redis_server.client()
    client.ping()
    before = client.info("clients")["connected_clients"]
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    await storage.take([bucket_request(ROOMY)])
    await storage.aclose()
    await storage.aclose()
    with pytest.raises(StorageError, match="closed"):
        await storage.take([bucket_request(ROOMY)])
    for _ in range(200):
        if client.info("clients")["connected_clients"] == before:
            break
        await asyncio.sleep(0.02)
    assert client.info("clients")["connected_clients"] == before
    assert len(asyncio.all_tasks()) == 1


async def test_a_storage_that_is_closed_answers_those_who_wait(redis_server: RedisServer) -> None:
    """No call waits for ever for a storage that was closed meanwhile."""
    async with FaultProxy(*redis_server.address) as proxy:
        proxy.faults.half_open = True
        storage = RedisStorage.from_url(proxy.url, deadline_ms=10_000)
        waiting = [asyncio.create_task(storage.take([bucket_request(ROOMY)])) for _ in range(5)]
        await asyncio.sleep(0.05)
        await storage.aclose()
        answers: Sequence[Any] = await asyncio.gather(*waiting, return_exceptions=True)
        assert [answer.reason for answer in answers] == ["connection"] * 5


async def test_connections_are_few_whatever_the_concurrency(redis_server: RedisServer) -> None:
    """A thousand callers need no thousand connections, so there is no pool to run out."""
    async with FaultProxy(*redis_server.address) as proxy:
        proxy.faults.latency_s = 0.005
        async with RedisStorage.from_url(proxy.url, deadline_ms=10_000) as storage:
            await asyncio.gather(*[storage.take([bucket_request(ROOMY)]) for _ in range(3000)])
            assert 2 <= proxy.connections <= 4  # more than one, because this server is far away


# Shorter deadlines and the end


async def test_a_shorter_deadline_shares_connections_and_denials(redis_server: RedisServer) -> None:
    """Calls through both storages go out together, and a denial through one is cached for the other."""
    async with (
        FaultProxy(*redis_server.address) as proxy,
        RedisStorage.from_url(proxy.url, deadline_ms=10_000) as storage,
    ):
        hasty = storage.with_deadline(0.05)
        assert (hasty.traits.deadline_s, storage.traits.deadline_s) == (0.05, 10.0)
        assert storage.with_deadline(60.0).traits.deadline_s == 10.0
        spent = bucket_request(DAILY, cost=5)
        await storage.take([spent])
        assert not (await storage.take([spent])).allowed
        assert hasty.take_nowait([spent]) is not None
        proxy.faults.half_open = True
        patient = asyncio.create_task(storage.take([bucket_request(ROOMY)]))
        await asyncio.sleep(0.01)
        with pytest.raises(StorageError) as caught:
            await hasty.take([bucket_request(ROOMY)])
        assert caught.value.reason == "timeout"
        assert not patient.done()
        assert proxy.accepted == 1
        await hasty.aclose()
        with pytest.raises(StorageError, match="closed"):
            await patient
        with pytest.raises(StorageError, match="closed"):
            await storage.take([bucket_request(ROOMY)])


def test_a_storage_that_is_dropped_is_collected(redis_server: RedisServer) -> None:
    """With cached denials and leases, too, and closed or not: nothing outside of its event loop refers to it."""

    class Traced(FakeClock):
        """A clock that can be referred to weakly."""

    async def use(storage: RedisStorage) -> None:
        lent = bucket_request(ROOMY, lease=100)
        for _ in range(20):
            await storage.take([lent])
        assert storage.leases.held
        spent = bucket_request(DAILY, cost=5)
        while (await storage.take([spent])).allowed:
            pass

    def used() -> list["weakref.ref[Any]"]:
        storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
        clock = Traced()
        target = target_of_url(redis_server.url)
        storage.connections = Connections(target, 10.0, leases=LeaseTable(clock=clock))
        asyncio.run(use(storage))
        return [weakref.ref(storage), weakref.ref(clock)]

    refs = used()
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


# Through the limiter


async def test_the_limiter_fails_open_in_time_and_says_so() -> None:
    """The shipped parts together: denial while the server lives, the policy's answer while it hangs, denial again."""
    with RedisServer() as server:
        storage = RedisStorage.from_url(server.url, deadline_ms=500, remember_denials=False)
        logger = RecordingLogger()
        rules = {"POST /login": DAILY, "GET /": RateLimitRule(5, 5, "ip", on_storage_error="local")}
        limiter = TokenBucketAdapter(storage=storage, rules=rules, logger=logger, deadline_ms=500)

        async def allowed(endpoint: str, count: int) -> int:
            total = 0
            for _ in range(count):
                match await limiter.is_allowed(endpoint=endpoint, identifier="203.0.113.7"):
                    case Success(value=result):
                        total += result.allowed
            return total

        await until(storage, "storage")
        assert await allowed("POST /login", 8) == 5
        server.pause()
        assert await allowed("POST /login", 8) == 8
        assert await allowed("GET /", 8) == 5
        assert (await limiter.get_remaining(endpoint="POST /login", identifier="x")) == Success(5)
        assert not isinstance(await limiter.reset(endpoint="POST /login", identifier="203.0.113.7"), Success)
        assert limiter.failures.keys() <= {"timeout", "breaker_open"}
        assert any(level == "warning" for level, _, _ in logger.records)
        server.resume()
        await until(storage, "storage")
        assert await allowed("POST /login", 8) == 0
        assert await limiter.reset(endpoint="POST /login", identifier="203.0.113.7") == Success(None)
        assert await allowed("POST /login", 8) == 5
        await limiter.aclose()


async def test_nothing_of_redis_is_kept_between_checks(storage: RedisStorage) -> None:
    """Idle means idle: no task, and no timer but the one for deadlines."""
    await storage.take([bucket_request(ROOMY)])
    await asyncio.sleep(0)
    assert not storage.connections.router(asyncio.get_running_loop()).looking
    assert len(asyncio.all_tasks()) == 1
