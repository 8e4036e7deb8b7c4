"""What a request has claimed is settled exactly once, and when: bodies, disconnects, exceptions and background work."""

import asyncio
import contextlib
import gc
import weakref
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from sluicegate import (
    InvalidTypeError,
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
)
from sluicegate.testing import FakeClock, RecordingLogger
from support.asgi_calls import http_scope
from support.serving import eventually

TEN = RateLimitRule(10, 1, "ip", name="ten")
ONE_AT_A_TIME = RateLimitRule.in_flight(1, scope="global", hold_seconds=60)
IP = "192.0.2.1"


class Client:
    """A client of an ASGI application, and the limiter in front of it.

    Args:
        app: The application.
        rules: The rules of every request.
        **options: Options of the middleware.
    """

    def __init__(self, app: Any, *rules: RateLimitRule, **options: Any) -> None:
        self.clock, self.logger = FakeClock(), RecordingLogger()
        self.limiter = TokenBucketAdapter(
            storage=MemoryStorage(clock=self.clock), rules={"*": list(rules)}, logger=self.logger
        )
        self.app = RateLimitMiddleware(app, limiter=self.limiter, logger=self.logger, **options)
        self.sent: list[dict[str, Any]] = []

    async def ask(self, path: str = "/", send: Any = None) -> int:
        """Ask, and return the status."""
        first = len(self.sent)

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def record(message: Any) -> None:
            self.sent.append(message)
            if send is not None:
                await send(message)

        await self.app(http_scope("GET", path, client=(IP, 4711)), receive, record)
        return int(self.sent[first]["status"])

    async def spent(self) -> int:
        """Return how many of ten tokens are charged."""
        left = await self.limiter.get_remaining(endpoint="*", identifier=IP)
        return 10 - left.value  # type: ignore[union-attr]

    async def is_free(self) -> bool:
        """Return whether a call may begin."""
        hold = (await self.limiter.acquire(endpoint="*", identifier={"ip": "192.0.2.99"})).value  # type: ignore[union-attr]
        if hold.allowed:
            await self.limiter.release(hold)
        return hold.allowed


def streams(gate: asyncio.Event, **fields: str) -> Any:
    """Return an application whose body has two parts, the second behind a gate."""

    async def parts() -> Any:
        yield b"first"
        await gate.wait()
        yield b"second"

    async def view(_: Request) -> Any:
        return StreamingResponse(parts(), headers=fields)

    return Starlette(routes=[Route("/", view)])


async def test_a_call_is_in_flight_until_its_body_has_been_sent() -> None:
    """Not only until the handler returns: a stream has begun then, and goes on."""
    gate = asyncio.Event()
    client = Client(streams(gate), ONE_AT_A_TIME)
    first = asyncio.create_task(client.ask())
    while len(client.sent) < 2:
        await asyncio.sleep(0)
    assert not await client.is_free()
    assert await client.ask() == 429
    gate.set()
    await first
    assert await client.is_free()


def start(status: int, length: str = "") -> dict[str, Any]:
    """Return the message that starts an answer."""
    headers = [(b"Content-Length", length.encode())] if length else []
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(part: bytes, *, more: bool = False) -> dict[str, Any]:
    """Return the message with a part of the body."""
    return {"type": "http.response.body", "body": part, "more_body": more}


# The messages of an answer, and with which of them the client has all of it, counted from 0.
ANSWERS: dict[str, tuple[list[Any], int]] = {
    "at once": ([start(200), body(b"it")], 1),
    "parts": ([start(200), body(b"it", more=True), body(b"is", more=True), body(b"")], 3),
    "counted parts": ([start(200, "4"), body(b"it", more=True), body(b"is", more=True), body(b"")], 2),
    "no body": ([start(204), body(b"")], 0),
    "an empty body": ([start(200, "0"), body(b"")], 0),
    "a file that the server sends": ([start(200), {"type": "http.response.pathsend", "path": "/etc/hostname"}], 9),
}


@pytest.mark.parametrize("rules", [(ONE_AT_A_TIME,), (TEN, ONE_AT_A_TIME)])
@pytest.mark.parametrize(("messages", "last"), ANSWERS.values(), ids=ANSWERS)
async def test_a_client_that_has_all_may_come_again_at_once(messages: list[Any], last: int, rules: Any) -> None:
    """Its call is in flight until then, and no longer: not while a background task runs, nor while the storage is told."""
    free: list[bool] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        free.append(await client.is_free())

    async def send(_: Any) -> None:
        free.append(await client.is_free())

    client = Client(app, *rules)
    await client.ask(send=send)
    assert free == [nth >= last for nth in range(len(messages) + 1)]
    assert await client.is_free()


async def test_what_heads_ask() -> None:
    """They have all with the header, whatever length it tells."""
    free: list[bool] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send(start(200, "4711"))

    async def send(_: Any) -> None:
        free.append(await client.is_free())

    client = Client(app, ONE_AT_A_TIME)
    await client.app({**http_scope("GET", "/", client=(IP, 1)), "method": "HEAD"}, None, send)
    assert free == [True]


async def test_a_websocket_that_the_application_closes_frees_its_slot_before() -> None:
    """Its client may connect again as soon as it is told."""
    free: list[bool] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    async def send(_: Any) -> None:
        free.append(await client.is_free())

    client = Client(app, ONE_AT_A_TIME)
    await client.app({**http_scope("GET", "/", client=(IP, 1)), "type": "websocket"}, None, send)
    assert free == [False, True]


@pytest.mark.parametrize("rules", [(ONE_AT_A_TIME,), (TEN, ONE_AT_A_TIME)])
async def test_a_cancelled_stream_frees_its_slot(rules: Any) -> None:
    """The client has gone, the server cancels: nothing waits for an end of its time."""
    client = Client(streams(asyncio.Event()), *rules)
    task = asyncio.create_task(client.ask())
    while len(client.sent) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.is_free()


async def test_a_client_that_goes_pays_what_was_reserved() -> None:
    """Its tokens were spent, though nobody has told how many."""
    client = Client(streams(asyncio.Event()), TEN, reserves=True, cost=lambda _: 4)
    task = asyncio.create_task(client.ask())
    while len(client.sent) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.spent() == 4


async def test_a_client_that_goes_pays_what_was_told() -> None:
    """The generator's end tells how far it came, whoever ended it."""

    async def view(request: Request) -> Any:
        async def parts() -> Any:
            done = 0
            try:
                for done in range(1, 9):
                    yield b"token"
                    if done == 3:
                        await asyncio.Event().wait()
            finally:
                request.state.rate_limit.commit(done)

        return StreamingResponse(parts())

    client = Client(Starlette(routes=[Route("/", view)]), TEN, reserves=True, cost=lambda _: 8)
    task = asyncio.create_task(client.ask())
    while len(client.sent) < 4:
        await asyncio.sleep(0)
    assert await client.spent() == 8
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.spent() == 3


async def test_a_send_that_fails_frees_the_slot() -> None:
    """Servers that tell of a client that has gone by an error, as ASGI 2.4 has it."""

    async def broken(_: Any) -> None:
        raise OSError

    client = Client(streams(asyncio.Event()), ONE_AT_A_TIME)
    with pytest.raises(Exception):  # noqa: B017, PT011 - Starlette's own kind
        await client.ask(send=broken)
    assert await client.is_free()


async def test_an_exception_is_an_answer_of_500() -> None:
    """`count_when` is asked about it; the exception goes on to the server."""
    seen: list[int] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise LookupError

    client = Client(app, TEN, count_when=lambda answer: seen.append(answer.status) or answer.status < 500)
    with pytest.raises(LookupError):
        await client.ask()
    assert seen == [500]
    assert await client.spent() == 0


async def test_the_application_is_asked_once_for_the_cost_of_an_answer() -> None:
    """It is settled before the last part of the body goes out, and not again when the request is over."""
    asked: list[int] = []
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("sent"))])
    client = Client(app, TEN, answer_cost=lambda answer: asked.append(answer.status) or 3)
    assert await client.ask() == 200
    assert asked == [200]
    assert await client.spent() == 3


class _BrokenError(Exception):
    """What an application raises; unlike a built-in one it can be referred to weakly."""


async def test_an_exception_of_the_application_is_not_kept() -> None:
    """It goes with all that its traceback holds as soon as it is handled, without a run of the garbage collector."""
    raised: list[weakref.ref[_BrokenError]] = []

    def broken() -> _BrokenError:
        error = _BrokenError()
        raised.append(weakref.ref(error))
        return error

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise broken()

    client = Client(app, TEN)
    gc.disable()
    try:
        with contextlib.suppress(_BrokenError):
            await client.ask()
        assert raised[0]() is None
    finally:
        gc.enable()


async def test_a_timeout_pays_what_was_reserved() -> None:
    """An application that is given up on has answered nothing."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.Event().wait()

    client = Client(app, TEN, ONE_AT_A_TIME, count_when=lambda _: False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.ask()
    assert await client.spent() == 1
    assert await client.is_free()


async def test_a_background_task_may_tell_the_cost() -> None:
    """It runs when the body has been sent, and the request is not over before it is."""

    async def view(request: Request) -> Any:
        return PlainTextResponse("sent", background=BackgroundTask(request.state.rate_limit.commit, 7))

    client = Client(Starlette(routes=[Route("/", view)]), TEN, reserves=True)
    assert await client.ask() == 200
    assert await client.spent() == 7


async def test_the_last_word_counts_and_is_charged_once() -> None:
    """Though several say it, and the answer ends in several places."""

    async def view(request: Request) -> Any:
        for cost in (9, 2, 5):
            request.state.rate_limit.commit(cost)
        return PlainTextResponse("sent")

    client = Client(Starlette(routes=[Route("/", view)]), TEN, reserves=True)
    outer = RateLimitMiddleware(client.app, limiter=client.limiter, reserves=True)
    client.app = outer
    assert await client.ask() == 200
    assert await client.spent() == 5


async def test_what_does_not_count_is_back_before_the_client_has_its_answer() -> None:
    """Else a client that comes again at once would be denied."""
    left: list[int] = []

    async def view(_: Request) -> Any:
        return PlainTextResponse("welcome")

    client = Client(Starlette(routes=[Route("/", view)]), TEN, count_when=lambda answer: answer.status == 401)

    async def look(message: Any) -> None:
        if message["type"] == "http.response.body":
            left.append(await client.spent())

    await client.ask(send=look)
    assert left == [0]


async def test_two_at_once_never_use_more_than_there_is() -> None:
    """The estimate is reserved before the work; who checks first and counts later lets both pass."""
    gate = asyncio.Event()
    client = Client(streams(gate, **{"X-Cost": "6"}), TEN, answer_cost="X-Cost", cost=lambda _: 6)
    first = asyncio.create_task(client.ask())
    while len(client.sent) < 2:
        await asyncio.sleep(0)
    assert await client.ask() == 429
    gate.set()
    await first
    assert await client.spent() == 6


async def test_a_cached_answer_costs_nothing_and_frees_its_slot() -> None:
    """A function of the answer tells that nobody worked for it."""

    async def view(_: Request) -> Any:
        return PlainTextResponse("again", headers={"X-Cache": "HIT"})

    client = Client(
        Starlette(routes=[Route("/", view)]),
        TEN,
        ONE_AT_A_TIME,
        cost=lambda _: 4,
        answer_cost=lambda answer: 0 if answer.fields.get("x-cache") == "HIT" else None,
    )
    assert [await client.ask() for _ in range(5)] == [200] * 5
    assert await client.spent() == 0


async def test_a_hop_to_another_model_is_charged_once() -> None:
    """The same rules round the same request, further inside, are the same claim."""

    async def view(_: Request) -> Any:
        return PlainTextResponse("answered", headers={"X-Cost": "3"})

    client = Client(Starlette(routes=[Route("/", view)]), TEN, ONE_AT_A_TIME, answer_cost="X-Cost", cost=lambda _: 5)
    inner = client.app
    client.app = RateLimitMiddleware(inner, limiter=client.limiter, answer_cost="X-Cost", cost=lambda _: 5)
    assert await client.ask() == 200
    assert all(name.lower() != b"x-cost" for name, _ in client.sent[0]["headers"])
    assert await client.spent() == 3


async def test_a_denied_stream_is_a_429_with_its_fields() -> None:
    """Never a connection that is dropped."""
    client = Client(streams(asyncio.Event()), RateLimitRule(10, 1, "ip"), reserves=True, cost=lambda _: 11)
    assert await client.ask() == 429
    assert {name for name, _ in client.sent[0]["headers"]} >= {b"ratelimit", b"content-type"}


async def test_a_websocket_is_in_flight_while_it_is_open() -> None:
    """It ends with its application."""
    client: Client

    async def feed(socket: WebSocket) -> None:
        await socket.accept()
        assert not await client.is_free()
        await socket.close()

    client = Client(Starlette(routes=[WebSocketRoute("/", feed)]), ONE_AT_A_TIME)
    scope = http_scope("GET", "/", client=(IP, 4711)) | {"type": "websocket", "subprotocols": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await client.app(scope, receive, send)
    assert sent == ["websocket.accept", "websocket.close"]
    assert await client.is_free()


async def test_a_long_call_is_renewed() -> None:
    """At three quarters of its time, so that it is still in flight when that is over."""
    gate = asyncio.Event()
    storage = MemoryStorage()
    client = Client(streams(gate), ONE_AT_A_TIME)
    client.limiter = TokenBucketAdapter(
        storage=storage, rules={"*": [RateLimitRule.in_flight(1, scope="global", hold_seconds=1)]}
    )
    client.app = RateLimitMiddleware(streams(gate), limiter=client.limiter)
    task = asyncio.create_task(client.ask())
    await asyncio.sleep(1.3)
    assert not await client.is_free()
    gate.set()
    await task
    assert await client.is_free()


async def test_a_cost_that_no_rule_can_have_is_logged() -> None:
    """The answer has gone out; what was reserved is charged."""

    async def view(request: Request) -> Any:
        request.state.rate_limit.commit({"unknown": 3})
        return PlainTextResponse("sent")

    client = Client(Starlette(routes=[Route("/", view)]), TEN, reserves=True, cost=lambda _: 2)
    assert await client.ask() == 200
    assert await client.spent() == 2
    assert any("not settled" in text for _, text, _ in client.logger.records)


async def test_a_limiter_without_reservations_is_refused() -> None:
    """At construction, by the names of the options."""
    with pytest.raises(InvalidTypeError, match="count_when, answer_cost, reserves"):
        RateLimitMiddleware(None, limiter=object(), reserves=True)  # type: ignore[arg-type]


def test_the_body_of_wsgi_holds_until_it_is_closed() -> None:
    """A client that goes in the middle ends its call, and parts are passed on as they come."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={"*": [ONE_AT_A_TIME]})
    closed: list[bool] = []

    class Parts:
        def __iter__(self) -> Any:
            return iter([b"1", b"2", b"3"])

        def close(self) -> None:
            closed.append(True)

    def app(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Parts()

    served = WSGIRateLimitMiddleware(app, limiter=limiter)

    def ask() -> tuple[str, Any]:
        statuses: list[str] = []
        body = served({"PATH_INFO": "/", "REMOTE_ADDR": IP}, lambda status, *_: statuses.append(status))
        return statuses[0], body

    status, body = ask()
    assert status == "200 OK"
    assert next(iter(body)) == b"1"
    assert ask()[0].startswith("429")
    body.close()
    assert closed == [True]
    assert ask()[0] == "200 OK"


WSGI_ANSWERS: dict[str, tuple[str, list[tuple[str, str]], Any, list[bool]]] = {
    "a list": ("200 OK", [], [b"it"], [True]),
    "parts": ("200 OK", [], (b"it", b"is"), [False, False]),
    "counted parts": ("200 OK", [("Content-Length", "4")], (b"it", b"is"), [False, True]),
    "no body": ("204 No Content", [], (b"",), [True]),
    "an empty body": ("200 OK", [("content-length", "0")], (), []),
}


@pytest.mark.parametrize("lazy", [False, True], ids=["", "which starts with its first part"])
@pytest.mark.parametrize("answer", WSGI_ANSWERS)
def test_a_client_of_wsgi_that_has_all_may_come_again_at_once(answer: str, lazy: bool) -> None:
    """Before the server gets the part with which it has: the server closes the body when the client is back already."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={"*": [ONE_AT_A_TIME]})
    status, headers, parts, expected = WSGI_ANSWERS[answer]

    def is_free() -> bool:
        hold: Any = limiter.acquire(endpoint="*", identifier=IP)
        if hold.value.allowed:
            limiter.release(hold.value)
        return bool(hold.value.allowed)

    def app(_: Any, start_response: Any) -> Any:
        start_response(status, headers)
        return parts if isinstance(parts, list) else iter(parts)

    def late_app(environ: Any, start_response: Any) -> Any:
        yield from app(environ, start_response)

    served = WSGIRateLimitMiddleware(late_app if lazy else app, limiter=limiter)
    sent = served({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": IP}, lambda *_: None)
    if not expected and not lazy:
        assert is_free()
    free = [is_free() for _ in sent]
    assert free == ([False] if lazy and answer == "a list" else expected)
    assert is_free()  # before `close`, which comes after the end of the body


def test_a_body_that_nobody_closes_holds_no_longer_than_its_rule_says() -> None:
    """A middleware further outside may drop it, against PEP 3333."""
    limiter = SyncTokenBucketAdapter(
        storage=MemoryStorage(), rules={"*": RateLimitRule.in_flight(1, scope="global", hold_seconds=0.5)}
    )

    def app(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"it"

    body = WSGIRateLimitMiddleware(app, limiter=limiter)(
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": IP}, lambda *_: None
    )
    assert not limiter.acquire(endpoint="*", identifier=IP).value.allowed  # type: ignore[union-attr]
    del body
    gc.collect()
    eventually(lambda: limiter.acquire(endpoint="*", identifier=IP).value.allowed)  # type: ignore[union-attr]


async def test_a_stream_that_reserves_is_in_flight_no_longer_than_its_rule_says() -> None:
    """Its process dies in the middle: the slot is free after `hold_seconds`, whatever else the request has reserved."""
    four_seconds = RateLimitRule.in_flight(1, scope="global", hold_seconds=4)
    client = Client(streams(asyncio.Event()), TEN, four_seconds, reserves=True, cost=lambda _: 4)
    task = asyncio.create_task(client.ask())
    while len(client.sent) < 2:
        await asyncio.sleep(0)
    client.clock.advance(3.9)
    assert not await client.is_free()
    client.clock.advance(0.1)
    assert await client.is_free()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
