"""The middleware leaves an application alone, and tells its clients the truth."""

import asyncio
import json
import math
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import http_sf
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from sluicegate import (
    Failure,
    InvalidInputError,
    MemoryStorage,
    RateLimitError,
    RateLimitResult,
    RateLimitRule,
    Success,
    TokenBucketAdapter,
)
from sluicegate.asgi import RateLimitMiddleware
from sluicegate.testing import FailingStorage, FakeClock, RecordingLogger
from support.asgi_calls import get, http_scope, send_scope

ONE = RateLimitRule(1, 1, "ip", name="one")
TWO = RateLimitRule(2, 2, "ip", name="two")


async def hello(_: Request) -> Response:
    """Answer."""
    return PlainTextResponse("hello")


def limited(app: Any = None, rules: Any = None, **options: Any) -> RateLimitMiddleware:
    """Return the middleware round an application, on a clock that stands still."""
    app = app or Starlette(routes=[Route("/{rest:path}", hello, methods=["GET", "POST", "OPTIONS"])])
    storage = options.pop("storage", None) or MemoryStorage(clock=FakeClock())
    limiter = TokenBucketAdapter(storage=storage, rules=rules or {"GET /": TWO}, logger=RecordingLogger())
    return RateLimitMiddleware(app, limiter=limiter, **options)


async def test_headers_of_both_kinds_of_answers() -> None:
    """Allowed responses carry the quota; a denied one carries it with 429, a wait and problem details."""
    app = limited(headers="both")
    answers = [await get(app) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].body == b"hello"
    for answer, left in zip(answers, (1, 0, 0), strict=True):
        assert http_sf.parse(answer.headers["ratelimit-policy"].encode(), tltype="list") == [("two", {"q": 2, "w": 60})]
        ((name, parameters),) = http_sf.parse(answer.headers["ratelimit"].encode(), tltype="list")
        assert (name, parameters["r"]) == ("two", left)
        assert answer.headers["x-ratelimit-remaining"] == str(left)
    assert answers[2].headers["retry-after"] == "30"
    assert answers[2].headers["cache-control"] == "no-store"
    assert json.loads(answers[2].body)["violated-policies"] == ["two"]


async def test_head_is_counted_with_get_and_denied_without_a_body() -> None:
    """HEAD takes from GET's bucket, and its denial has the length of a body but none."""
    app = limited(rules={"GET /": ONE})
    assert (await send_scope(app, http_scope("HEAD"))).status == 200
    answer = await send_scope(app, http_scope("HEAD"))
    assert answer.status == 429
    assert answer.body == b""
    assert int(answer.headers["content-length"]) > 0


async def test_paths_without_a_rule_are_left_alone() -> None:
    """No rule: no count and no fields. A rule named `*` is for all of these together."""
    app = limited()
    assert "ratelimit" not in (await get(app, "/other")).headers
    app = limited(rules={"*": TWO})
    assert [(await get(app, path)).status for path in ("/a", "/b", "/a\nb", "/c" * 3_000)] == [200, 200, 429, 429]


async def test_exemptions() -> None:
    """Exempt are exact paths and whole segments below a prefix, not what only begins alike."""
    app = limited(rules={"*": ONE}, exempt=["/health", "/static/*"])
    for path in ("/health", "/static", "/static/a/b", "/health"):
        answer = await get(app, path)
        assert answer.status == 200
        assert "ratelimit" not in answer.headers
    assert [(await get(app, path)).status for path in ("/healthy", "/health/", "/statics")] == [200, 429, 429]


@pytest.mark.parametrize("exempt", [["health"], ["/a*"], ["/*/b"], "/health", ["/*"]])
def test_bad_exemptions(exempt: Any) -> None:
    """An exemption that is no path, or would be all of them, is refused."""
    with pytest.raises(InvalidInputError, match="exempt"):
        limited(exempt=exempt)


async def test_preflights_pass_and_other_options_requests_do_not() -> None:
    """A browser's preflight takes no quota; an OPTIONS request without its fields is a request like any other."""
    app = limited(rules={"*": ONE})
    preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "POST")]
    for _ in range(5):
        assert (await send_scope(app, http_scope("OPTIONS", "/", headers=preflight))).status == 200
    statuses = [(await send_scope(app, http_scope("OPTIONS", "/", headers=preflight[:1]))).status for _ in range(2)]
    assert statuses == [200, 429]


async def test_cors_outside_keeps_a_denial_readable() -> None:
    """With CORSMiddleware outside, a denied response has its fields too."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": ONE})
    app = Starlette(
        routes=[Route("/", hello)],
        middleware=[
            Middleware(CORSMiddleware, allow_origins=["*"], expose_headers=["RateLimit", "Retry-After"]),
            Middleware(RateLimitMiddleware, limiter=limiter),
        ],
    )
    answers = [await get(app, headers=[("Origin", "https://a.example")]) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].headers["access-control-allow-origin"] == "*"
    assert "RateLimit" in answers[1].headers["access-control-expose-headers"]


async def test_exceptions_pass_through_and_the_application_runs_once() -> None:
    """What the application raises is raised, and it is not called again."""
    calls = 0

    async def broken(*_: Any) -> None:
        nonlocal calls
        calls += 1
        raise LookupError("of the application's own")

    with pytest.raises(LookupError):
        await get(limited(broken))
    assert calls == 1


async def test_streaming_background_tasks_and_context_pass_through() -> None:
    """Chunks come one by one, a background task runs, and context variables are seen on both sides."""
    outer: ContextVar[str] = ContextVar("outer")
    inner: ContextVar[str] = ContextVar("inner", default="unset")
    ran: list[str] = []

    async def endpoint(_: Request) -> Response:
        inner.set("set within")
        ran.append(outer.get())

        async def chunks() -> Any:
            for part in ("a", "b", "c"):
                yield part

        return StreamingResponse(chunks(), background=BackgroundTask(ran.append, "background"))

    outer.set("from outside")
    answer = await get(limited(Starlette(routes=[Route("/", endpoint)])))
    starts = [message for message in answer.messages if message["type"] == "http.response.start"]
    assert len(starts) == 1
    assert [message["body"] for message in answer.messages[1:]] == [b"a", b"b", b"c", b""]
    assert ran == ["from outside", "background"]
    assert inner.get() == "set within"


async def test_a_request_body_and_a_disconnect_reach_the_application() -> None:
    """The middleware reads nothing of what the client sends."""
    got: list[Any] = []

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        got.extend([await receive(), await receive()])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    answer = await send_scope(limited(endpoint), http_scope("GET"), b"body")
    assert answer.status == 204
    assert got[0]["body"] == b"body"
    assert got[1] == {"type": "http.disconnect"}


async def test_lifespan_passes_through_and_closes_only_an_own_limiter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up and shutdown reach the application; then a limiter that the middleware built itself is closed."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        seen.append("up")
        yield
        seen.append("down")

    monkeypatch.setenv("SLUICEGATE_STORAGE_URL", "memory://")
    app = RateLimitMiddleware(Starlette(lifespan=lifespan), rules={"GET /": ONE})
    assert app._owned is not None

    async def closed() -> None:
        seen.append("closed")

    monkeypatch.setattr(app._owned, "aclose", closed)
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert seen == ["up", "down", "closed"]


async def test_websockets() -> None:
    """A handshake is counted by its own rule; a denied one is closed, or answered with 429 where the server can."""

    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    app = limited(Starlette(routes=[WebSocketRoute("/feed/{room}", feed)]), rules={"WEBSOCKET /feed/{room}": ONE})
    answer = await send_scope(app, http_scope(path="/feed/a", kind="websocket"))
    assert answer.status == 101
    assert answer.headers["ratelimit"] == '"one";r=0;t=60'
    answer = await send_scope(app, http_scope(path="/feed/b", kind="websocket"))
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "Too many requests"}]
    scope = http_scope(path="/feed/b", kind="websocket", extensions={"websocket.http.response": {}})
    answer = await send_scope(app, scope)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "60"
    assert json.loads(answer.body)["status"] == 429


@pytest.mark.parametrize("is_async", [False, True])
async def test_another_answer(is_async: bool) -> None:
    """An application's own response takes the place of the problem details; what it leaves out is added."""

    def teapot(_: Any, denial: Any) -> Response:
        return JSONResponse({"wait": denial.decision.result.retry_after}, 418, headers={"Retry-After": "99"})

    async def later(scope: Any, denial: Any) -> Response:
        await asyncio.sleep(0)
        return teapot(scope, denial)

    app = limited(rules={"GET /": ONE}, on_denied=later if is_async else teapot)
    await get(app)
    answer = await get(app)
    assert answer.status == 418
    assert answer.body == b'{"wait":60.0}'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "99"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["ratelimit"] == '"one";r=0;t=60'


async def test_another_answer_that_fails() -> None:
    """If the application's own response cannot be made, the denial stands, in ours."""

    def broken(*_: Any) -> Any:
        raise LookupError

    logger = RecordingLogger()
    app = limited(rules={"GET /": ONE}, on_denied=broken, logger=logger)
    await get(app)
    assert (await get(app)).status == 429
    assert [message for _, message, _ in logger.records] == ["on_denied failed."]


async def test_users_that_authentication_verified() -> None:
    """`scope["user"]` first, then `request.state.user_id`; a client without either is counted by address."""
    rule = RateLimitRule(1, 1, "user")
    app = limited(rules={"GET /": rule})
    alice, bob = {"user": SimpleUser("alice")}, {"state": {"user_id": 7}}
    assert (await get(app, **alice)).status == 200
    assert (await get(app, **alice, client=("198.51.100.1", 1))).status == 429
    assert (await get(app, **bob)).status == 200
    assert (await get(app, **bob, client=("198.51.100.1", 1))).status == 429
    assert (await get(app)).status == 200
    assert (await get(app)).status == 429
    assert (await get(app, client=("198.51.100.1", 1))).status == 200


async def test_own_scopes_by_functions_sync_and_async() -> None:
    """A scope of the application's own is named by its function; several scopes on one endpoint are all counted."""

    async def tenant(scope: Any) -> str | None:
        await asyncio.sleep(0)
        return dict(scope["headers"]).get(b"x-tenant", b"").decode() or None

    rules = {"GET /": (RateLimitRule(10, 1, "ip"), RateLimitRule(1, 1, "tenant"), RateLimitRule(3, 1, "global"))}
    app = limited(rules=rules, identifiers={"tenant": tenant})
    tenants = ["a", "a", "b", "c", "d"]
    assert [(await get(app, headers=[("X-Tenant", name)])).status for name in tenants] == [200, 429, 200, 200, 429]


async def test_a_function_that_fails_leaves_the_address() -> None:
    """An identifier function's error is logged, and the client is counted all the same."""

    def broken(_: Any) -> str:
        raise LookupError

    logger = RecordingLogger()
    app = limited(rules={"GET /": RateLimitRule(1, 1, "tenant")}, identifiers={"tenant": broken}, logger=logger)
    assert [(await get(app)).status for _ in range(2)] == [200, 429]
    assert logger.records[0][1] == "An identifier function failed."


def test_a_scope_without_a_function_is_refused_at_the_start() -> None:
    """A rule with a scope that no function names is an error when the application starts, not when requests come."""
    with pytest.raises(InvalidInputError, match="no function for the scope 'tenant'"):
        limited(rules={"GET /": RateLimitRule(1, 1, "tenant")})


async def test_user_and_provider() -> None:
    """`user_provider` counts a user's requests for each value of the template's `{provider}`."""
    app = limited(rules={"GET /sync/{provider}/run": RateLimitRule(1, 1, "user_provider")})
    alice = {"user": SimpleUser("alice")}
    paths = ["/sync/x/run", "/sync/x/run", "/sync/y/run", "/sync/y/run"]
    assert [(await get(app, path, **alice)).status for path in paths] == [200, 429, 200, 429]


async def test_no_client_address() -> None:
    """Without an address there is no bucket that all share: requests pass, and a warning says what to set."""
    logger = RecordingLogger()
    app = limited(rules={"GET /": ONE}, logger=logger)
    assert [(await get(app, client=None)).status for _ in range(3)] == [200, 200, 200]
    assert [(level, "trusted_proxies=('unix',)" in text) for level, text, _ in logger.records] == [("warning", True)]
    app = limited(rules={"GET /": ONE}, trusted_proxies=["unix"])
    header = [("X-Forwarded-For", "203.0.113.9")]
    assert [(await get(app, client=None, headers=header)).status for _ in range(2)] == [200, 429]


async def test_an_untrusted_proxy_is_noticed() -> None:
    """If a local peer forwards requests and no proxy is trusted, one warning says that all its clients are counted as one."""
    logger = RecordingLogger()
    app = limited(rules={"GET /": TWO}, logger=logger)
    for _ in range(3):
        await get(app, client=("10.0.0.1", 1), headers=[("X-Forwarded-For", "203.0.113.9")])
    assert len(logger.records) == 1
    assert "trusted_proxies is empty" in logger.records[0][1]


@pytest.mark.parametrize(("policy", "status"), [("allow", 200), ("deny", 503), ("local", 200)])
async def test_while_the_storage_fails(policy: Any, status: int) -> None:
    """The failure policy answers: let pass without fields, refuse with 503, or count locally with fields."""
    limiter = TokenBucketAdapter(storage=FailingStorage(), rules={"GET /": TWO}, on_storage_error=policy)
    answer = await get(RateLimitMiddleware(Starlette(routes=[Route("/", hello)]), limiter=limiter))
    assert answer.status == status
    assert ("ratelimit" in answer.headers) == (policy == "local")
    assert answer.headers.get("retry-after") == ("1" if policy == "deny" else None)


async def test_any_limiter_will_do() -> None:
    """A limiter with no more than the port gets the method, the path and the address."""
    asked: list[Any] = []

    class Theirs:
        async def is_allowed(self, *, endpoint: str, identifier: Any, cost: int = 0) -> Any:
            asked.append((endpoint, identifier, cost))
            if len(asked) == 3:
                return Failure(RateLimitError("connection", "away"))
            if len(asked) == 4:
                raise LookupError
            wait = 0.0 if len(asked) == 1 else math.inf
            return Success(RateLimitResult(len(asked) == 1, wait, 0, 5, 9))

        async def get_remaining(self, **_: Any) -> Any: ...

        async def reset(self, **_: Any) -> Any: ...

    app = RateLimitMiddleware(Starlette(routes=[Route("/{rest:path}", hello)]), limiter=Theirs())
    first, second, third, fourth = [await get(app, "/a"), await get(app, "/a" * 2_000), await get(app), await get(app)]
    assert first.headers["ratelimit"] == '"default";r=0;t=9'
    assert second.status == 429
    assert "retry-after" not in second.headers
    assert third.status == fourth.status == 200
    assert asked[:2] == [("GET /a", "192.0.2.1", 0), ("*", "192.0.2.1", 0)]


async def test_in_a_sub_application_and_under_a_root_path() -> None:
    """Inside a mounted application rules name its own paths; outside, the whole ones; a server's root path is no part."""
    sub = Starlette(
        routes=[Route("/items/{id}", hello)],
        middleware=[
            Middleware(
                RateLimitMiddleware,
                limiter=TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /items/{id}": ONE}),
            )
        ],
    )
    app = Starlette(routes=[Mount("/sub", app=sub)])
    assert [(await get(app, f"/sub/items/{number}")).status for number in range(2)] == [200, 429]
    app = limited(FastAPI(), rules={"GET /docs": ONE})
    assert [(await get(app, "/api/docs", root_path="/api")).status for _ in range(2)] == [200, 429]
    app = limited(rules={"GET /apis": ONE})
    assert [(await get(app, "/apis", root_path="/api")).status for _ in range(2)] == [200, 429]


async def test_an_outer_middlewares_fields_and_the_applications_own() -> None:
    """The draft's fields are lists, which two limiters share; a legacy field that is there already stays."""
    app = limited(limited(rules={"GET /": TWO}, headers="both"), rules={"GET /": ONE}, headers="both")
    message = (await get(app)).messages[0]
    assert [value for name, value in message["headers"] if name == b"ratelimit"] == [
        b'"two";r=1;t=30',
        b'"one";r=0;t=60',
    ]
    assert [value for name, value in message["headers"] if name == b"x-ratelimit-limit"] == [b"2"]


async def test_with_httpx_and_many_at_once() -> None:
    """Of many requests at once exactly the capacity pass."""
    app = limited(rules={"GET /": RateLimitRule(20, 1, "ip")})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(100)))
    assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": {"GET /": ONE}, "limiter": TokenBucketAdapter(storage=MemoryStorage(), rules={})}, "rules"),
        ({"rules": {"GET /{id": ONE}}, "braces"),
        ({"rules": {}, "headers": "draft-3"}, "headers='draft-3'"),
        ({"rules": {}, "trusted_proxies": ["everyone"]}, "trusted_proxies"),
        ({"rules": {}, "cost": 3}, "cost=3"),
        ({"rules": {}, "identifiers": {"tenant": "x"}}, r"identifiers\['tenant'\]='x'"),
        ({"rules": {}, "on_denied": "no"}, "on_denied='no'"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    """A wrong option is an error when the application starts, and names itself."""
    with pytest.raises(InvalidInputError, match=message):
        RateLimitMiddleware(Starlette(), **options)
