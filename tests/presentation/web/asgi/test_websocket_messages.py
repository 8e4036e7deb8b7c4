"""Rules such as `MESSAGE /feed` in the ASGI middleware, with a real client and a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitCheckDenied,
    RateLimitedError,
    RateLimitMiddleware,
    RateLimitProtocol,
    RateLimitRule,
    RedisStorage,
    TokenBucketAdapter,
)
from sluicegate.testing import FailingStorage, FakeClock, RecordingEventBus, RecordingLogger
from support.asgi_calls import http_scope, send_scope
from support.redis_servers import RedisServer
from support.uvicorn_server import UvicornServer


class Feed:
    """An application whose websockets answer each text with the texts so far, and note how connections end."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.ends: list[tuple[int, str | None]] = []
        self.ended = asyncio.Event()
        routes = [WebSocketRoute("/feed/{name}", self.feed), Mount("/in", routes=[WebSocketRoute("/feed", self.feed)])]
        self.app = Starlette(routes=[*routes, Route("/feed/{name}", lambda _: PlainTextResponse("ok"))])

    async def feed(self, socket: WebSocket) -> None:
        """Serve a connection."""
        await socket.accept()
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                self.ends.append((message["code"], message.get("reason")))
                return
            self.got.append(message["text"])
            await socket.send_text("/".join(self.got))


def limited(feed: Feed, rules: dict[str, Any], storage: Any = None, **options: Any) -> Any:
    """Return the application with a middleware."""
    limiter = TokenBucketAdapter(
        storage=storage or MemoryStorage(clock=FakeClock()),
        rules=rules,
        logger=options.get("logger"),
        event_bus=options.pop("bus", None),
        on_storage_error=options.pop("on_storage_error", "allow"),
    )
    return RateLimitMiddleware(feed.app, limiter=limiter, **options)


@asynccontextmanager
async def client(server: UvicornServer, path: str = "/feed/a") -> AsyncIterator[ClientConnection]:
    """Connect to a server."""
    async with connect(f"ws://127.0.0.1:{server.port}{path}", proxy=None) as connection:
        yield connection


async def say(connection: ClientConnection, *texts: str) -> list[str]:
    """Send texts one after the other, and return what comes back for each; the close code at the end."""
    answers: list[str] = []
    try:
        for text in texts:
            await connection.send(text)
            answers.append(str(await connection.recv()))
    except ConnectionClosed as closed:
        answers.append("lost" if closed.rcvd is None else f"{closed.rcvd.code} {closed.rcvd.reason}")
    return answers


MESSAGES: dict[str, Any] = {"MESSAGE /feed/{name}": "2/minute"}


@pytest.mark.parametrize("code", [None, 1013, 4029])
async def test_one_too_many_closes_the_connection(code: int | None) -> None:
    """With 1008, or the code that was chosen. The application is told, and never sees the message."""
    feed, bus = Feed(), RecordingEventBus()
    options: dict[str, Any] = {} if code is None else {"denied_messages": code}
    with UvicornServer(limited(feed, MESSAGES, bus=bus, **options)) as server:
        async with client(server) as connection:
            assert await say(connection, "1", "2", "3", "4") == ["1", "1/2", f"{code or 1008} Too many messages"]
        async with client(server, "/feed/b") as connection:  # the same template, and the same bucket
            assert await say(connection, "5") == [f"{code or 1008} Too many messages"]
    assert feed.got == ["1", "2"]
    assert feed.ends == [(code or 1008, "Too many messages")] * 2
    denied = [event for event in bus.events if isinstance(event, RateLimitCheckDenied)]
    assert [(event.endpoint, event.identifier) for event in denied] == [("MESSAGE /feed/{name}", "127.0.0.1")] * 2


async def test_dropped_and_answered_messages() -> None:
    """The connection stays open: the application does not get the message, and the client nothing, or an answer."""
    feed = Feed()
    with UvicornServer(limited(feed, MESSAGES, denied_messages="drop")) as server:
        async with client(server) as connection:
            assert await say(connection, "1", "2") == ["1", "1/2"]
            await connection.send("3")
            await connection.close()
    assert feed.got == ["1", "2"]
    assert [code for code, _ in feed.ends] == [1000]

    async def wait(scope: Any, denial: Any) -> str:
        return f"{scope['path']}: {dict(denial.headers)['retry-after']} s"

    answers: list[tuple[Any, list[str]]] = [
        (wait, ["/feed/a: 30 s"] * 2),
        (lambda _scope, _denial: b"slow", ["b'slow'"] * 2),
        (lambda _scope, _denial: 1 / 0, ["1008 Too many messages"]),
        (lambda _scope, _denial: None, ["1008 Too many messages"]),
    ]
    for denied, expected in answers:
        feed, logger = Feed(), RecordingLogger()
        with UvicornServer(limited(feed, MESSAGES, denied_messages=denied, logger=logger)) as server:
            async with client(server) as connection:
                assert await say(connection, "1", "2", "3", "4") == ["1", "1/2", *expected]
        assert feed.got == ["1", "2"]
        failed = [message for level, message, _ in logger.records if level == "error"]
        assert failed == (["denied_messages failed; closed the connection."] if denied is answers[2][0] else [])


async def test_only_rules_for_messages_count_messages() -> None:
    """Neither rules of handshakes, of any method, nor of unmatched requests; and no function of the application is asked."""
    feed, asked = Feed(), list[str]()

    def nobody(_: Any) -> bool:
        asked.append("exempt_when")
        return False

    rules: dict[str, Any] = {"WEBSOCKET /feed/{name}": "9/minute", "* /in/feed": "9/minute", "*": "2/minute"}
    with UvicornServer(limited(feed, rules, exempt_when=nobody)) as server:
        for path in ("/feed/a", "/in/feed"):
            feed.got.clear()
            async with client(server, path) as connection:
                assert len(await say(connection, *"1234")) == 4
    assert asked == ["exempt_when"] * 2


async def test_rules_for_messages_count_nothing_else() -> None:
    """A client may call its method MESSAGE: that is a request like any other."""
    rules: dict[str, Any] = {"MESSAGE /feed/{name}": "9/minute", "* /feed/{name}": "1/minute"}
    app = limited(Feed(), rules)
    statuses = [(await send_scope(app, http_scope(method, "/feed/a"))).status for method in ("MESSAGE", "GET")]
    assert statuses[1] == 429
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=rules)
    for endpoint, limit in (("MESSAGE /feed/7", 9), ("GET /feed/7", 1)):  # as code asks by hand
        assert (await limiter.is_allowed(endpoint=endpoint, identifier="a")).value.limit == limit


async def test_the_storage_fails() -> None:
    """Messages pass; with the policy `deny` they do not."""
    for policy, expected in (("allow", ["1", "1/2", "1/2/3"]), ("deny", ["1008 Too many messages"])):
        feed = Feed()
        rule = RateLimitRule.per_minute(1)
        app = limited(feed, {"MESSAGE /feed/{name}": rule}, FailingStorage(), on_storage_error=policy)
        with UvicornServer(app) as server:
            async with client(server) as connection:
                assert await say(connection, "1", "2", "3") == expected


async def test_rules_that_come_while_the_connection_is_open() -> None:
    """They count from the next message on."""
    feed = Feed()
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})
    with UvicornServer(RateLimitMiddleware(feed.app, limiter=limiter)) as server:
        async with client(server) as connection:
            assert await say(connection, "1", "2") == ["1", "1/2"]
            limiter.rules.replace({"MESSAGE /feed/{name}": RateLimitRule.per_minute(1)})
            assert await say(connection, "3", "4") == ["1/2/3", "1008 Too many messages"]


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_two_middlewares_in_a_row(where: str, request: pytest.FixtureRequest) -> None:
    """Equal rules are charged once for a message, in memory and on Redis; a free function of the cost does not make it free."""
    feed, storages = Feed(), list[Any]()
    served: Any = feed.app
    for _ in range(2):
        server: RedisServer = request.getfixturevalue("redis_server")
        storage: Any = MemoryStorage() if where == "memory" else RedisStorage.from_url(server.url, deadline_ms=10_000)
        rules = {"MESSAGE /feed/{name}": RateLimitRule(3, 0.001, "ip")}
        limiter = TokenBucketAdapter(storage=storage, rules=rules, deadline_ms=10_000)
        storages.append(storage)
        served = RateLimitMiddleware(served, limiter=limiter, cost=lambda _: 0, count_when=lambda _: False)
    with UvicornServer(served) as web:
        async with client(web) as connection:
            assert await say(connection, "1", "2", "3", "4") == ["1", "1/2", "1/2/3", "1008 Too many messages"]
    for storage in storages:
        await storage.aclose()


async def test_what_the_application_sends_after_that() -> None:
    """A close is left out; anything else is the error that servers raise when the client has gone. A limited function too."""

    async def receive() -> Any:
        return {"type": "websocket.receive", "text": "x"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def app(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        assert [(await receive())["type"] for _ in range(4)] == ["websocket.receive"] * 2 + ["websocket.disconnect"] * 2
        await send({"type": "websocket.close"})
        with pytest.raises(OSError, match="Too many messages"):
            await send({"type": "websocket.send", "text": "x"})
        decision = await limiter.check(endpoint="busy", identifier="x")
        decision = await limiter.check(endpoint="busy", identifier="x")
        raise RateLimitedError("busy", decision)

    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"busy": RateLimitRule.per_day(1)})
    ours = TokenBucketAdapter(storage=MemoryStorage(), rules={"MESSAGE /": RateLimitRule.per_day(2)})
    await RateLimitMiddleware(app, limiter=ours)(http_scope(path="/", kind="websocket"), receive, send)
    assert sent == ["websocket.accept", "websocket.close"]


async def test_any_reading_of_the_path_counts() -> None:
    """Where the router behind is not known, a client cannot get round the rule by another spelling of the path."""
    feed = Feed()

    async def unknown(scope: Any, receive: Any, send: Any) -> None:
        await feed.app(scope | {"path": scope["path"].replace("//", "/")}, receive, send)

    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=dict(MESSAGES))
    with UvicornServer(RateLimitMiddleware(unknown, limiter=limiter)) as server:
        async with client(server, "//feed//a") as connection:
            assert (await say(connection, "1", "2", "3"))[-1] == "1008 Too many messages"


async def test_a_limiter_that_has_no_more_than_the_port() -> None:
    """It does not tell its rules: messages are not counted, as before."""
    feed, asked = Feed(), list[str]()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={})

    class Port:
        async def is_allowed(self, *, endpoint: str, identifier: Any, cost: int = 0) -> Any:
            asked.append(endpoint)
            return await limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)

    with UvicornServer(RateLimitMiddleware(feed.app, limiter=cast("RateLimitProtocol", Port()))) as server:
        async with client(server) as connection:
            assert await say(connection, "1") == ["1"]
    assert asked == ["WEBSOCKET /feed/a"]


@pytest.mark.parametrize("chosen", [1000, 2999, 5000, True, "close", None, 1.5])
def test_a_wrong_choice_is_refused(chosen: Any) -> None:
    """By an error that names the option."""
    with pytest.raises(InvalidInputError, match="denied_messages="):
        limited(Feed(), {}, denied_messages=chosen)
