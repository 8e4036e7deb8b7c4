"""The transports of both libraries, with and without an event loop, keep to what servers say."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sluicegate.httpx
import sluicegate.httpx2
from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RedisStorage,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from support.redis_servers import RedisServer
from support.uvicorn_server import UvicornServer

URL = "http://api.example/"
REFUSED = (429, {"retry-after-ms": "150"})
MUTE = (429, {})
FINE = (200, {})


class Side:
    """One of the four transports, called in plain calls."""

    def __init__(self, library: Any, ours: Any, *, waits: bool) -> None:
        self.library = library
        self.waits = waits
        self.transport = ours.RateLimitTransport if waits else ours.SyncRateLimitTransport
        self.timeout = ours.RateLimitTimeout
        self.storage: Any = MemoryStorage()

    def limiter(self) -> Any:
        """Return a limiter of another process, on the same storage."""
        kind: Any = TokenBucketAdapter if self.waits else SyncTokenBucketAdapter
        return kind(storage=self.storage, rules={})

    def pace(self, inner: Any = None, *rules: str, **options: Any) -> Any:
        """Return a transport."""
        return self.transport(
            *(rules or ("1000/second burst 1000",)), transport=inner, limiter=self.limiter(), **options
        )

    def scripted(self, *answers: tuple[int, dict[str, str]], seen: list[float]) -> Any:
        """Return a transport that gives answers in their order, the last one for ever."""
        left = list(answers)

        def answer(request: Any) -> Any:
            seen.append(time.monotonic())
            status, fields = left.pop(0) if len(left) > 1 else left[0]
            return self.library.Response(status, headers=fields)

        return self.library.MockTransport(answer)

    def send(self, transport: Any, *requests: Any) -> list[Any]:
        """Send requests one after the other; return statuses, or errors."""

        async def awaited() -> list[Any]:
            async with self.library.AsyncClient(transport=transport, trust_env=False) as client:
                return [await one(client) for one in calls]

        def collect(request: tuple[str, str, Any]) -> Callable[[Any], Any]:
            method, url, content = request

            async def one(client: Any) -> Any:
                try:
                    return (await client.request(method, url, content=content)).status_code
                except self.library.TransportError as error:
                    return error

            return one

        if self.waits:
            calls = [collect(request) for request in requests]
            return asyncio.run(awaited())
        answers: list[Any] = []
        with self.library.Client(transport=transport, trust_env=False) as client:
            for method, url, content in requests:
                try:
                    answers.append(client.request(method, url, content=content).status_code)
                except self.library.TransportError as error:
                    answers.append(error)
        return answers


@pytest.fixture(
    params=[
        (httpx, sluicegate.httpx, True),
        (httpx, sluicegate.httpx, False),
        (httpx2, sluicegate.httpx2, True),
        (httpx2, sluicegate.httpx2, False),
    ],
    ids=["httpx async", "httpx sync", "httpx2 async", "httpx2 sync"],
)
def side(request: pytest.FixtureRequest) -> Side:
    """Each of the four."""
    library, ours, waits = request.param
    return Side(library, ours, waits=waits)


GET = ("GET", URL, None)


def test_a_refusal_is_repeated_after_its_pause(side: Side) -> None:
    """The request is sent again, no earlier than the server has said."""
    seen: list[float] = []
    assert side.send(side.pace(side.scripted(REFUSED, FINE, seen=seen)), GET) == [200]
    assert len(seen) == 2
    assert seen[1] - seen[0] >= 0.149


def test_a_pause_is_a_floor_for_later_calls(side: Side) -> None:
    """A call that is not repeated holds back the next one; other hosts go on."""
    seen: list[float] = []
    transport = side.pace(side.scripted(REFUSED, FINE, seen=seen), retries=0)
    assert side.send(transport, GET, ("GET", "http://other.example/", None), GET) == [429, 200, 200]
    assert seen[1] - seen[0] < 0.149
    assert seen[2] - seen[0] >= 0.149


def test_a_pause_holds_for_all_processes(side: Side) -> None:
    """A worker that has not heard of a pause itself finds it in the storage."""
    seen: list[float] = []
    side.send(side.pace(side.scripted((429, {"retry-after-ms": "400"}), seen=seen), retries=0), GET)
    assert side.send(side.pace(side.scripted(FINE, seen=seen)), GET) == [200]
    assert seen[1] - seen[0] >= 0.39


class PlainStorage:
    """A storage that has no reservations."""

    def __init__(self) -> None:
        inner = MemoryStorage()
        self.traits = inner.traits
        for verb in ("take", "peek", "refund", "reset"):
            setattr(self, verb, getattr(inner, verb))
            setattr(self, f"{verb}_blocking", getattr(inner, f"{verb}_blocking"))
        self.aclose = inner.aclose


def test_a_pause_holds_without_reservations(side: Side) -> None:
    """In the process that has heard of it."""
    side.storage = PlainStorage()
    seen: list[float] = []
    transport = side.pace(side.scripted(REFUSED, FINE, seen=seen), retries=0)
    assert side.send(transport, GET, GET) == [429, 200]
    assert seen[1] - seen[0] >= 0.149


def test_an_exhausted_quota_is_a_pause(side: Side) -> None:
    """A success that says that nothing is left holds back the next call."""
    seen: list[float] = []
    fields = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "200ms"}
    assert side.send(side.pace(side.scripted((200, fields), FINE, seen=seen)), GET, GET) == [200, 200]
    assert seen[1] - seen[0] >= 0.19


def test_a_long_pause_is_capped(side: Side) -> None:
    """The refusal is returned at once, and later calls wait for no longer than the cap."""
    seen: list[float] = []
    transport = side.pace(side.scripted((429, {"retry-after": "86400"}), FINE, seen=seen), max_pause_s=0.2)
    assert side.send(transport, GET, GET) == [429, 200]
    assert 0.19 <= seen[1] - seen[0] < 60


def test_a_pause_beyond_the_timeout(side: Side) -> None:
    """The refusal is returned, and the next call fails at once."""
    seen: list[float] = []
    transport = side.pace(side.scripted((503, {"retry-after": "60"}), seen=seen), timeout_s=5)
    refusal, error = side.send(transport, GET, GET)
    assert refusal == 503
    assert isinstance(error, side.timeout)
    assert len(seen) == 1


def stream(side: Side) -> Any:
    """Return a body that can be sent once."""
    if not side.waits:
        return iter([b"x"])

    async def chunks() -> Any:
        yield b"x"

    return chunks()


def test_what_may_not_be_repeated(side: Side) -> None:
    """Neither a POST, unless told, nor a body that cannot be sent twice."""
    for request, options, sent in (
        (("POST", URL, b"x"), {}, 1),
        (("POST", URL, b"x"), {"retry_unsafe": True}, 2),
        (("PUT", URL, b"x"), {}, 2),
        (("PUT", URL, stream(side)), {}, 1),
        (("GET", URL, None), {"retries": 0}, 1),
    ):
        seen: list[float] = []
        answers = side.scripted((429, {"retry-after": "0"}), FINE, seen=seen)
        assert side.send(side.pace(answers, **options), request) == [429 if sent == 1 else 200]
        assert len(seen) == sent


def test_the_server_can_forbid_a_retry(side: Side) -> None:
    """By `x-should-retry`."""
    seen: list[float] = []
    answers = side.scripted((429, {"retry-after": "0", "x-should-retry": "false"}), seen=seen)
    assert side.send(side.pace(answers), GET) == [429]
    assert len(seen) == 1


def test_retries_have_a_budget(side: Side) -> None:
    """A server that refuses everything gets ten requests more than were made, whatever each may do."""
    seen: list[float] = []
    transport = side.pace(side.scripted((503, {"retry-after": "0"}), seen=seen), retries=5)
    assert side.send(transport, *[GET] * 8) == [503] * 8
    assert len(seen) == 18


def test_others_use_the_same_limit(side: Side) -> None:
    """What the server says is left is what the bucket has left, for all processes."""
    seen: list[float] = []
    inner = side.scripted((200, {"x-ratelimit-remaining": "1"}), FINE, seen=seen)
    assert side.send(side.pace(inner, "10/hour"), GET) == [200]
    other = side.pace(side.scripted(FINE, seen=seen), "10/hour", timeout_s=0.5)
    assert side.send(other, GET)[0] == 200
    assert isinstance(side.send(other, GET)[0], side.timeout)


def test_calls_slow_down_where_no_numbers_come(side: Side) -> None:
    """After a refusal without a word calls keep a distance that the rule would not ask for."""
    seen: list[float] = []
    inner = side.scripted(MUTE, FINE, seen=seen)
    assert side.send(side.pace(inner, "10/second burst 10", retries=0), *[GET] * 4) == [429, 200, 200, 200]
    assert seen[2] - seen[1] >= 0.09
    assert seen[3] - seen[2] >= 0.09


def test_a_pause_with_numbers_does_not_slow_down(side: Side) -> None:
    """After it calls go on at the rule's rate, and the adaptation has not been told."""
    seen: list[float] = []
    transport = side.pace(side.scripted(REFUSED, FINE, seen=seen), "10/second burst 10")
    assert side.send(transport, *[GET] * 3) == [200] * 3
    (server,) = transport._pacer._pacer._servers.values()
    assert server.adaptation.share == 1
    assert server.next_s == 0


@pytest.fixture(scope="module")
def limited() -> Iterator[UvicornServer]:
    """A real server with our own middleware, which refuses more than four requests a second."""

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    rules = {"GET /": RateLimitRule.per_second(4, burst=2)}
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=rules)
    with UvicornServer(RateLimitMiddleware(app, limiter=limiter)) as server:
        yield server


def test_our_own_refusals_are_understood(side: Side, limited: UvicornServer) -> None:
    """A client with a rule that is too generous gets every answer from a server with our middleware."""
    transport = side.pace(None, "50/second")
    assert side.send(transport, *[("GET", limited.url, None)] * 4) == [200] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": 5}, "limiter=5: expected a"),
        ({"timeout_s": -1}, "timeout_s=-1: expected 0 or more"),
        ({"identifier": "host"}, "identifier='host': expected a function"),
        ({"transport": 5}, "transport=5: expected an httpx"),
        ({"name": 5}, "name=5: expected a string"),
        ({"retries": 1.5}, "retries=1.5: expected a whole number"),
        ({"retries": -1}, "retries=-1: expected 0 to 100"),
        ({"max_pause_s": "1"}, "max_pause_s='1': expected seconds"),
        ({"max_pause_s": 0}, "max_pause_s=0: expected more than 0"),
        ({"retry_unsafe": 1}, "retry_unsafe=1: expected True or False"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(side: Side, options: dict[str, Any], message: str) -> None:
    """When the transport is made, not by its first request."""
    with pytest.raises(InvalidInputError, match=message):
        side.transport("1/second", **options)


def test_a_pause_holds_on_redis_for_both_kinds() -> None:
    """A worker without an event loop waits for what a worker with one has heard, and the other way round."""
    seen: list[float] = []
    with RedisServer() as server:
        for hears, follows in ((True, False), (False, True)):
            sides = [Side(httpx, sluicegate.httpx, waits=waits) for waits in (hears, follows)]
            for side in sides:
                side.storage = (RedisStorage if side.waits else SyncRedisStorage).from_url(server.url)
            answers = (429, {"retry-after-ms": "500"}), FINE
            for side, answer in zip(sides, answers, strict=True):
                assert side.send(side.pace(side.scripted(answer, seen=seen), retries=0), GET) == [answer[0]]
    assert seen[1] - seen[0] >= 0.45
    assert seen[3] - seen[2] >= 0.45
