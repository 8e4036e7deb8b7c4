"""The Redis protocol, asked by redis-py, redis-cli and raw sockets."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sluicegate.infrastructure.redis.storage import RedisStorage
from sluicegate.presentation.service.resp.request_parser import ProtocolError, RequestParser
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.testing import FailingStorage
from support.rate_limit_service import ANYWHERE, ServiceWorld
from support.redis_servers import RedisServer

ONCE = Retry(NoBackoff(), 0)
PASSWORD = "correct horse battery"


@asynccontextmanager
async def served(world: ServiceWorld, **options: Any) -> AsyncIterator[redis.asyncio.Redis]:
    """Run a world's service and connect redis-py to it."""
    await world.service.start()
    host, _, port = world.service.addresses["resp"].rpartition(":")
    client = redis.asyncio.Redis(host=host, port=int(port), **options)
    try:
        yield client
    finally:
        await client.aclose()
        await world.service.stop()


def world_of(*, storage: Any = None, **service: Any) -> ServiceWorld:
    """Return a world whose service serves the Redis protocol alone."""
    return ServiceWorld(storage=storage, service={"grpc": None, "resp": ANYWHERE, **service})


async def throttle(client: redis.asyncio.Redis, *arguments: Any) -> list[int]:
    """Give the command."""
    answer: list[int] = await client.execute_command("CL.THROTTLE", *arguments)
    return answer


@pytest.mark.parametrize("protocol", [2, 3])
async def test_it_answers_as_redis_cell_does(protocol: int) -> None:
    """Limited, limit, remaining, seconds until it would pass (-1: it does), seconds until the bucket is full."""
    world = world_of()
    async with served(world, protocol=protocol) as client:
        assert await throttle(client, "user:1", 2, 30, 60) == [0, 3, 2, -1, 2]
        assert await throttle(client, "user:1", 2, 30, 60, 2) == [0, 3, 0, -1, 6]
        assert await throttle(client, "user:1", 2, 30, 60) == [1, 3, 0, 2, 6]
        assert await throttle(client, "user:2", 2, 30, 60) == [0, 3, 2, -1, 2]
        world.clock.advance(2)
        assert await throttle(client, "user:1", 2, 30, 60, 0) == [0, 3, 1, -1, 4]  # a look
        assert await throttle(client, "user:1", 2, 30, 60) == [0, 3, 0, -1, 6]
        assert await throttle(client, "user:1", 2, 30, 60, 4) == [1, 3, 0, -1, 0]  # it can never pass
        assert await throttle(client, b"\xff\x00key", 0, 1, 86_400) == [0, 1, 0, -1, 86_400]


async def test_commands_are_pipelined() -> None:
    """Their answers come in their order, those of wrong ones too."""
    async with served(world_of()) as client:
        pipeline = client.pipeline(transaction=False)
        for n in range(300):
            pipeline.execute_command("CL.THROTTLE", f"k{n % 3}", 9, 1, 60)
            pipeline.execute_command("ECHO", str(n))
        pipeline.execute_command("CL.THROTTLE", "k")
        answers = await pipeline.execute(raise_on_error=False)
        assert list(answers[1:600:2]) == [str(n).encode() for n in range(300)]
        assert [answer[0] for answer in answers[0:600:2]] == [0] * 30 + [1] * 270
        assert isinstance(answers[600], redis.ResponseError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "wrong number of arguments"),
        (["k", 1, 1], "wrong number of arguments"),
        (["k", 1, 1, 1, 1, 1], "wrong number of arguments"),
        (["k", -1, 1, 1], "max_burst: expected a whole number"),
        (["k", 1, "x", 1], "count per period: expected a whole number"),
        (["k", 1, 0, 1], "count per period: expected at least 1"),
        (["k", 1, 1, 0], "period: expected at least 1"),
        (["k", 1, 1, 1, "1.5"], "quantity: expected a whole number"),
        (["k", 1, 1, 10**13], "period: expected a whole number"),
        (["", 1, 1, 1], "identifier=''"),
        (["k" * 2000, 1, 1, 1], "2000 bytes long, expected at most 1024"),
        (["k", 10**11, 7, 10**12 - 1], "cannot be counted exactly"),
    ],
)
async def test_wrong_arguments_are_errors(arguments: list[Any], message: str) -> None:
    """On one line, and the connection goes on."""
    async with served(world_of(), single_connection_client=True) as client:
        with pytest.raises(redis.ResponseError, match=message):
            await throttle(client, *arguments)
        assert await client.ping()


async def test_the_other_commands() -> None:
    """What clients send on their own, and nothing else."""
    async with served(world_of(), single_connection_client=True) as client:
        assert await client.echo("hello") == b"hello"
        assert await client.client_id() == 0
        assert (await client.execute_command("HELLO", 3))[b"server"] == b"sluicegate"
        assert await client.execute_command("SELECT", 0)
        for wrong in (["SELECT", 1], ["GET", "x"], ["CLIENT", "KILL"], ["HELLO", 4], ["HELLO", 3, "X"]):
            with pytest.raises(redis.ResponseError):
                await client.execute_command(*wrong)


async def test_a_password_is_asked_for() -> None:
    """Nothing is answered without it."""
    world = world_of(resp_password=PASSWORD)
    async with served(world, retry=ONCE) as client:
        with pytest.raises(redis.AuthenticationError):
            await throttle(client, "k", 1, 1, 1)
        host, _, port = world.service.addresses["resp"].rpartition(":")
        for wrong in ({"password": "x"}, {"password": PASSWORD, "username": "root"}):
            async with redis.asyncio.Redis(host=host, port=int(port), retry=ONCE, **wrong) as stranger:
                with pytest.raises(redis.AuthenticationError):
                    await stranger.ping()
        for right in ({"password": PASSWORD}, {"password": PASSWORD, "username": "default", "protocol": 2}):
            async with redis.asyncio.Redis(host=host, port=int(port), **right) as other:
                assert (await throttle(other, "k", 1, 1, 1))[0] == 0


async def test_a_client_that_does_not_log_in_is_not_waited_for() -> None:
    """Its connection is closed."""
    world = world_of(resp_password=PASSWORD, limits=ServiceLimits(request_seconds=0.5))
    async with served(world):
        host, _, port = world.service.addresses["resp"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_client_that_neither_logs_in_nor_reads_is_let_go() -> None:
    """To wait until it has read the refusals would be to wait for ever."""
    world = world_of(resp_password=PASSWORD, limits=ServiceLimits(request_seconds=0.5, max_connections=1))
    async with served(world, password=PASSWORD, retry=ONCE) as client:
        host, _, port = world.service.addresses["resp"].rpartition(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    silent.send(b"PING\r\n" * 10_000)
                    await asyncio.sleep(0)
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await client.ping()
                        break
                    except redis.RedisError:
                        await asyncio.sleep(0.05)


async def test_redis_cli_is_a_client() -> None:
    """Debian's, with the command written in lower case."""
    if shutil.which("redis-cli") is None:
        pytest.skip("there is no redis-cli")
    world = world_of()
    async with served(world):
        port = world.service.addresses["resp"].rpartition(":")[2]
        command = ["redis-cli", "-p", port, "cl.throttle", "k", "15", "30", "60"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout.split() == ["0", "16", "15", "-1", "2"]


async def test_the_failure_policy_answers_while_the_storage_fails() -> None:
    """Or it is an error, where the caller's own policy is wanted."""
    async with served(world_of(storage=FailingStorage())) as client:
        assert await throttle(client, "k", 1, 1, 1) == [0, 2, 2, -1, 0]
    async with served(world_of(storage=FailingStorage(), storage_errors="error")) as client:
        with pytest.raises(redis.ResponseError, match="the storage did not decide"):
            await throttle(client, "k", 1, 1, 1)


async def test_its_buckets_may_be_in_redis(redis_server: RedisServer) -> None:
    """A pipeline's checks travel to the storage together, and are answered in their order."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=5000)
    world = ServiceWorld(storage=storage, deadline_ms=5000, service={"grpc": None, "resp": ANYWHERE})
    async with served(world) as client:
        pipeline = client.pipeline(transaction=False)
        for _ in range(100):
            pipeline.execute_command("CL.THROTTLE", "k", 59, 1, 86_400)
            pipeline.ping()
        answers = await pipeline.execute()
        assert [answer[0] for answer in answers[::2]] == [0] * 60 + [1] * 40
        assert answers[1::2] == [True] * 100


@pytest.mark.parametrize(
    "garbage",
    [
        b"*1\r\n+PING\r\n",
        b"*-1\r\n",
        b"*99999999999999999999\r\n",
        b"*17\r\n",
        b"*1\r\n$5000\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*x\r\n",
        b"GET " + b"x" * 2000,
    ],
)
async def test_what_is_no_request_ends_the_connection(garbage: bytes) -> None:
    """With an error that says why; other connections go on."""
    world = world_of()
    async with served(world) as client:
        host, _, port = world.service.addresses["resp"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"-ERR Protocol error: ")
        writer.close()
        assert await client.ping()


async def test_a_client_that_reads_no_replies_is_not_served_on() -> None:
    """What waits for it stays bounded: its commands are not read either."""
    world = world_of()
    async with served(world):
        host, _, port = world.service.addresses["resp"].rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"*2\r\n$4\r\nECHO\r\n$4000\r\n" + b"x" * 4000 + b"\r\n")
        big = b"*2\r\n$4\r\nECHO\r\n$4000\r\n" + b"x" * 4000 + b"\r\n"
        sent = 0
        while sent < 20_000:
            writer.write(big * 100)
            sent += 100
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                break
        assert sent < 20_000
        writer.transport.abort()


async def test_connections_are_bounded_and_idle_ones_closed() -> None:
    """One too many is told so; one on which nothing happens is closed."""
    world = world_of(limits=ServiceLimits(max_connections=2, idle_seconds=1.0))
    async with served(world):
        host, _, port = world.service.addresses["resp"].rpartition(":")
        streams = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        assert b"max number of clients reached" in await asyncio.wait_for(streams[2][0].read(), 10)
        assert await asyncio.wait_for(streams[0][0].read(), 10) == b""
        for _, writer in streams:
            writer.close()


commands = st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=5)


@given(commands, st.lists(st.integers(1, 30)))
def test_commands_may_arrive_in_any_pieces(sent: list[list[bytes]], cuts: list[int]) -> None:
    """The parser returns what was sent, wherever the network cuts it."""
    data = b"".join(
        [b"*%d\r\n" % len(one) + b"".join([b"$%d\r\n%s\r\n" % (len(text), text) for text in one]) for one in sent]
    )
    parser = RequestParser()
    found: list[list[bytes]] = []
    for cut in [*cuts, len(data) + 1]:
        parser.feed(data[:cut])
        data = data[cut:]
        while (command := parser.next_command()) is not None:
            found.append(command)
    assert found == sent
    assert parser.is_empty


def test_nothing_is_held_of_a_command_that_was_returned() -> None:
    """Although nothing was asked for after it: a connection is quiet then."""
    parser = RequestParser()
    parser.feed(b"*1\r\n$4\r\nPING\r\n*1\r\n")
    assert parser.next_command() == [b"PING"]
    assert not parser.is_empty
    parser.feed(b"$4\r\nPING\r\n")
    assert parser.next_command() == [b"PING"]
    assert parser.is_empty


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: b"*2\r\n$3\r\n" + data))
def test_no_bytes_make_the_parser_fail_in_another_way(data: bytes) -> None:
    """It returns commands, waits for more, or says that it is no request."""
    parser = RequestParser()
    parser.feed(data)
    try:
        while parser.next_command() is not None:
            pass
    except ProtocolError:
        pass
