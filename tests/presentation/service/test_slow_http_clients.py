"""HTTP clients that send slowly, stop in the midst of a request, or do not read: none keeps its connection for ever."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sluicegate.presentation.service.http.uvicorn_server import HttpServer
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, build_app
from sluicegate.presentation.service.settings import ServiceLimits, bound_address, open_socket
from support.rate_limit_service import ANYWHERE

PATIENCE_S = 60
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /v1/check HTTP/1.1\r\nhost: x\r\n"


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[tuple[HttpServer, tuple[str, int]]]:
    """Serve three routes, and return the server and where it listens."""
    bounds = ServiceLimits(**limits)
    listener = open_socket("--http", ANYWHERE)
    routes = [
        Endpoint("GET", "/healthz", answer("ok")),
        Endpoint("POST", "/v1/check", answer("checked")),
        Endpoint("GET", "/long", answer("x" * 8_000_000)),
    ]
    server = HttpServer(build_app(routes, bounds), listener, bounds)
    await server.start()
    host, _, port = bound_address(listener).rpartition(":")
    try:
        yield server, (host, int(port))
    finally:
        await server.drain(1)


def answer(text: str) -> Any:
    """Return a handler that answers with a text."""

    async def handle(_: Call) -> Reply:
        return Reply(200, text.encode(), "text/plain")

    return handle


async def received(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send parts, the second once the first is answered, and return all that comes until the server ends the connection."""
    reader, writer = await asyncio.open_connection(*address)
    got = b""
    try:
        for number, part in enumerate(parts):
            if number:
                got += await asyncio.wait_for(reader.read(1000), PATIENCE_S)
            writer.write(part)
        return got + await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionResetError:
        return got
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("parts", "answers"),
    [
        ((b"",), b""),
        ((POST,), b""),
        ((HEALTH, POST), b"HTTP/1.1 200"),
        ((HEALTH, b"P"), b"HTTP/1.1 200"),
        ((HEALTH, b"\r\n"), b"HTTP/1.1 200"),
    ],
)
async def test_the_rest_of_a_request_is_not_waited_for(parts: tuple[bytes, ...], answers: bytes) -> None:
    """The connection is closed, whether or not it was used before; one that is idle may stay."""
    async with serving(request_seconds=0.2, idle_seconds=300.0) as (_, address):
        assert (await received(address, *parts))[: len(answers) or 1] == answers


@pytest.mark.parametrize(
    ("length", "status"), [(b"content-length: 9\r\n\r\n{", 408), (b"content-length: 999\r\n\r\n" + b"x" * 300, 413)]
)
async def test_a_body_that_does_not_end_is_answered_and_not_waited_for(length: bytes, status: int) -> None:
    """Too slow or too long: the answer comes, and then the connection ends though the client goes on to send a little."""
    async with serving(request_seconds=0.2, idle_seconds=300.0, max_message_bytes=256) as (_, address):
        assert (await received(address, POST + length, b"y")).startswith(b"HTTP/1.1 %d " % status)


async def test_a_client_that_goes_on_with_a_refused_body_is_let_go() -> None:
    """A little of it is discarded, so that the client can read why it was refused; then the connection ends."""
    async with serving(max_message_bytes=256) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(POST + b"content-length: 1000000000\r\n\r\n" + b"x" * 300)
        assert (await asyncio.wait_for(reader.read(100), PATIENCE_S)).startswith(b"HTTP/1.1 413")
        with pytest.raises(ConnectionError):
            await send_on(writer, 100_000_000)
        writer.transport.abort()


async def send_on(writer: asyncio.StreamWriter, size: int) -> None:
    """Send so many bytes more."""
    for _ in range(size // 10_000):
        writer.write(b"x" * 10_000)
        await asyncio.wait_for(writer.drain(), PATIENCE_S)


async def test_a_client_that_does_not_read_is_let_go() -> None:
    """Neither while a response is being sent, nor when a connection with an unread rest is closed for being idle."""
    for limits in ({"take_seconds": 0.2}, {"take_seconds": 300.0, "idle_seconds": 1.0}):
        async with serving(**limits) as (server, address):
            with socket.create_connection(address) as client:
                client.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
                connections = server._server.server_state.connections
                async with asyncio.timeout(PATIENCE_S):
                    while not connections:
                        await asyncio.sleep(0.01)
                    while connections:
                        await asyncio.sleep(0.01)
