"""What the live page asks for: figures that equal the metrics, streams that hold nothing up, and nothing without the token."""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import Message

from sluicegate import RedisStorage
from sluicegate.application.live.live_figures import LiveFigures
from sluicegate.metrics import PrometheusMetrics
from sluicegate.presentation.live.api import EVENTS_OF_A_STREAM, LiveApi
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, build_app
from sluicegate.presentation.service.observers import build_live
from sluicegate.presentation.service.settings import ServiceLimits, ServiceSettings
from sluicegate.testing import FailingStorage
from support.live_figures import TOKEN, LiveWorld
from support.rate_limit_service import ANYWHERE, ServiceWorld

RULES = """
[policies]
login = "2/minute"
tried = { rate = "1/minute", shadow = true }

[endpoints]
"POST /login" = "login"
"GET /tried" = "tried"
"GET /two" = ["3/minute", "9/minute per user"]

[deny]
ip = ["192.0.2.66"]
"""


async def shown(client: httpx.AsyncClient) -> LiveFigures:
    """Return the figures that the service shows."""
    answer = await client.get("/v1/live")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return msgspec.json.decode(answer.content, type=LiveFigures)


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Read a stream of events."""
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def test_the_figures_equal_the_metrics() -> None:
    """By rule and result, with what lists, shadow mode and a kill switch decided."""
    world = LiveWorld(RULES)
    metrics = PrometheusMetrics(world.limiter, world.bus)
    await world.ask("POST /login", times=5)
    await world.ask("POST /login", "192.0.2.66")
    await world.ask("GET /tried", times=3)
    await world.ask("GET /two", {"ip": "192.0.2.1", "user": "ann"}, times=4)
    world.limiter.rules.switch_off("login", reason="incident 7")
    await world.ask("POST /login")
    async with world.client() as client:
        figures = await shown(client)
    counted: dict[tuple[str, str], dict[str, float]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "sluicegate_requests_total":
                key = sample.labels["endpoint"], sample.labels["policy"]
                of_rule = counted.setdefault(key, {"allowed": 0, "denied": 0})
                of_rule[sample.labels["result"]] += sample.value
    rows = {(row.endpoint, row.policy): {"allowed": row.allowed, "denied": row.denied} for row in figures.rules}
    assert {key: row for key, row in rows.items() if any(row.values())} == counted
    assert (figures.traffic.allowed, figures.traffic.denied) == (2 + 3 + 3 + 1, 3 + 1 + 1)
    assert {row.policy: row.shadow_denied for row in figures.rules}["tried"] == 2
    assert [row.policy for row in figures.rules if row.switched_off] == ["login"]
    assert figures.in_force.switched_off[0].reason == "incident 7"
    assert (figures.in_force.version, figures.storage.kind) == (world.limiter.rules.version, "MemoryStorage")
    assert figures.latency.count == 9
    assert {(one.result, one.reason): one.count for one in figures.reasons}["denied", "listed"] == 1


async def test_what_fails_is_shown() -> None:
    """The storage, and what the failure policy answered."""
    world = LiveWorld(RULES, storage=FailingStorage())
    await world.ask("POST /login", times=2)
    world.limiter.rules.refuse(ValueError("broken"))
    async with world.client() as client:
        figures = await shown(client)
    assert figures.storage.faults == ["connection"]
    assert [(one.policy, one.cause, one.count) for one in figures.failures] == [("allow", "connection", 2)]
    assert (figures.in_force.last_error, figures.rules_refusals) == ("broken", 1)


async def test_an_open_breaker_is_shown() -> None:
    """While the server of the storage is not asked."""
    world = LiveWorld(RULES, storage=RedisStorage.from_url("redis://127.0.0.1:1", deadline_ms=200))
    await world.ask("POST /login", times=2)
    async with world.client() as client:
        storage = (await shown(client)).storage
    assert (storage.kind, storage.breakers_open, len(storage.faults)) == ("RedisStorage", 1, 1)
    assert storage.calls is not None


@pytest.mark.parametrize(("hot", "shows"), [("raw", "ann"), ("hashed", "")])
async def test_who_is_hot_is_shown_as_the_setting_says(hot: str, shows: str) -> None:
    """As it is, or hashed."""
    world = LiveWorld(RULES, hot=hot)
    await world.ask("POST /login", "ann", times=5)
    async with world.client() as client:
        told = (await client.get("/v1/hot-keys")).json()
        assert told == json.loads(msgspec.json.encode((await shown(client)).hot))
    assert told["identifiers"] == hot
    (asked,), (denied,) = told["asked"]["keys"], told["denied"]["keys"]
    assert (asked["endpoint"], asked["count"], denied["count"]) == ("POST /login", 5, 3)
    assert (asked["identifier"] == "ann") == bool(shows)
    assert ("ann" in json.dumps(told)) == bool(shows)


async def test_clients_have_the_digits_that_the_audit_log_has() -> None:
    """The secret is the same."""
    world, secret = LiveWorld(RULES, hot="off"), b"sixteen bytes ..."
    live = build_live(ServiceSettings(), world.limiter, world.bus, secret)
    await world.ask("POST /login", "ann")
    figures = await live._meter.read()
    assert figures.asked is not None
    assert [one.identifier for one in figures.asked.keys] == [blake2b(b"ann", digest_size=8, key=secret).hexdigest()]
    off = build_live(ServiceSettings(hot_keys="off"), world.limiter, world.bus, secret)
    assert (await off._meter.read()).asked is None


async def test_nobody_is_hot_where_nobody_counts() -> None:
    """The list of its own says what to set."""
    world = LiveWorld(RULES, hot="off")
    async with world.client() as client:
        assert (await shown(client)).hot is None
        answer = await client.get("/v1/hot-keys")
        assert (answer.status_code, "--hot-keys" in answer.json()["detail"]) == (404, True)


async def test_a_service_that_does_not_count_says_so() -> None:
    """And has no page; without an admin address nothing is counted either."""
    assert not ServiceSettings(admin=ANYWHERE, live=False).shows
    assert not ServiceSettings().shows
    world = ServiceWorld(rules=RULES, service={"grpc": None, "admin": ANYWHERE, "admin_token": TOKEN})
    await world.service.start()
    url = f"http://{world.service.addresses['admin']}"
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        answer = await client.get("/v1/live")
        assert (answer.status_code, "--live" in answer.json()["detail"]) == (404, True)
        assert (await client.get("/")).status_code == 404
    await world.service.stop()


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1]])
async def test_figures_need_the_token_and_the_page_does_not(token: str) -> None:
    """The page is the same for everybody, and holds nothing."""
    async with LiveWorld(RULES).client(token) as client:
        for path in ("/v1/live", "/v1/live/stream", "/v1/hot-keys"):
            assert (await client.get(path)).status_code == 401
        assert (
            await client.post("/v1/explain", json={"endpoint": "POST /login", "identifier": "x"})
        ).status_code == 401
        page = await client.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "GET /tried" not in page.text


async def test_a_check_is_explained() -> None:
    """With what its buckets hold; nothing is taken."""
    world = LiveWorld(RULES)
    await world.ask("POST /login", times=2)
    async with world.client() as client:
        body = {"endpoint": "POST /login", "identifier": "192.0.2.1"}
        told = (await client.post("/v1/explain", json=body)).json()
        assert (told["allowed"], told["denied_by"], list(told["tokens_left"].values())) == (False, ["login"], [0])
        assert 0 < told["retry_after"] <= 30
        never = (await client.post("/v1/explain", json=body | {"cost": 99})).json()
        assert (never["allowed"], never["retry_after"]) == (False, None)
        assert (await client.post("/v1/explain", json=body | {"identifier": ""})).status_code == 400


async def test_a_stream_brings_one_picture_after_the_other_and_ends_after_some() -> None:
    """So that a server that ends need not wait for it for long."""
    world = LiveWorld(RULES, window_s=0.01)
    async with world.client() as client, client.stream("GET", "/v1/live/stream") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        await world.ask("POST /login")
        told = [one async for one in events(answer)]
    assert [name for name, _ in told] == ["live"] * EVENTS_OF_A_STREAM
    assert told[-1][1]["traffic"]["allowed"] == 1
    assert world.live.feed.listeners == 0


async def test_streams_end_when_the_service_does() -> None:
    """The client is told, and the service does not wait."""
    world = LiveWorld(RULES, window_s=3600, grace_seconds=60.0)
    async with world.client() as client, client.stream("GET", "/v1/live/stream") as answer:
        assert world.live.feed.listeners == 1
        async with asyncio.timeout(30):
            _, told = await asyncio.gather(world.service.stop(), _all(answer))
    assert told == [("end", {})]


async def _all(answer: httpx.Response) -> list[tuple[str, Any]]:
    return [one async for one in events(answer)]


async def test_only_so_many_may_listen_and_who_leaves_makes_room() -> None:
    """The next one is told when to try again."""
    world = LiveWorld(RULES, window_s=3600)
    async with world.client() as client:
        streams = [client.build_request("GET", "/v1/live/stream") for _ in range(16)]
        open_ones = [await client.send(one, stream=True) for one in streams]
        refused = await client.get("/v1/live/stream")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        await open_ones[0].aclose()
        async with asyncio.timeout(30):
            while world.live.feed.listeners == 16:
                await asyncio.sleep(0.01)
        again = await client.send(client.build_request("GET", "/v1/live/stream"), stream=True)
        assert again.status_code == 200
        for one in (again, *open_ones):
            await one.aclose()


class Endless:
    """A body without an end."""

    def __init__(self) -> None:
        self.closed = 0

    async def next_chunk(self) -> bytes:
        """Return a part of it."""
        return b"x"

    def close(self) -> None:
        """Count how often."""
        self.closed += 1


async def stream_to(send: Any, receive: Any, chunks: Endless, **limits: float) -> None:
    """Let an application answer with an endless body."""

    async def handle(_: Call) -> Reply:
        return Reply(chunks=chunks)

    app = build_app([Endpoint("GET", "/", handle)], msgspec.structs.replace(ServiceLimits(), **limits))
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await asyncio.wait_for(app(scope, receive, send), 30)


async def test_a_client_that_takes_nothing_is_let_go() -> None:
    """After its time; its place is free again."""
    chunks = Endless()
    taken: list[Message] = []

    async def send(message: Message) -> None:
        taken.append(message)
        if len(taken) > 3:
            await asyncio.Event().wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    await stream_to(send, receive, chunks, take_seconds=0.01)
    assert (chunks.closed, len(taken)) == (1, 4)


async def test_a_client_that_is_gone_is_let_go() -> None:
    """At once."""
    chunks = Endless()

    async def send(_: Message) -> None:
        await asyncio.sleep(0)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await stream_to(send, receive, chunks)
    assert chunks.closed == 1


async def test_a_failure_on_the_way_is_not_hidden() -> None:
    """It is the server's to log."""
    chunks = Endless()

    async def send(_: Message) -> None:
        raise OSError("broken")

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(OSError, match="broken"):
        await stream_to(send, receive, chunks)
    assert chunks.closed == 1


async def test_the_figures_of_all_workers_are_shown_together() -> None:
    """Those that answer; how many do not is told."""
    world, other = LiveWorld(RULES), LiveWorld(RULES)
    await world.ask("POST /login", "ann", times=3)
    await other.ask("POST /login", "ann", times=4)

    async def ask(path: str) -> dict[str, object]:
        assert path == other.live.peer_endpoints()[0].path
        reply = await other.live.tell_peer(Call("GET", path, b"", b"", None, lambda _: []))
        return {"1": msgspec.json.decode(reply.body)}

    together = LiveApi(world.live._meter, ask, 3, window_s=0.01)
    figures = await together.feed.next()
    assert figures is not None
    assert (figures.traffic.allowed, figures.traffic.denied, figures.workers_missing) == (4, 3, 1)
    assert figures.hot is not None
    assert [(one.identifier, one.count) for one in figures.hot.asked.keys] == [("ann", 7)]
