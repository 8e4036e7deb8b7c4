"""Batches on one connection: one is sent before the reply to another, and both are answered when the connection fails."""

import asyncio
from typing import Any

import msgspec
import pytest

from sluicegate import RateLimitRule, RedisStorage, StorageError
from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.infrastructure.redis.batcher import Batcher
from sluicegate.infrastructure.redis.connection import transport_of
from sluicegate.infrastructure.redis.pipeline import ScriptPipeline
from support.bucket_requests import bucket_request
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisServer

ROOMY = RateLimitRule.per_day(1_000_000)


def takes(storage: RedisStorage, count: int) -> list["asyncio.Task[Verdict]"]:
    """Start takes, each of another bucket."""
    return [asyncio.create_task(storage.take([bucket_request(ROOMY)])) for _ in range(count)]


def batcher_of(storage: RedisStorage) -> Batcher:
    """Return what sends a storage's checks on this event loop."""
    batcher = storage.connections.router(asyncio.get_running_loop()).router
    assert isinstance(batcher, Batcher)
    return batcher


def pipeline_of(storage: RedisStorage) -> ScriptPipeline:
    """Return its only connection."""
    (pipeline,) = batcher_of(storage).pipelines
    return pipeline


def receive(pipeline: ScriptPipeline, data: bytes) -> None:
    """Let bytes arrive."""
    pipeline.buffer[: len(data)] = data
    pipeline.receive(len(data))


async def reach(count: int, what: Any) -> None:
    """Wait until `what()` is `count`."""
    async with asyncio.timeout(20):
        while what() != count:
            await asyncio.sleep(0.01)


async def test_a_full_batch_goes_out_ahead_of_a_reply_and_a_third_does_not(redis_server: RedisServer) -> None:
    """Few checks wait for the reply; sixteen do not; while two batches are in flight all others wait, and none is lost."""
    client: Any = redis_server.client()

    def batches() -> int:
        return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

    async with (
        FaultProxy(*redis_server.address) as proxy,
        RedisStorage.from_url(proxy.url, deadline_ms=30_000) as storage,
    ):
        await storage.take([bucket_request(ROOMY)])
        client.config_resetstat()
        proxy.faults.latency_s = 1.0  # on the way there and on the way back
        asked = takes(storage, 1)
        await reach(1, lambda: pipeline_of(storage).batches)
        asked += takes(storage, 15)
        await asyncio.sleep(0.05)
        assert pipeline_of(storage).batches == 1
        asked += takes(storage, 1)
        await reach(2, lambda: pipeline_of(storage).batches)
        asked += takes(storage, 300)
        await asyncio.sleep(0.05)
        assert pipeline_of(storage).batches == 2
        assert len(pipeline_of(storage).calls()) == 17
        await reach(2, batches)
        proxy.faults.latency_s = 0.0
        assert all(verdict.allowed for verdict in await asyncio.gather(*asked))


async def test_a_reply_to_nothing_ends_the_connection_and_costs_nothing(redis_server: RedisServer) -> None:
    """It would be taken for the answer to the next check; that one goes out on a new connection."""
    async with RedisStorage.from_url(redis_server.url, deadline_ms=10_000) as storage:
        await storage.take([bucket_request(ROOMY)])
        pipeline = pipeline_of(storage)
        receive(pipeline, b"$3\r\n\x92\x01\x01\r\n")
        assert all(verdict.allowed for verdict in await asyncio.gather(*takes(storage, 40)))
        assert pipeline_of(storage) is not pipeline


async def test_the_reply_to_the_batch_behind_is_no_answer() -> None:
    """Of two batches in flight neither is answered by a reply that is not the first one's."""
    with RedisServer() as server:
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            await storage.take([bucket_request(ROOMY)])
            server.pause()
            asked = takes(storage, 40)
            await reach(2, lambda: pipeline_of(storage).batches)
            pipeline = pipeline_of(storage)
            second = pipeline.sent[1]
            reply = msgspec.msgpack.encode([second.correlation_id] + [1, 5, 0] * len(second.calls))
            receive(pipeline, b"$%d\r\n%b\r\n" % (len(reply), reply))
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {getattr(answer, "reason", None) for answer in answers} == {"wrong_reply"}
            server.resume()


async def test_a_connection_that_ends_fails_both_batches_and_not_what_waits() -> None:
    """What may have been executed is an error of its own for each caller; what was not sent goes to the next connection."""
    with RedisServer() as server:
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            await storage.take([bucket_request(ROOMY)])
            server.pause()
            sent = takes(storage, 40)
            await reach(2, lambda: pipeline_of(storage).batches)
            waiting = takes(storage, 5)
            await asyncio.sleep(0.01)
            transport_of(pipeline_of(storage).connection).abort()
            answers = await asyncio.gather(*sent, return_exceptions=True)
            assert [getattr(answer, "reason", None) for answer in answers] == ["connection"] * 40
            assert len({id(answer) for answer in answers}) == 40
            server.resume()
            assert all(verdict.allowed for verdict in await asyncio.gather(*waiting))


async def test_a_script_that_is_not_known_costs_one_loading_for_all_batches(redis_server: RedisServer) -> None:
    """Of two batches that NOSCRIPT answers, the first goes again with the script, the second by its digest behind it."""
    client: Any = redis_server.client()
    async with RedisStorage.from_url(redis_server.url, deadline_ms=10_000) as storage:
        await storage.take([bucket_request(ROOMY)])
        client.script_flush()
        client.config_resetstat()
        assert all(verdict.allowed for verdict in await asyncio.gather(*takes(storage, 50)))
        stats = client.info("commandstats")
        assert stats["cmdstat_eval"]["calls"] == 1
        assert stats["cmdstat_evalsha"]["calls"] == 3


async def test_a_replica_refuses_all_that_is_in_flight_by_its_reason() -> None:
    """READONLY answers both batches, each call gets an answer, and the connection is not used again."""
    with RedisServer() as server:
        client: Any = server.client()
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            await storage.take([bucket_request(ROOMY)])
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            answers = await asyncio.gather(*takes(storage, 50), return_exceptions=True)
            assert {getattr(answer, "reason", None) for answer in answers} == {"readonly"}
            with pytest.raises(StorageError) as caught:
                await storage.take([bucket_request(ROOMY)])
            assert caught.value.reason == "breaker_open"


async def test_a_replica_that_answers_probes_is_asked_ever_more_seldom() -> None:
    """READONLY is no answer to a check: the pauses between probes grow, although each probe succeeds."""
    with RedisServer() as server:
        client: Any = server.client()
        async with RedisStorage.from_url(server.url, deadline_ms=10_000) as storage:
            await storage.take([bucket_request(ROOMY)])
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            longest_s: list[float] = []
            async with asyncio.timeout(20):
                while len(longest_s) < 3:
                    try:
                        await storage.take([bucket_request(ROOMY)])
                    except StorageError as error:
                        if error.reason == "readonly":
                            longest_s.append(batcher_of(storage).breaker.pause_s(1.0))
                    await asyncio.sleep(0.005)
            assert longest_s[0] < longest_s[1] < longest_s[2]
