"""A function that names the client may be a coroutine function where there is a loop, and is refused elsewhere."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import httpx2
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from fastapi import Depends, FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sluicegate.httpx
import sluicegate.httpx2
from sluicegate import (
    FlaskRateLimit,
    InvalidInputError,
    MemoryStorage,
    RateLimitedError,
    RateLimitMiddleware,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
    paced,
    rate_limited,
)
from sluicegate.application.wait_queue import SlotTimeoutError
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.fastapi import rate_limit
from sluicegate.testing import FakeClock
from support import django_project
from support.asgi_calls import http_scope, send_scope

assert django_project.settings.configured, "before what follows is imported"

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402

from sluicegate.rest_framework import throttle  # noqa: E402

Ask = Callable[[str], Awaitable[bool]]
RULES: dict[str, Any] = {"GET /": "1/minute per user"}


def awaited(rules: Any = ()) -> TokenBucketAdapter:
    """Return a limiter on a clock that stands still."""
    return TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=dict(rules))


def blocking(rules: Any = ()) -> SyncTokenBucketAdapter:
    """Return the same for code without an event loop."""
    return SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=dict(rules))


def asks(app: Any) -> Ask:
    """Return what sends a client's request to an application."""

    async def ask(who: str) -> bool:
        return (await send_scope(app, http_scope(path="/", headers=(("x-who", who),)))).status == 200

    return ask


# Where there is a loop


def middleware(identify: Any) -> Ask:
    """Limit an ASGI application."""
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))])
    return asks(RateLimitMiddleware(app, limiter=awaited(RULES), identifiers={"user": identify}))


def dependency(identify: Any) -> Ask:
    """Limit a route of FastAPI."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(rate_limit("1/minute", identifier=identify, limiter=awaited()))])(lambda: None)
    return asks(app)


def django(identify: Any) -> Ask:
    """Limit a project of Django that is served by a loop."""

    async def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse()

    options = {"limiter": awaited(RULES), "identifiers": {"user": identify}}
    changed = {
        "ROOT_URLCONF": django_project.Routes(path("", view)),
        "MIDDLEWARE": ["sluicegate.django.RateLimitMiddleware"],
        "SLUICEGATE": options,
    }
    with override_settings(**changed):
        app = ASGIHandler()

    async def ask(who: str) -> bool:
        with override_settings(**changed):
            return await asks(app)(who)

    return ask


def raising(function: Callable[[str], Awaitable[object]], error: type[Exception]) -> Ask:
    """Return whether a call passes."""

    async def ask(who: str) -> bool:
        try:
            await function(who)
        except error:
            return False
        return True

    return ask


def decorator(identify: Any) -> Ask:
    """Limit a coroutine function."""

    @rate_limited("1/minute", identifier=identify, limiter=awaited())
    async def function(_: str) -> None: ...

    return raising(function, RateLimitedError)


def generator(identify: Any) -> Ask:
    """Limit an asynchronous generator."""

    @rate_limited("1/minute", identifier=identify, limiter=awaited())
    async def items(_: str) -> AsyncIterator[int]:
        yield 1

    async def first(who: str) -> int:
        return await anext(aiter(items(who)))

    return raising(first, RateLimitedError)


def pace(identify: Any) -> Ask:
    """Pace a coroutine function."""

    @paced("1/minute", identifier=identify, limiter=awaited(), timeout_s=0)
    async def function(_: str) -> None: ...

    return raising(function, SlotTimeoutError)


def transport(library: Any, ours: Any, identify: Any) -> Ask:
    """Pace the requests of a client."""

    async def named(request: Any) -> Any:
        return await identify(request.headers["x-who"]) if callable(identify) else None

    one = ours.RateLimitTransport(
        "1/minute",
        transport=library.MockTransport(lambda _: library.Response(200)),
        identifier=named,
        limiter=awaited(),
        timeout_s=0,
    )

    async def send(who: str) -> Any:
        async with library.AsyncClient(transport=one, trust_env=False) as client:
            return await client.get("http://api.example/", headers={"x-who": who})

    return raising(send, ours.RateLimitTimeout)


AWAITING = {
    "RateLimitMiddleware": middleware,
    "rate_limit": dependency,
    "Django under ASGI": django,
    "rate_limited": decorator,
    "rate_limited generator": generator,
    "paced": pace,
    "httpx": partial(transport, httpx, sluicegate.httpx),
    "httpx2": partial(transport, httpx2, sluicegate.httpx2),
}


async def name(subject: Any) -> str:
    """Return whom a request, a scope or an argument names."""
    if isinstance(subject, str):
        return subject
    if isinstance(subject, dict):
        return dict(subject["headers"])[b"x-who"].decode()
    return str(subject.headers["x-who"])


class Naming:
    """An object that is called with await."""

    async def __call__(self, subject: Any) -> str:
        """Return whom it names."""
        return await name(subject)


def plainly(subject: Any) -> Awaitable[str]:
    """Return what has to be awaited, from a plain function."""
    return name(subject)


KINDS: dict[str, Any] = {
    "function": name,
    "partial": partial(name),
    "object": Naming(),
    "plain": plainly,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", AWAITING)
async def test_it_is_awaited(place: str, kind: str) -> None:
    """Each client has buckets of its own."""
    ask = AWAITING[place](KINDS[kind])
    assert [await ask(who) for who in ("ann", "ann", "bob", "bob")] == [True, False, True, False]


@pytest.mark.parametrize("kind", ["function", "partial", "object"])
@pytest.mark.parametrize(("library", "ours"), [(httpx, sluicegate.httpx), (httpx2, sluicegate.httpx2)])
def test_transports_take_all_kinds(library: Any, ours: Any, kind: str) -> None:
    """As they are, too."""
    sender = library.MockTransport(lambda _: library.Response(200))
    ours.RateLimitTransport("1/minute", identifier=KINDS[kind], transport=sender, limiter=awaited())


# Where there is none


def decorated(decorate: Any) -> None:
    """Decorate a plain function."""

    @decorate
    def function(_: str) -> None: ...


@contextlib.contextmanager
def improper() -> Any:
    """Raise what Django's own error was made of."""
    try:
        yield
    except ImproperlyConfigured as error:
        raise error.__cause__ or error from None


def django_without_a_loop(identify: Any) -> None:
    """Build a project of Django for WSGI."""
    changed: dict[str, Any] = {
        "MIDDLEWARE": ["sluicegate.django.RateLimitMiddleware"],
        "SLUICEGATE": {"limiter": blocking(RULES), "identifiers": {"user": identify}},
    }
    with override_settings(**changed), improper():
        WSGIHandler()


REFUSING: dict[str, Callable[[Any], object]] = {
    "WSGIRateLimitMiddleware": lambda f: WSGIRateLimitMiddleware(
        lambda *_: [], limiter=blocking(RULES), identifiers={"user": f}
    ),
    "FlaskRateLimit": lambda f: FlaskRateLimit(Flask("x"), limiter=blocking(RULES), identifiers={"user": f}),
    "FlaskRateLimit.limit": lambda f: FlaskRateLimit(limiter=blocking()).limit("1/minute", identifier=f),
    "throttle": lambda f: throttle("1/minute", identifier=f, limiter=blocking()),
    "throttle of scopes": lambda f: throttle("1/minute per tenant", identifiers={"tenant": f}, limiter=blocking()),
    "Django under WSGI": django_without_a_loop,
    "rate_limited": lambda f: decorated(rate_limited("1/minute", identifier=f, limiter=blocking())),
    "paced": lambda f: decorated(paced("1/minute", identifier=f, limiter=blocking())),
    "httpx": lambda f: sluicegate.httpx.SyncRateLimitTransport("1/minute", identifier=f, limiter=blocking()),
    "httpx2": lambda f: sluicegate.httpx2.SyncRateLimitTransport("1/minute", identifier=f, limiter=blocking()),
}


@pytest.mark.parametrize("kind", ["function", "partial", "object"])
@pytest.mark.parametrize("place", REFUSING)
def test_it_is_refused(place: str, kind: str) -> None:
    """Before anything is served or sent, by an error that names the option and says why."""
    with pytest.raises(InvalidTypeError, match=r"identifier.*a coroutine function"):
        REFUSING[place](KINDS[kind])


@pytest.mark.parametrize("place", REFUSING)
def test_what_is_no_function(place: str) -> None:
    """It is refused there too."""
    with pytest.raises(InvalidInputError, match="identifier"):
        REFUSING[place]("ann")


@pytest.mark.parametrize("answer", [name("ann"), object(), 1.5, True], ids=["coroutine", "object", "float", "bool"])
def test_what_names_nobody_is_no_bucket_of_a_pacer(answer: Any) -> None:
    """A call whose function returned it is not made: it would count in a bucket of its own, or in another one each time."""
    calls: list[int] = []

    @paced("1/minute", identifier=lambda: answer, limiter=blocking())
    def function() -> None:
        calls.append(1)

    with pytest.raises(InvalidTypeError):
        function()
    assert not calls
