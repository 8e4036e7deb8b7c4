"""The short way of a request answers as the long way does, at once when rules change, and takes nobody for somebody else."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from sluicegate import MemoryStorage, RateLimitRule, RedisStorage, RuleBook, TokenBucketAdapter
from sluicegate.domain.rule_book import KillSwitch, Listing, Override, RuleGroup
from sluicegate.presentation.web.asgi import RateLimitMiddleware
from sluicegate.presentation.web.asgi_short_way import no_short_way
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


async def ok(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer with a field of the application's own."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"ratelimit", b'"own";r=1')]})
    await send({"type": "http.response.body", "body": b"ok"})


def limited(rules: Any, clock: FakeClock, app: Any = ok, **options: Any) -> RateLimitMiddleware:
    """Return the middleware round an application."""
    limiter = TokenBucketAdapter(
        storage=MemoryStorage(clock=clock), rules=rules, logger=RecordingLogger(), clock=clock, wall_clock=lambda: NOW
    )
    return RateLimitMiddleware(app, limiter=limiter, logger=RecordingLogger(), **options)


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
    ],
    ids=str,
)
async def test_both_ways_answer_alike(book: str, options: Any) -> None:
    """Whatever is asked, and whatever the rules are, every message is the same without the short way."""
    clock, random = FakeClock(), Random(book)
    short, long = (limited(BOOKS[book], clock, **options) for _ in range(2))
    long._short_way = no_short_way
    statuses: set[int] = set()
    for _ in range(400):
        method, path = random.choice(METHODS), random.choice(PATHS)
        client = random.choice((CLIENTS[1], random.choice(CLIENTS)))
        headers = random.choice(
            [
                [],
                [("X-Forwarded-For", "192.0.2.7")],
                [("X-Forwarded-For", "192.0.2.8, 10.0.0.2")],
                [("X-Forwarded-For", "x")],
            ]
        )
        root = random.choice(["", "", "/items", "/other"])
        scopes = [http_scope(method, path, client=client, headers=headers, root_path=root) for _ in range(2)]
        one, other = [await send_scope(app, scope) for app, scope in zip((short, long), scopes, strict=True)]
        assert one.messages == other.messages, (method, path, client, headers, root)
        statuses.add(one.status)
        clock.advance(random.choice([0, 0, 0, 0, 0, 0, 0, 0, 0.5, 3]))
    assert statuses == {200, 429}


async def test_most_requests_go_the_short_way() -> None:
    """What is counted by its address and one rule is answered without the long way."""
    app = limited(ROUTES, FakeClock())

    async def no_long_way(_: Any) -> None:
        raise AssertionError

    app._check = no_long_way  # type: ignore[method-assign, assignment]
    for method, path in (("GET", "/items/1"), ("HEAD", "/items/2"), ("PUT", "/any/a")):
        assert (await send_scope(app, http_scope(method, path))).status == 200
    assert (await get(app, "/items/3")).status == 429
    assert (await get(app, "/nowhere")).status == 200


async def test_other_rules_show_at_once() -> None:
    """Rules that are replaced, and a switch that is thrown, hold from the next request on, with their own policy."""
    app = limited({"GET /a": FEW}, FakeClock())
    rules = app._adapter.rules  # type: ignore[union-attr]
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


async def test_more_clients_than_are_remembered() -> None:
    """Each of ten thousand addresses has a bucket of its own, each time it comes."""
    app = limited({"GET /": RateLimitRule(2, 1, "ip")}, FakeClock())
    clients = [(f"10.1.{n >> 8}.{n & 255}", 1) for n in range(10_000)]
    for status in (200, 200, 429):
        assert {(await get(app, client=client)).status for client in clients} == {status}


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


async def test_a_failure_on_the_short_way_is_answered_on_the_long_one() -> None:
    """What the short way raises is met again by the long way, where the failure policy answers."""

    class BrokenClock:
        def now_us(self) -> int:
            raise OSError

    limiter = TokenBucketAdapter(
        storage=MemoryStorage(clock=BrokenClock()),
        rules={"GET /": FEW},
        on_storage_error="deny",
        logger=RecordingLogger(),
    )
    assert (await get(RateLimitMiddleware(ok, limiter=limiter))).status == 503


async def test_a_proxy_that_appears_late_is_noticed() -> None:
    """After a thousand requests without a proxy only some are looked at; a proxy that then speaks is noticed soon, and once."""
    logger = RecordingLogger()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": MORE}, logger=RecordingLogger())
    app = RateLimitMiddleware(ok, limiter=limiter, logger=logger)
    for _ in range(1_500):
        await get(app, client=("10.0.0.1", 1))
    assert logger.records == []
    for _ in range(200):
        await get(app, client=("10.0.0.1", 1), headers=[("X-Forwarded-For", "203.0.113.9")])
    assert ["trusted_proxies is empty" in message for _, message, _ in logger.records] == [True]


async def test_many_at_once_while_rules_change(redis_server: RedisServer) -> None:
    """Requests that are under way while rules change are answered by the old ones, later ones by the new ones, and told so."""
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
    """A quota that nobody counted is not told, also where the answer had to be waited for."""
    storage = RedisStorage.from_url("redis://127.0.0.1:1/0", deadline_ms=500)
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /": FEW}, logger=RecordingLogger())
    answer = await get(RateLimitMiddleware(ok, limiter=limiter))
    await storage.aclose()
    assert answer.status == 200
    assert "ratelimit-policy" not in answer.headers
