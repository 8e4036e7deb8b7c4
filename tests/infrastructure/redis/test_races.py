"""Threads, forks, closing and failures at a bad moment: each caller gets one answer, its own, and pays once."""

import asyncio
import contextlib
import gc
import os
import threading
import time
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeoutError
from typing import Any
from unittest.mock import MagicMock

import pytest

import sluicegate
from sluicegate import RateLimitRule, RedisStorage, StorageError, SyncRedisStorage, TokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.infrastructure.redis import sync_storage
from sluicegate.infrastructure.redis.calls import TAKE, Call, LeaseTerms
from sluicegate.infrastructure.redis.connections import Connections
from sluicegate.infrastructure.redis.lease import LeaseRequest
from sluicegate.infrastructure.redis.lease_router import LeaseRouter
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.testing import RecordingLogger
from support.bucket_requests import bucket_request
from support.redis_servers import ClusterSet, RedisServer

ROOMY = RateLimitRule.per_day(1_000_000)


def test_a_caller_that_gives_up_settles_nothing_itself(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A future that its thread cancelled while the loop's thread settles it would fail the other callers of the batch."""
    threads: list[str] = []

    class Impatient(Future[Any]):
        """A future whose waiter has no time."""

        def exception(self, timeout: float | None = None) -> BaseException | None:
            """Wait for nothing."""
            raise WaitTimeoutError

        def cancel(self) -> bool:
            """Note who cancels."""
            threads.append(threading.current_thread().name)
            return super().cancel()

    with SyncRedisStorage.from_url(redis_server.url, deadline_ms=5_000) as storage:
        assert storage.take_blocking([bucket_request(ROOMY)]).allowed
        monkeypatch.setattr(sync_storage, "Future", Impatient)
        with pytest.raises(StorageError) as caught:
            storage.take_blocking([bucket_request(ROOMY)])
        assert caught.value.reason == "loop_busy"
        monkeypatch.undo()
        assert storage.take_blocking([bucket_request(ROOMY)]).allowed
    assert set(threads) <= {"sluicegate-redis"}


def test_a_caller_that_is_interrupted_withdraws_its_question(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What raises in the waiting thread goes through, and what was not sent yet is not sent."""

    class Interrupted(Future[Any]):
        """A future whose waiter is interrupted."""

        def exception(self, timeout: float | None = None) -> BaseException | None:
            """Be interrupted."""
            raise KeyboardInterrupt

    with SyncRedisStorage.from_url(redis_server.url, deadline_ms=5_000) as storage:
        monkeypatch.setattr(sync_storage, "Future", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.take_blocking([bucket_request(ROOMY)])
        monkeypatch.undo()
        assert storage.take_blocking([bucket_request(ROOMY)]).allowed


def test_threads_that_start_at_once_have_one_router_each(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost, neither when many loops begin nor when the storage is closed meanwhile."""
    forget = Connections._forget_parent

    def forget_slowly(self: Connections) -> None:
        if not self._closed:
            time.sleep(0.02)  # between the look whether it is closed and what is made then
        forget(self)

    async def use(storage: RedisStorage, barrier: threading.Barrier) -> None:
        loop = asyncio.get_running_loop()
        barrier.wait()
        with contextlib.suppress(StorageError):
            assert storage.connections.router(loop) is storage.connections.router(loop)
            await asyncio.sleep(0.01)

    async def close(storage: RedisStorage, barrier: threading.Barrier) -> None:
        barrier.wait()
        await asyncio.sleep(0.005)
        await storage.aclose()

    monkeypatch.setattr(Connections, "_forget_parent", forget_slowly)
    for _ in range(5):
        storage, barrier = RedisStorage.from_url(redis_server.url, deadline_ms=5_000), threading.Barrier(8)
        calls = [*[use(storage, barrier) for _ in range(7)], close(storage, barrier)]
        threads = [threading.Thread(target=asyncio.run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert storage.connections.routers == {}


def test_a_child_with_its_parents_loop_opens_connections_of_its_own(redis_server: RedisServer) -> None:
    """The same loop object on both sides of a fork: no reply of one is read by the other."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=5_000)
    loop = asyncio.new_event_loop()

    async def take(key: str) -> bool:
        return (await storage.take([bucket_request(ROOMY, key=key)])).allowed

    assert loop.run_until_complete(take("rate_limit:parent"))
    before = int(redis_server.client().info("clients")["connected_clients"])  # type: ignore[index,arg-type]
    pid = os.fork()
    if pid == 0:
        try:
            parents = dict(storage.connections.routers)
            allowed = loop.run_until_complete(take("rate_limit:child"))
            fresh = storage.connections.routers[loop] is not parents[loop]
            clients = int(redis_server.client().info("clients")["connected_clients"])  # type: ignore[index,arg-type]
            os._exit(0 if allowed and fresh and clients > before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert loop.run_until_complete(take("rate_limit:parent"))
    loop.run_until_complete(storage.aclose())
    loop.close()


async def test_closing_answers_checks_on_several_slots(cluster_set: ClusterSet) -> None:
    """A check whose parts are still on their way gets an error, and does not wait for ever."""
    storage = RedisStorage.from_url(cluster_set.url, deadline_ms=5_000)
    await storage.take([bucket_request(ROOMY)])
    takes = [asyncio.create_task(storage.take([bucket_request(ROOMY) for _ in range(3)])) for _ in range(5)]
    await asyncio.sleep(0)
    await storage.aclose()
    answers = await asyncio.wait_for(asyncio.gather(*takes, return_exceptions=True), 20)
    assert {type(answer).__name__ for answer in answers} <= {"StorageError", "Verdict"}
    assert any(isinstance(answer, StorageError) for answer in answers)


async def test_a_fault_in_the_middle_of_several_slots_is_an_answer(
    cluster_set: ClusterSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong between the parts, the caller is told."""
    async with RedisStorage.from_url(cluster_set.url, deadline_ms=5_000) as storage:
        await storage.take([bucket_request(ROOMY)])
        router: Any = storage.connections.router(asyncio.get_running_loop()).router

        async def broken(*_: object) -> list[object]:
            raise RuntimeError("a fault")

        monkeypatch.setattr(router, "_ask", broken)
        with pytest.raises(StorageError) as caught:
            await asyncio.wait_for(storage.take([bucket_request(ROOMY) for _ in range(3)]), 20)
        assert caught.value.reason == "connection"


@pytest.mark.skipif(sluicegate.COMPILED, reason="compiled code takes no mock for a lease table")
async def test_a_check_that_was_paid_from_a_lease_does_not_fail_on_its_renewal() -> None:
    """Else the failure policy would charge its local bucket as well. The renewal counts as not asked for."""
    request = BucketRequest("rate_limit:ip:x:e", ROOMY.spec, ROOMY.spec.units_per_token, 50)
    renewal = LeaseRequest(request, LeaseTerms(1, 0, 5, 5), 1, 0)
    table, server = MagicMock(spec=LeaseTable), MagicMock()
    table.give_back.return_value = None
    table.pay.return_value = (BucketLevel(5, 0), renewal)
    server.submit.side_effect = RuntimeError("a fault")
    router = LeaseRouter(server, table, 1.0)
    answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    router.submit(Call(TAKE, [request], answer, 1e9))
    assert answer.result().allowed
    table.unsent.assert_called_once_with(renewal)


def test_a_thread_that_cannot_be_started_is_tried_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's limit is an outage with a reason, and it ends when the limit does."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with SyncRedisStorage.from_url(redis_server.url, deadline_ms=5_000) as storage:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        started = time.monotonic()
        for _ in range(3):
            with pytest.raises(StorageError) as caught:
                storage.take_blocking([bucket_request(ROOMY)])
            assert caught.value.reason == "no_thread"
        assert time.monotonic() - started < 5.0
        monkeypatch.undo()
        assert storage.take_blocking([bucket_request(ROOMY)]).allowed


def clients_of(server: RedisServer) -> int:
    """Return how many connections a server has, without the one that asks."""
    client: Any = server.client()
    count = int(client.info("clients")["connected_clients"]) - 1
    client.close()
    return count


@pytest.mark.parametrize("lease", [{}, {"lease": 50}])
async def test_a_storage_that_is_used_no_more_is_collected_with_its_connections(
    redis_server: RedisServer, lease: dict[str, int]
) -> None:
    """Without `aclose`, on a loop that goes on; with leases, once these have gone back."""
    before = clients_of(redis_server)

    async def use() -> "weakref.ref[Connections]":
        storage = RedisStorage.from_url(redis_server.url, deadline_ms=5_000)
        rules = {"GET /": RateLimitRule(1_000, 60_000, "ip", **lease)}
        limiter = TokenBucketAdapter(storage=storage, rules=rules, logger=RecordingLogger())
        for _ in range(100):
            await limiter.is_allowed(endpoint="GET /", identifier="x")
        return weakref.ref(storage.connections)

    used = await use()
    async with asyncio.timeout(20):
        while used() is not None or clients_of(redis_server) > before:
            gc.collect()
            await asyncio.sleep(0.05)


def test_a_plain_storage_that_is_used_no_more_ends_its_thread(redis_server: RedisServer) -> None:
    """And its connections, although nobody closed it."""
    before, threads = clients_of(redis_server), threading.active_count()
    storage = SyncRedisStorage.from_url(redis_server.url, deadline_ms=5_000)
    assert storage.take_blocking([bucket_request(ROOMY)]).allowed
    del storage
    end = time.monotonic() + 20
    while clients_of(redis_server) > before or threading.active_count() > threads:
        gc.collect()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_connections_say_where_they_lead() -> None:
    """For a log line or a debugger."""
    assert (
        repr(Connections(RedisStorage.from_url("redis://h").connections.target, 1.0)) == "Connections(redis://h:6379)"
    )
