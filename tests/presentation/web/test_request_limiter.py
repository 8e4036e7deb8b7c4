"""Every face of the one request limiter decides alike, at once when rules change, and takes no client for another."""

import asyncio
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from random import Random
from typing import Any

import pytest

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RedisStorage,
    RuleBook,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
)
from sluicegate.domain.rules.rule_book_entries import KillSwitch, Listing, Override, RuleGroup
from sluicegate.testing import FakeClock, RecordingLogger
from support.asgi_calls import get, http_scope, send_scope
from support.redis_servers import RedisServer

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ONE = RateLimitRule(1, 6, "ip", name="one")
FEW = RateLimitRule(2, 6, "ip", name="few")
MORE = RateLimitRule(5, 30, "ip", name="more")
ROUTES = {"GET /items/{id}": FEW, "GET /items/special": MORE, "POST /items": (FEW, MORE), "* /any/{rest:path}": MORE}
BOOKS: dict[str, Any] = {
    "routes": RuleBook(ROUTES),
    "users beside": RuleBook(ROUTES | {"GET /me": (FEW, RateLimitRule(3, 3, "user"))}),
    "everybody": RuleBook(ROUTES | {"GET /me": RateLimitRule(3, 3, "global")}),
    "unmatched": RuleBook(ROUTES, unmatched=[MORE]),
    "a group": RuleBook(
        ROUTES, groups=[RuleGroup(name="all", rules=(MORE,), endpoints=("GET /items/{id}", "GET /me"))]
    ),
    "lists": RuleBook(
        ROUTES,
        allow=[Listing(scope="ip", identifier="192.0.2.1")],
        deny=[Listing(scope="ip", identifier="2001:db8::/48")],
    ),
    "lists of users": RuleBook(ROUTES, deny=[Listing(scope="user", identifier="eve")]),
    "an override": RuleBook(
        ROUTES, overrides=[Override(policy="few", identifier="192.0.2.1", rule=RateLimitRule(9, 1, "ip"))]
    ),
    "shadow": RuleBook({"GET /items/{id}": RateLimitRule(2, 6, "ip", shadow=True), "GET /me": ONE}),
    "disabled": RuleBook({"GET /items/{id}": RateLimitRule(2, 6, "ip", enabled=False), "GET /me": ONE}),
    "switched off": RuleBook(ROUTES | {"GET /me": ONE}, kill_switches=[KillSwitch(policies=("few",))]),
    "switched off for a while": RuleBook(
        ROUTES | {"GET /me": ONE}, kill_switches=[KillSwitch(policies=("few",), until=NOW + timedelta(seconds=1))]
    ),
}
METHODS = ("GET", "GET", "HEAD", "POST", "POST", "PUT", "OPTIONS", "get", "BREW")
PATHS = (
    "/items/1",
    "/items/2",
    "/items/special",
    "/items",
    "/items",
    "/any/a/b",
    "/me",
    "/nowhere",
    "/items/1\n",
    "/exempt/a",
)
CLIENTS = (
    ("192.0.2.1", 1),
    ("192.0.2.2", 1),
    ("::ffff:192.0.2.1", 1),
    ("2001:db8::1", 1),
    ("2001:db8::2", 1),
    ("10.0.0.1", 1),
    ("strange", 1),
    ("", 1),
    None,
)


HEADERS: tuple[list[tuple[str, str]], ...] = (
    [],
    [("X-Forwarded-For", "192.0.2.7")],
    [("X-Forwarded-For", "192.0.2.8, 10.0.0.2")],
    [("X-Forwarded-For", "x")],
    [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")],
)


async def ok(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi_ok(_environ: Any, start_response: Any) -> list[bytes]:
    """Answer the same."""
    start_response("200 OK", [("x-own", "1")])
    return [b"ok"]


def environ_of(scope: dict[str, Any]) -> dict[str, Any]:
    """Return the environment that a WSGI server makes of a request."""
    fields = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in scope["headers"]}
    client = {"REMOTE_ADDR": scope["client"][0]} if scope["client"] else {}
    return {"REQUEST_METHOD": scope["method"], "PATH_INFO": scope["path"], **client, **fields}


def answer_of(app: Any, environ: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the fields and the body that a WSGI application answers."""
    started: list[Any] = []
    body = b"".join(app(environ, lambda status, headers, *_: started.append((status, headers))))
    status, headers = started[0]
    assert status == f"{int(status[:3])} {HTTPStatus(int(status[:3])).phrase}"
    return int(status[:3]), dict(headers), body


def limited(rules: Any, clock: FakeClock, app: Any = ok, **options: Any) -> RateLimitMiddleware:
    """Return the middleware round an ASGI application."""
    limiter = TokenBucketAdapter(
        storage=MemoryStorage(clock=clock), rules=rules, logger=RecordingLogger(), clock=clock, wall_clock=lambda: NOW
    )
    return RateLimitMiddleware(app, limiter=limiter, logger=RecordingLogger(), **options)


def wsgi_limited(rules: Any, clock: FakeClock, **options: Any) -> WSGIRateLimitMiddleware:
    """Return the middleware round a WSGI application."""
    limiter = SyncTokenBucketAdapter(
        storage=MemoryStorage(clock=clock), rules=rules, logger=RecordingLogger(), clock=clock, wall_clock=lambda: NOW
    )
    return WSGIRateLimitMiddleware(wsgi_ok, limiter=limiter, logger=RecordingLogger(), **options)


@pytest.mark.parametrize("book", BOOKS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": "none"},
        {"headers": "both"},
        {"exempt": ["/exempt/*", "/items/2"]},
        {"trusted_proxies": ["10.0.0.0/8"]},
        {"ipv4_prefix": 24},
        {"cost": lambda request: 2},
        {"identifiers": {"ip": lambda request: "everyone"}},
    ],
    ids=str,
)
async def test_asgi_and_wsgi_answer_alike(book: str, options: Any) -> None:
    """The same requests get the same status, fields and body, whatever the rules and the options are."""
    clock, random = FakeClock(), Random(book)
    users = {"user": lambda request: None}
    asgi = limited(BOOKS[book], clock, **options)
    wsgi = wsgi_limited(BOOKS[book], clock, **options | {"identifiers": users | options.get("identifiers", {})})
    statuses: set[int] = set()
    for _ in range(300):
        client = random.choice((CLIENTS[1], random.choice(CLIENTS)))
        scope = http_scope(random.choice(METHODS), random.choice(PATHS), client=client, headers=random.choice(HEADERS))
        environ = environ_of(scope)
        answer = await send_scope(asgi, scope)
        assert (answer.status, answer.headers, answer.body) == answer_of(wsgi, environ), environ
        statuses.add(answer.status)
        clock.advance(random.choice([0, 0, 0, 0, 0, 0, 0, 0, 0.5, 3]))
    assert statuses == {200, 429}


@pytest.mark.parametrize("cost", [-1, 1.5, None, "1", True])
async def test_a_cost_that_is_none(cost: Any) -> None:
    """A cost function that returns no whole number costs the rule's own cost, and an error is logged."""
    asgi, wsgi, loggers = _with_cost(cost)
    for status in (200, 200, 429):
        assert (await get(asgi)).status == status
        assert answer_of(wsgi, environ_of(http_scope()))[0] == status
    for logger in loggers:
        assert [(level, "no whole number" in text) for level, text, _ in logger.records] == [("error", True)]


async def test_a_cost_of_nothing() -> None:
    """A cost function's 0 means that the request is free: it is not counted, and told nothing."""
    asgi, wsgi, loggers = _with_cost(0)
    for _ in range(5):
        answer = await get(asgi)
        assert (answer.status, answer.headers) == (200, {"x-own": "1"})
        assert answer_of(wsgi, environ_of(http_scope())) == (200, {"x-own": "1"}, b"ok")
    assert [logger.records for logger in loggers] == [[], []]


async def test_a_denied_client_gets_nothing_for_free() -> None:
    """The deny list holds for requests that cost nothing."""
    book = RuleBook({"GET /": MORE}, deny=[Listing(scope="ip", identifier="192.0.2.0/24")])
    app = limited(book, FakeClock(), cost=lambda _: 0)
    assert [(await get(app, client=(client, 1))).status for client in ("192.0.2.9", "198.51.100.1")] == [429, 200]


def _with_cost(
    cost: Any,
) -> tuple[RateLimitMiddleware, WSGIRateLimitMiddleware, tuple[RecordingLogger, RecordingLogger]]:
    loggers = RecordingLogger(), RecordingLogger()
    rules = {"GET /": RateLimitRule(6, 6, "ip", cost=3)}
    clock = FakeClock()
    asgi = RateLimitMiddleware(
        ok,
        limiter=TokenBucketAdapter(storage=MemoryStorage(clock=clock), rules=rules),
        cost=lambda _: cost,
        logger=loggers[0],
    )
    wsgi = WSGIRateLimitMiddleware(
        wsgi_ok,
        limiter=SyncTokenBucketAdapter(storage=MemoryStorage(clock=clock), rules=rules),
        cost=lambda _: cost,
        logger=loggers[1],
    )
    return asgi, wsgi, loggers


async def test_other_rules_show_at_once() -> None:
    """Rules that are replaced, and a switch that is thrown, hold from the next request on, with their own policy."""
    app = limited({"GET /a": FEW}, FakeClock())
    rules = app._limiter.rules  # type: ignore[attr-defined]
    assert (await get(app, "/a")).headers["ratelimit-policy"] == '"few";q=2;w=20'
    rules.replace({"GET /a": MORE, "GET /b": FEW})
    assert (await get(app, "/a")).headers["ratelimit-policy"] == '"more";q=5;w=10'
    assert [(await get(app, "/b")).status for _ in range(3)] == [200, 200, 429]
    rules.switch_off("few")
    assert (await get(app, "/b")).status == 200
    rules.switch_on("few")
    assert (await get(app, "/b")).status == 429
    rules.replace({"GET /{any}": MORE})
    assert (await get(app, "/b")).headers["ratelimit-policy"] == '"more";q=5;w=10'
    rules.replace({"GET /{any}": RateLimitRule(1, 1, "global")})
    assert [(await get(app, "/b", client=(f"192.0.2.{n}", 1))).status for n in range(2)] == [200, 429]


@pytest.mark.parametrize("options", [{}, {"path_readings": "exact"}], ids=["any reading", "exact"])
async def test_rules_that_are_replaced_in_the_midst_of_a_request(options: Any) -> None:
    """A request that found its endpoint in the rules before is counted by those, not let pass uncounted by the new ones."""

    def reload(_: Any) -> str:
        for middleware in (asgi, wsgi):
            middleware._limiter.rules.replace({"GET /items/{id:int}": user, "POST /{id}": MORE})
        return "bob"

    user = RateLimitRule(1, 1, "user", name="one")
    clock, identifiers = FakeClock(), {"user": reload}
    asgi: Any = limited({"GET /items/{id}": user}, clock, identifiers=identifiers, **options)
    wsgi: Any = wsgi_limited({"GET /items/{id}": user}, clock, identifiers=identifiers, **options)
    first = await get(asgi, "/items/1"), answer_of(wsgi, environ_of(http_scope("GET", "/items/1")))
    assert [first[0].headers.get("ratelimit"), first[1][1].get("ratelimit")] == ['"one";r=0;t=60'] * 2
    assert (await get(asgi, "/items/1")).status == 200  # the new rules' own bucket


async def test_a_message_that_is_sent_many_times() -> None:
    """An application may keep its messages: they are not changed, so that fields do not add up."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body"})

    middleware = limited({"GET /": MORE}, FakeClock(), app)
    answers = [await get(middleware) for _ in range(3)]
    assert [len(answer.messages[0]["headers"]) for answer in answers] == [3, 3, 3]
    assert start == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


async def test_headers_of_any_kind() -> None:
    """The application's header list may be missing, a tuple, or an iterator."""
    for own in ({}, {"headers": ((b"a", b"b"),)}, {"headers": iter([(b"a", b"b")])}):

        async def app(_scope: Any, _receive: Any, send: Any, own: Any = own) -> None:
            await send({"type": "http.response.start", "status": 200} | own)
            await send({"type": "http.response.body"})

        answer = await get(limited({"GET /": MORE}, FakeClock(), app))
        assert answer.headers["ratelimit"] == '"more";r=4;t=2'
        assert answer.headers.get("a") == ("b" if own else None)


async def test_many_at_once_while_rules_change(redis_server: RedisServer) -> None:
    """Requests that wait while rules change are answered by the old rules, later ones by the new; the fields say which."""
    few, more = RateLimitRule(2, 0.001, "ip", name="few"), RateLimitRule(5, 0.001, "ip", name="more")
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /": few}, deadline_ms=10_000, logger=RecordingLogger())
    app = RateLimitMiddleware(ok, limiter=limiter)
    before = [asyncio.ensure_future(get(app, client=("192.0.2.1", 1))) for _ in range(3)]
    await asyncio.sleep(0)
    limiter.rules.replace({"GET /": more})
    after = [asyncio.ensure_future(get(app, client=("192.0.2.2", 1))) for _ in range(6)]
    answers = await asyncio.gather(*before, *after)
    await storage.aclose()
    assert [answer.status for answer in answers] == [200, 200, 429, 200, 200, 200, 200, 200, 429]
    assert [answer.headers["ratelimit-policy"][:6] for answer in answers] == ['"few";'] * 3 + ['"more"'] * 6


async def test_nothing_is_told_while_redis_is_away() -> None:
    """A quota that was not counted is not told."""
    storage = RedisStorage.from_url("redis://127.0.0.1:1/0", deadline_ms=500)
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /": FEW}, logger=RecordingLogger())
    answer = await get(RateLimitMiddleware(ok, limiter=limiter))
    await storage.aclose()
    assert answer.status == 200
    assert "ratelimit-policy" not in answer.headers


async def test_a_proxy_is_noticed_whenever_it_appears() -> None:
    """An untrusted proxy is reported once, however many requests came without it; a public peer's header is not."""
    logger = RecordingLogger()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": MORE}, logger=RecordingLogger())
    app = RateLimitMiddleware(ok, limiter=limiter, logger=logger)
    forwarded = [("X-Forwarded-For", "203.0.113.9")]
    for _ in range(100):
        await get(app, client=("10.0.0.1", 1))
    await get(app, client=("8.8.8.8", 1), headers=forwarded)
    assert logger.records == []
    for _ in range(3):
        await get(app, client=("10.0.0.1", 1), headers=forwarded)
    assert ["trusted_proxies is empty" in message for _, message, _ in logger.records] == [True]


async def test_proxies_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A middleware that is told no proxies believes those of the settings; one that is told some believes these alone."""
    monkeypatch.setenv("SLUICEGATE_TRUSTED_PROXIES", "192.0.2.0/24")
    monkeypatch.setenv("SLUICEGATE_FORWARDED_HEADER", "CF-Connecting-IP")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def statuses(**options: Any) -> list[int]:
        limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={"*": ONE})
        middleware = RateLimitMiddleware(app, limiter=limiter, **options)
        fields = [[("cf-connecting-ip", f"203.0.113.{number}")] for number in (1, 2, 2)]
        return [(await get(middleware, headers=headers)).status for headers in fields]

    assert await statuses() == [200, 200, 429]
    assert await statuses(trusted_proxies=()) == [200, 429, 429]
    monkeypatch.setenv("SLUICEGATE_FORWARDED_HEADER", "x-client-ip")
    with pytest.raises(InvalidInputError, match="SLUICEGATE_TRUSTED_PROXIES, .*: forwarded_header='x-client-ip'"):
        await statuses()


def test_proxies_of_the_settings_without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """WSGI applications get the same, and a number of hops."""
    monkeypatch.setenv("SLUICEGATE_TRUSTED_PROXIES", "192.0.2.0/24")
    monkeypatch.setenv("SLUICEGATE_TRUSTED_HOPS", "2")
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={"*": ONE})

    def app(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    def status(forwarded: str) -> str:
        seen: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_X_FORWARDED_FOR": forwarded,
        }
        list(middleware(environ, lambda line, *_: seen.append(line[:3])))
        return seen[0]

    middleware = WSGIRateLimitMiddleware(app, limiter=limiter)
    hops = ("203.0.113.1, 198.51.100.7", "203.0.113.2, 198.51.100.7", "9.9.9.9, 203.0.113.2, 198.51.100.8")
    assert [status(forwarded) for forwarded in hops] == ["200", "200", "429"]
