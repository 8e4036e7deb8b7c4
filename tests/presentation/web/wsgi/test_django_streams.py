"""Calls in flight of Django's views are freed, whatever becomes of their answers."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.django import RateLimitMiddleware
from support.django_project import Routes
from support.serving import eventually
from support.uvicorn_server import UvicornServer

ONE_AT_A_TIME = RateLimitRule.in_flight(1, scope="ip", hold_seconds=3600)


class Views:
    """Views that wait for an event in the middle of their work."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def wait(self) -> None:
        """Wait without a thread, so that the view can be cancelled."""
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)

    async def awaited_stream(self, _: HttpRequest) -> StreamingHttpResponse:
        """Answer with parts that are awaited."""

        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await self.wait()
            yield b"second"

        return StreamingHttpResponse(parts())

    def plain_stream(self, _: HttpRequest) -> StreamingHttpResponse:
        """Answer with parts that a thread of Django's reads."""

        def parts() -> Iterator[bytes]:
            yield b"first"
            self.go_on.wait(20)
            yield b"second"

        return StreamingHttpResponse(parts())

    def broken_stream(self, _: HttpRequest) -> StreamingHttpResponse:
        """Answer with parts of which one cannot be made."""

        def parts() -> Iterator[bytes]:
            yield b"first"
            self.go_on.wait(20)
            raise OSError("the file is gone")

        return StreamingHttpResponse(parts())

    async def awaited_view(self, _: HttpRequest) -> HttpResponse:
        """Answer late."""
        await self.wait()
        return HttpResponse("late")

    def plain_view(self, _: HttpRequest) -> HttpResponse:
        """Answer late, from a thread."""
        self.go_on.wait(20)
        return HttpResponse("late")


def free(limiter: TokenBucketAdapter) -> bool:
    """Return whether a call may begin."""

    async def try_it() -> bool:
        hold: Any = await limiter.acquire(endpoint="*", identifier="127.0.0.1")
        if hold.value.allowed:
            await limiter.release(hold.value)
        return bool(hold.value.allowed)

    return asyncio.run(try_it())


@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators:Warning")
@pytest.mark.parametrize("view", ["awaited_stream", "plain_stream", "broken_stream", "awaited_view", "plain_view"])
@pytest.mark.parametrize("goes", [True, False], ids=["goes", "stays"])
def test_a_client_frees_its_call(view: str, goes: bool) -> None:
    """A client that goes in the middle frees it, as one that reads to the end. Under ASGI, on a real server."""
    views = Views()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"*": ONE_AT_A_TIME})
    routes = Routes(path("", getattr(views, view)))
    with override_settings(ROOT_URLCONF=routes, SLUICEGATE={"limiter": limiter}):
        handler = ASGIHandler()
        with UvicornServer(handler) as server:
            client = socket.create_connection(("127.0.0.1", server.port), 20)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            eventually(lambda: not free(limiter))
            if goes:
                client.close()
                time.sleep(0.2)
            views.go_on.set()
            while not goes and client.recv(1024):
                pass
            eventually(lambda: free(limiter))
            client.close()
    asyncio.run(limiter.aclose())
    gc.collect()  # of what Django leaves open after an exception


@pytest.mark.parametrize("awaits", [True, False], ids=["ASGI", "WSGI"])
async def test_an_answer_that_another_replaces(awaits: bool) -> None:
    """Django does not close what `ConditionalGetMiddleware` drops for its 304."""
    limiter: Any = (TokenBucketAdapter if awaits else SyncTokenBucketAdapter)(
        storage=MemoryStorage(), rules={"*": ONE_AT_A_TIME}
    )
    outside = ["django.middleware.http.ConditionalGetMiddleware", *settings.MIDDLEWARE]
    routes = Routes(path("", lambda _: HttpResponse("it")))
    with override_settings(ROOT_URLCONF=routes, MIDDLEWARE=outside, SLUICEGATE={"limiter": limiter}):
        client: Any = AsyncClient() if awaits else Client()
        fields: dict[str, str] = {}
        statuses: list[int] = []
        for _ in range(3):
            answer = await client.get("/", headers=fields) if awaits else client.get("/", headers=fields)
            fields = {"If-None-Match": answer.headers["ETag"]}
            statuses.append(answer.status_code)
            await asyncio.sleep(0.05)  # what a thread has ended, the loop settles
    assert statuses == [200, 304, 304]


@pytest.mark.parametrize("fields", [{}, {"Content-Length": "4"}], ids=["", "counted"])
def test_a_stream_is_in_flight_until_its_client_has_all(fields: dict[str, str]) -> None:
    """Not until the server closes it: its client is back by then."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"*": ONE_AT_A_TIME})
    free: list[bool] = []

    def is_free() -> bool:
        hold: Any = limiter.acquire(endpoint="*", identifier="127.0.0.1")
        if hold.value.allowed:
            limiter.release(hold.value)
        return bool(hold.value.allowed)

    routes = Routes(path("", lambda _: StreamingHttpResponse(iter([b"it", b"is"]), headers=fields)))
    with override_settings(ROOT_URLCONF=routes, SLUICEGATE={"limiter": limiter}):
        answer: Any = Client().get("/")
        free = [is_free() for _ in answer.streaming_content]
        assert free == [False, bool(fields)]
        assert is_free()
        assert Client().get("/").status_code == 200


def test_a_whole_answer_is_not_in_flight_any_more() -> None:
    """What is left to do is the server's."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"*": ONE_AT_A_TIME})
    routes = Routes(path("", lambda _: HttpResponse("it")))
    with override_settings(ROOT_URLCONF=routes, SLUICEGATE={"limiter": limiter}):
        middleware = RateLimitMiddleware(lambda _: HttpResponse("it"))
        answers: Any = [middleware(RequestFactory().get("/")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
