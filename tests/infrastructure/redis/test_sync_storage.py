"""The storage for threads: the same buckets, and a deadline that it keeps itself."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from sluicegate import RateLimitRule, StorageError, Success, SyncRedisStorage, SyncTokenBucketAdapter
from support.bucket_requests import bucket_request
from support.redis_servers import RedisServer

DAILY = RateLimitRule.per_day(5)
ROOMY = RateLimitRule.per_day(1_000_000)


@pytest.fixture
def storage(redis_server: RedisServer) -> Iterator[SyncRedisStorage]:
    """Return a storage with a deadline that holds on a busy machine."""
    with SyncRedisStorage.from_url(redis_server.url, deadline_ms=10_000) as storage_:
        yield storage_


def test_the_four_verbs(storage: SyncRedisStorage) -> None:
    """Take, peek, refund and reset do what the specification says."""
    one = bucket_request(DAILY)
    units = DAILY.spec.units_per_token
    assert storage.peek_blocking([one])[0].level == 5 * units
    assert [storage.take_blocking([one]).allowed for _ in range(7)] == [True] * 5 + [False] * 2
    assert storage.refund_blocking([one])[0].level // units == 1
    assert storage.take_blocking([one]).allowed
    storage.reset_blocking([one])
    assert storage.peek_blocking([one])[0].level == 5 * units


def test_threads_share_buckets_and_a_connection(storage: SyncRedisStorage, redis_server: RedisServer) -> None:
    """Forty threads admit the capacity between them, over one connection."""
    one = bucket_request(DAILY)
    with ThreadPoolExecutor(40) as threads:
        verdicts = list(threads.map(lambda _: storage.take_blocking([one]), range(400)))
    assert sum(verdict.allowed for verdict in verdicts) == 5
    client: Any = redis_server.client()
    assert client.info("clients")["connected_clients"] <= 1 + 4


def test_a_plain_client_will_do(redis_server: RedisServer) -> None:
    """An application that has a `redis.Redis` passes it on."""
    client = redis.Redis(port=redis_server.port)
    with SyncRedisStorage(redis_client=client, deadline_ms=10_000) as storage:
        assert storage.take_blocking([bucket_request(DAILY)]).allowed
    client.close()


def test_a_server_that_hangs_costs_a_deadline_and_then_nothing() -> None:
    """Stopped: an answer in time; once the breaker is open at once; afterwards the limit holds again."""
    with (
        RedisServer() as server,
        SyncRedisStorage.from_url(server.url, deadline_ms=100, remember_denials=False) as storage,
    ):
        limiter = SyncTokenBucketAdapter(storage=storage, rules={"GET /": DAILY})

        def allowed() -> bool:
            started = time.monotonic()
            match limiter.is_allowed(endpoint="GET /", identifier="x"):
                case Success(value=result):
                    assert time.monotonic() - started < 1.0
                    return result.allowed
            return False

        end = time.monotonic() + 20
        while limiter.peek(endpoint="GET /", identifier="x") and limiter.failures and time.monotonic() < end:
            time.sleep(0.02)
        assert [allowed() for _ in range(7)] == [True] * 5 + [False] * 2
        server.pause()
        assert all(allowed() for _ in range(10))
        assert limiter.failures.keys() <= {"timeout", "breaker_open"}
        assert "breaker_open" in limiter.failures
        server.resume()
        end = time.monotonic() + 20
        while allowed() and time.monotonic() < end:
            time.sleep(0.05)
        assert not allowed()


def test_closing_is_final_and_harmless_twice(redis_server: RedisServer) -> None:
    """The thread ends, and a call afterwards is a storage error."""
    storage = SyncRedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    storage.take_blocking([bucket_request(DAILY)])
    assert any(thread.name == "sluicegate-redis" for thread in threading.enumerate())
    storage.close()
    storage.close()
    assert not any(thread.name == "sluicegate-redis" for thread in threading.enumerate())
    with pytest.raises(StorageError, match="closed"):
        storage.take_blocking([bucket_request(DAILY)])


def test_a_storage_that_never_was_used_closes_too() -> None:
    """Nothing starts before the first call."""
    storage = SyncRedisStorage.from_url("redis://127.0.0.1:1")
    assert not any(thread.name == "sluicegate-redis" for thread in threading.enumerate())
    storage.close()


def test_a_storage_that_was_used_before_a_fork_works_on_both_sides(redis_server: RedisServer, tmp_path: Path) -> None:
    """As under a server that loads the application and then forks its workers."""
    program = tmp_path / "forks.py"
    program.write_text(
        f"""
import os
from sluicegate import RateLimitRule, SyncRedisStorage
from sluicegate.domain.buckets.bucket_request import BucketRequest
rule = RateLimitRule.per_day(100)
storage = SyncRedisStorage.from_url({redis_server.url!r}, deadline_ms=10_000)
def takes(count):
    for _ in range(count):
        assert storage.take_blocking([BucketRequest("forked", rule.spec, rule.spec.units_per_token)]).allowed
takes(5)
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        takes(10)
        storage.close()
        os._exit(0)
    pids.append(pid)
takes(10)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
storage.close()
"""
    )
    done = subprocess.run([sys.executable, str(program)], check=True, timeout=60, capture_output=True, text=True)
    assert "never awaited" not in done.stderr
    rule = RateLimitRule.per_day(100)
    assert int(str(redis_server.client().get("forked")).split()[0]) // rule.spec.units_per_token == 55


def test_a_shorter_deadline_shares_the_thread(redis_server: RedisServer) -> None:
    """Both storages use one thread and one connection; closing either closes both."""
    storage = SyncRedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    hasty = storage.with_deadline(1.0)
    assert (hasty.traits.deadline_s, storage.traits.deadline_s) == (1.0, 10.0)
    one = bucket_request(DAILY, cost=5)
    assert storage.take_blocking([one]).allowed
    assert not hasty.take_blocking([one]).allowed
    assert storage.take_nowait([one]) is not None
    assert [thread.name for thread in threading.enumerate()].count("sluicegate-redis") == 1
    hasty.close()
    with pytest.raises(StorageError, match="closed"):
        storage.take_blocking([bucket_request(DAILY)])
