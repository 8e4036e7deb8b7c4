"""Every integration behind one interface, so that one table of behaviours can be held against all of them.

Each builds an application with one route, `/items/{name}`, and limits it. Its view answers `item`; `404` raises what the
framework has for a page that is not there, `own` returns a response of the view's own making, and `busy` calls a function that
may run once. `cost-5` tells in the field `X-Cost` that it cost 5, and `commit-1` commits 1.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import Http404, HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path as django_path
from fastapi import Depends, FastAPI, Response
from fastapi.exceptions import HTTPException
from flask import Flask, abort
from flask import Response as FlaskResponse
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sluicegate import (
    FlaskRateLimit,
    MemoryStorage,
    RateLimitMiddleware,
    RuleBook,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
    exempt,
    rate_limited,
)
from sluicegate.fastapi import install_rate_limits, rate_limit
from sluicegate.testing import FakeClock, RecordingLogger
from support.asgi_calls import http_scope
from support.django_project import Routes


@dataclass
class Wanted:
    """What a test wants of an application.

    Args:
        rules: The rules of its one route.
        book: What else the limiter's rules say.
        options: Options of the integration, under the names that most have: `identifier`, `cost`, `exempt_when`, `enabled`,
            `retry_after_ms`, `headers`, `on_denied` (True: one of the framework's own kind).
        exempt: Whether the view is exempt.
        outer: Rules of a middleware around it all; empty: there is none.
    """

    rules: Any
    book: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    exempt: bool = False
    outer: Any = ()
    clock: FakeClock = field(default_factory=FakeClock)
    logger: RecordingLogger = field(default_factory=RecordingLogger)

    def awaited(self, rules: Any) -> TokenBucketAdapter:
        """Return a limiter with these rules and the rest of the book."""
        return TokenBucketAdapter(
            storage=MemoryStorage(clock=self.clock), rules=RuleBook(rules, **self.book), logger=self.logger
        )

    def blocking(self, rules: Any) -> SyncTokenBucketAdapter:
        """Return the same for code without an event loop."""
        return SyncTokenBucketAdapter(
            storage=MemoryStorage(clock=self.clock), rules=RuleBook(rules, **self.book), logger=self.logger
        )

    def view(self, function: Any) -> Any:
        """Return the view, exempt or not."""
        return exempt(function) if self.exempt else function

    def for_middleware(self, own_answer: Any) -> dict[str, Any]:
        """Return the options of a middleware: `identifier` is the function of the scope `ip`."""
        options = dict(self.options)
        if "identifier" in options:
            options["identifiers"] = {"ip": options.pop("identifier")}
        if options.pop("on_denied", False):
            options["on_denied"] = own_answer
        return options | {"logger": self.logger}

    def beside_code(self) -> dict[str, Any]:
        """Return the options of what stands beside a view."""
        return {name: value for name, value in self.options.items() if name != "on_denied"}


@dataclass
class Told:
    """An answer. Fields of several lines are one, joined by commas."""

    status: int
    fields: dict[str, str]
    body: bytes


@dataclass
class Served:
    """An application that is served.

    Args:
        limiter: Its limiter.
        endpoint: What users call its route.
        ask: Sends it a request from an address.
    """

    limiter: Any
    endpoint: str
    ask: Callable[[str, str], Awaitable[Told]]

    async def get(self, name: str = "1", client: str = "192.0.2.1") -> Told:
        """Ask for an item."""
        return await self.ask(f"/items/{name}", client)

    async def statuses(self, *names: str, client: str = "192.0.2.1") -> list[int]:
        """Ask for items one after the other."""
        return [(await self.get(name, client)).status for name in names]

    async def call(self, verb: str, **arguments: Any) -> Any:
        """Call the limiter, which may have to be awaited."""
        answer = getattr(self.limiter, verb)(endpoint=self.endpoint, **arguments)
        return await answer if isinstance(answer, Awaitable) else answer


def busy(kind: type) -> Any:
    """Return a function that may run once a minute, as the framework calls it."""
    limiter: Any = kind(storage=MemoryStorage(clock=FakeClock()), rules={})
    if kind is TokenBucketAdapter:

        @rate_limited("1/minute", limiter=limiter, name="busy")
        async def awaited() -> str:
            return "was free"

        return awaited

    @rate_limited("1/minute", limiter=limiter, name="busy")
    def blocking() -> str:
        return "was free"

    return blocking


def told_cost(name: str) -> str:
    """Return what an item's view says it cost."""
    return name.removeprefix("cost-") if name.startswith("cost-") else "0"


# Serving


def joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return header fields, those of several lines as one."""
    found: dict[str, str] = {}
    for name, value in fields:
        lower = name.lower()
        found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found


def over_asgi(app: Any) -> Callable[[str, str], Awaitable[Told]]:
    """Serve an ASGI application."""

    async def ask(path: str, client: str) -> Told:
        sent: list[dict[str, Any]] = []
        incoming = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop(0)
            import asyncio  # noqa: PLC0415 - a server has nothing more to say while the answer is made

            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(http_scope("GET", path, client=(client, 4711)), receive, send)
        start = sent[0]
        fields = joined((name.decode(), value.decode()) for name, value in start["headers"])
        return Told(start["status"], fields, b"".join(message.get("body", b"") for message in sent))

    return ask


def over_wsgi(app: Any) -> Callable[[str, str], Awaitable[Told]]:
    """Serve a WSGI application."""

    async def ask(path: str, client: str) -> Told:
        from werkzeug.test import Client, EnvironBuilder  # noqa: PLC0415

        builder = EnvironBuilder(path=path, environ_base={"REMOTE_ADDR": client})
        with Client(app).open(builder) as answer:  # as a server closes what it has sent
            return Told(answer.status_code, joined(answer.headers.items()), answer.data)

    return ask


# Middlewares, whose rules name the route


def plain_asgi(wanted: Wanted) -> Served:
    """An ASGI application without a framework."""
    free = busy(TokenBucketAdapter)

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        name = scope["path"].rpartition("/")[2]
        body = (await free()).encode() if name == "busy" else b"item"
        status = 404 if name == "404" else 200
        if name == "commit-1":
            scope["state"]["rate_limit"].commit(1)
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"X-Cost", told_cost(name).encode())]}
        )
        await send({"type": "http.response.body", "body": body})

    def own_answer(_: Any, denial: Any) -> Any:
        return PlainTextResponse(f"slow down: {denial.status}", 418)

    limiter = wanted.awaited({"GET /items/{name}": wanted.rules} if wanted.rules else {})
    served: Any = RateLimitMiddleware(app, limiter=limiter, **wanted.for_middleware(own_answer))
    if wanted.outer:
        served = RateLimitMiddleware(served, limiter=wanted.awaited({"*": wanted.outer}))
    return Served(limiter, "GET /items/{name}", over_asgi(served))


async def starlette_view(request: Request) -> Response:
    """Answer."""
    name = request.path_params["name"]
    if name == "404":
        raise HTTPException(404)
    if name == "busy":
        return PlainTextResponse(await request.app.state.busy())
    if name == "commit-1":
        request.state.rate_limit.commit(1)
    return PlainTextResponse("item", headers={"X-Cost": told_cost(name)})


def starlette(wanted: Wanted) -> Served:
    """A Starlette application with the middleware."""

    async def view(request: Request) -> Response:
        return await starlette_view(request)

    app = Starlette(routes=[Route("/items/{name}", wanted.view(view))])
    app.state.busy = busy(TokenBucketAdapter)

    def own_answer(_: Any, denial: Any) -> Any:
        return PlainTextResponse(f"slow down: {denial.status}", 418)

    limiter = wanted.awaited({"GET /items/{name}": wanted.rules} if wanted.rules else {})
    app.add_middleware(RateLimitMiddleware, limiter=limiter, **wanted.for_middleware(own_answer))  # type: ignore[arg-type]
    if wanted.outer:
        app.add_middleware(RateLimitMiddleware, limiter=wanted.awaited({"*": wanted.outer}))  # type: ignore[arg-type]
    return Served(limiter, "GET /items/{name}", over_asgi(app))


def plain_wsgi(wanted: Wanted) -> Served:
    """A WSGI application without a framework."""
    free = busy(SyncTokenBucketAdapter)

    def app(environ: Any, start_response: Any) -> Any:
        name = environ["PATH_INFO"].rpartition("/")[2]
        body = free().encode() if name == "busy" else b"item"
        if name == "commit-1":
            environ["sluicegate.rate_limit"].commit(1)
        start_response("404 Not Found" if name == "404" else "200 OK", [("X-Cost", told_cost(name))])
        return [body]

    def own_answer(_: Any, denial: Any) -> Any:
        return FlaskResponse(f"slow down: {denial.status}", 418)

    limiter = wanted.blocking({"GET /items/{name}": wanted.rules} if wanted.rules else {})
    served: Any = WSGIRateLimitMiddleware(app, limiter=limiter, **wanted.for_middleware(own_answer))
    if wanted.outer:
        served = WSGIRateLimitMiddleware(served, limiter=wanted.blocking({"*": wanted.outer}))
    return Served(limiter, "GET /items/{name}", over_wsgi(served))


def flask_answer(_: Any, denial: Any) -> Any:
    """Answer a denied request in the application's own way."""
    return f"slow down: {denial.status}", 418


def flask_view(name: str, free: Any) -> Any:
    """Answer."""
    if name == "404":
        abort(404)
    if name == "busy":
        return free()
    if name == "commit-1":
        flask_request.rate_limit.commit(1)  # type: ignore[attr-defined]
    return FlaskResponse("item") if name == "own" else ("item", {"X-Cost": told_cost(name)})


def flask(wanted: Wanted) -> Served:
    """A Flask application with the extension."""
    app = Flask(__name__)
    free = busy(SyncTokenBucketAdapter)

    def view(name: str) -> Any:
        return flask_view(name, free)

    app.get("/items/<name>")(wanted.view(view))
    limiter = wanted.blocking({"GET /items/<name>": wanted.rules} if wanted.rules else {})
    FlaskRateLimit(app, limiter=limiter, **wanted.for_middleware(flask_answer))
    served: Any = app
    if wanted.outer:
        served = WSGIRateLimitMiddleware(app, limiter=wanted.blocking({"*": wanted.outer}))
    return Served(limiter, "GET /items/<name>", over_wsgi(served))


def django_answer(_: Any, denial: Any) -> Any:
    """Answer a denied request in the application's own way."""
    return HttpResponse(f"slow down: {denial.status}", status=418)


def django_sync(wanted: Wanted) -> Served:
    """A Django application under WSGI with the middleware."""
    free = busy(SyncTokenBucketAdapter)

    def view(request: HttpRequest, name: str) -> HttpResponse:
        if name == "404":
            raise Http404
        if name == "commit-1":
            request.rate_limit.commit(1)  # type: ignore[attr-defined]
        return HttpResponse(free() if name == "busy" else "item", headers={"X-Cost": told_cost(name)})

    limiter = wanted.blocking({"GET /items/<str:name>": wanted.rules} if wanted.rules else {})
    options = {"limiter": limiter, **wanted.for_middleware(django_answer)}
    routes = Routes(django_path("items/<str:name>", wanted.view(view)))
    with override_settings(SLUICEGATE=options, ROOT_URLCONF=routes):
        served: Any = WSGIHandler()
    served = with_routes(served, routes)
    if wanted.outer:
        served = WSGIRateLimitMiddleware(served, limiter=wanted.blocking({"*": wanted.outer}))
    return Served(limiter, "GET /items/<str:name>", over_wsgi(served))


def with_routes(handler: Any, routes: Any) -> Any:
    """Return a WSGI handler that has these routes while it serves."""

    def serve(environ: Any, start_response: Any) -> Any:
        with override_settings(ROOT_URLCONF=routes):
            return handler(environ, start_response)

    return serve


def django_async(wanted: Wanted) -> Served:
    """A Django application under ASGI, with an async view."""
    free = busy(TokenBucketAdapter)

    async def view(request: HttpRequest, name: str) -> HttpResponse:
        if name == "404":
            raise Http404
        if name == "commit-1":
            request.rate_limit.commit(1)  # type: ignore[attr-defined]
        return HttpResponse(await free() if name == "busy" else "item", headers={"X-Cost": told_cost(name)})

    limiter = wanted.awaited({"GET /items/<str:name>": wanted.rules} if wanted.rules else {})
    options = {"limiter": limiter, **wanted.for_middleware(django_answer)}
    routes = Routes(django_path("items/<str:name>", wanted.view(view)))
    with override_settings(SLUICEGATE=options, ROOT_URLCONF=routes):
        handler = ASGIHandler()

    async def served(scope: Any, receive: Any, send: Any) -> None:
        with override_settings(ROOT_URLCONF=routes):
            await handler(scope, receive, send)

    app: Any = served
    if wanted.outer:
        app = RateLimitMiddleware(served, limiter=wanted.awaited({"*": wanted.outer}))
    return Served(limiter, "GET /items/<str:name>", over_asgi(app))


# Rules beside a view


def fastapi_app(wanted: Wanted) -> FastAPI:
    """Return a FastAPI application on which rate limits are installed."""

    def own_answer(_: Any, denial: Any) -> Any:
        return PlainTextResponse(f"slow down: {denial.status}", 418)

    app = FastAPI()
    install_rate_limits(app, on_denied=own_answer if wanted.options.get("on_denied") else None)
    if wanted.outer:
        app.add_middleware(RateLimitMiddleware, limiter=wanted.awaited({"*": wanted.outer}))  # type: ignore[arg-type]
    return app


async def fastapi_item(name: str, free: Any, request: Request | None = None) -> Any:
    """Answer."""
    if name == "404":
        raise HTTPException(404)
    if name == "busy":
        return await free()
    if name == "commit-1":
        assert request is not None
        request.state.rate_limit.commit(1)
    if name.startswith("cost-"):
        return Response("item", headers={"X-Cost": told_cost(name)})
    return Response("item") if name == "own" else "item"


def fastapi_dependency(wanted: Wanted) -> Served:
    """A FastAPI endpoint with a dependency."""
    app, limiter, free = fastapi_app(wanted), wanted.awaited({}), busy(TokenBucketAdapter)

    async def view(name: str, request: Request) -> Any:
        return await fastapi_item(name, free, request)

    limit = rate_limit(*wanted.rules, limiter=limiter, **wanted.beside_code())
    app.get("/items/{name}", dependencies=[Depends(limit)])(wanted.view(view))
    return Served(limiter, "GET /items/{name}", over_asgi(app))


def fastapi_decorated(wanted: Wanted) -> Served:
    """A FastAPI endpoint that is decorated."""
    app, limiter, free = fastapi_app(wanted), wanted.awaited({}), busy(TokenBucketAdapter)
    options = wanted.beside_code()
    options.setdefault("identifier", lambda name, request: request.client.host)

    @app.get("/items/{name}")
    @rate_limited(*wanted.rules, limiter=limiter, name="view", **options)
    async def view(name: str, request: Request) -> Any:
        return await fastapi_item(name, free)

    return Served(limiter, "view", over_asgi(app))


def flask_limit(wanted: Wanted) -> Served:
    """A Flask view with a decorator of the extension."""
    app, limiter, free = Flask(__name__), wanted.blocking({}), busy(SyncTokenBucketAdapter)
    options = dict(wanted.options)
    extension_options = {
        name: options.pop(name) for name in ("enabled", "retry_after_ms", "headers") if name in options
    }
    if options.pop("on_denied", False):
        extension_options["on_denied"] = flask_answer
    extension = FlaskRateLimit(app, limiter=limiter, logger=wanted.logger, **extension_options)

    def view(name: str) -> Any:
        return flask_view(name, free)

    app.get("/items/<name>")(extension.limit(*wanted.rules, **options)(wanted.view(view)))
    served: Any = app
    if wanted.outer:
        served = WSGIRateLimitMiddleware(app, limiter=wanted.blocking({"*": wanted.outer}))
    return Served(limiter, "GET /items/<name>", over_wsgi(served))


def flask_decorated(wanted: Wanted) -> Served:
    """A Flask view that is decorated."""
    app, limiter, free = Flask(__name__), wanted.blocking({}), busy(SyncTokenBucketAdapter)
    options = wanted.beside_code()
    options.setdefault("identifier", lambda name: flask_request.remote_addr)
    extension_options = {"on_denied": flask_answer} if wanted.options.get("on_denied") else {}
    FlaskRateLimit(app, limiter=wanted.blocking({}), **extension_options)  # type: ignore[arg-type]

    @app.get("/items/<name>")
    @rate_limited(*wanted.rules, limiter=limiter, name="view", **options)
    def view(name: str) -> Any:
        return flask_view(name, free)

    return Served(limiter, "view", over_wsgi(app))


def drf_throttle(wanted: Wanted) -> Served:
    """A view of Django REST framework with a throttle, behind the middleware, which answers a `RateLimitedError`."""
    # These want Django's settings, which support.django_project has.
    from rest_framework.exceptions import NotFound  # noqa: PLC0415
    from rest_framework.response import Response as RestResponse  # noqa: PLC0415
    from rest_framework.views import APIView  # noqa: PLC0415

    from sluicegate.rest_framework import throttle  # noqa: PLC0415

    limiter, free = wanted.blocking({}), busy(SyncTokenBucketAdapter)
    options = wanted.beside_code() | {"logger": wanted.logger}

    class View(APIView):
        throttle_classes = (throttle(*wanted.rules, limiter=limiter, **options),)

        def get(self, request: Any, name: str) -> Any:
            if name == "404":
                raise NotFound
            if name == "commit-1":
                request.rate_limit.commit(1)
            if name == "busy":
                return RestResponse(free())
            return HttpResponse("item") if name == "own" else RestResponse("item", headers={"X-Cost": told_cost(name)})

    routes = Routes(django_path("items/<str:name>", wanted.view(View.as_view())))
    middleware_options = {"limiter": wanted.blocking({"*": wanted.outer} if wanted.outer else {})}
    if wanted.outer:
        middleware_options = {"limiter": wanted.blocking({"GET /items/<str:name>": wanted.outer})}
    with override_settings(SLUICEGATE=middleware_options, ROOT_URLCONF=routes):
        handler = WSGIHandler()
    return Served(limiter, "GET /items/<str:name>", over_wsgi(with_routes(handler, routes)))


MIDDLEWARES: dict[str, Callable[[Wanted], Served]] = {
    "ASGI": plain_asgi,
    "Starlette": starlette,
    "WSGI": plain_wsgi,
    "Flask": flask,
    "Django": django_sync,
    "Django, async": django_async,
}
BESIDE_CODE: dict[str, Callable[[Wanted], Served]] = {
    "FastAPI's dependency": fastapi_dependency,
    "Flask's decorator": flask_limit,
    "REST framework's throttle": drf_throttle,
    "decorated, FastAPI": fastapi_decorated,
    "decorated, Flask": flask_decorated,
}
FACES = {**MIDDLEWARES, **BESIDE_CODE}
AWAITING = {"ASGI", "Starlette", "Django, async", "FastAPI's dependency", "decorated, FastAPI"}
DECORATED = {"decorated, FastAPI", "decorated, Flask"}

__all__ = ["AWAITING", "BESIDE_CODE", "DECORATED", "FACES", "MIDDLEWARES", "Served", "Wanted"]
