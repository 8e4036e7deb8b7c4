"""HTTP: checks in JSON, the reference server's `/json`, the questions of proxies, and health."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from sluicegate.presentation.service.http.uvicorn_server import HttpServer
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, build_app
from sluicegate.presentation.service.settings import Address, ServiceLimits, bound_address, open_socket
from sluicegate.testing import FailingStorage
from support.rate_limit_service import ANYWHERE, ServiceWorld

RULES = """
[endpoints]
"POST /login" = "5/minute"
"GET /items/{id}" = ["3/minute", "10/hour burst 2 per user"]
"GET /café" = "1/minute"
"GET /free" = { rate = "1/minute", enabled = false }
"""
CONFIG = "domain: d\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 3}}]"


@asynccontextmanager
async def http(world: ServiceWorld) -> AsyncIterator[httpx.AsyncClient]:
    """Run a world's service and connect an HTTP client to it."""
    await world.service.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{world.service.addresses['http']}", timeout=10) as client:
            yield client
    finally:
        await world.service.stop()


def world_of(**options: Any) -> ServiceWorld:
    """Return a world whose service serves HTTP alone."""
    service = {"grpc": None, "http": ANYWHERE, **options.pop("service", {})}
    return ServiceWorld(CONFIG, rules=RULES, service=service, **options)


async def test_a_check_in_json() -> None:
    """Status 200 whatever was decided; the answer has what the caller and its client should know."""
    async with http(world_of()) as client:
        body = {"endpoint": "POST /login", "identifier": "192.0.2.1", "cost": 4}
        first = await client.post("/v1/check", json=body)
        assert first.json() == {
            "allowed": True,
            "retry_after": 0.0,
            "remaining": 1,
            "limit": 5,
            "reset_seconds": 48,
            "policy": "ip-5-60s",
            "degraded": None,
            "headers": {"ratelimit-policy": '"ip-5-60s";q=5;w=60', "ratelimit": '"ip-5-60s";r=1;t=48'},
        }
        second = await client.post("/v1/check", json=body)
        assert (second.status_code, second.json()["allowed"], second.json()["retry_after"]) == (200, False, 36.0)
        assert second.json()["headers"]["retry-after"] == "36"
        never = await client.post("/v1/check", json=body | {"cost": 6})
        assert (never.json()["allowed"], never.json()["retry_after"]) == (False, None)


async def test_a_check_by_path() -> None:
    """The rules' templates find the endpoint; an identifier for each scope."""
    async with http(world_of()) as client:
        body = {"method": "get", "path": "/items/7?x=/login", "identifier": {"ip": "192.0.2.1", "user": "ann"}}
        answers = [(await client.post("/v1/check", json=body)).json() for _ in range(3)]
        assert [answer["allowed"] for answer in answers] == [True, True, False]
        none = (await client.post("/v1/check", json={"path": "/none", "identifier": "x"})).json()
        assert (none["allowed"], none["limit"], none["policy"]) == (True, 0, None)


async def test_several_checks_together() -> None:
    """If one is denied none is charged."""
    async with http(world_of()) as client:
        login = {"endpoint": "POST /login", "identifier": "192.0.2.1"}
        item = {"path": "/items/1", "identifier": {"ip": "192.0.2.1", "user": "ann"}}
        answers = [(await client.post("/v1/check", json={"checks": [login, item]})).json() for _ in range(3)]
        assert [answer["allowed"] for answer in answers] == [True, True, False]
        assert [check["remaining"] for check in answers[2]["checks"]] == [3, 0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: Input data was truncated"),
        (b"[]", "Expected `object`"),
        (b"\xff", "body:"),
        (b'{"identifier": "x"}', "expected the field endpoint or path"),
        (b'{"endpoint": "a"}', "expected the field identifier, or checks"),
        (b'{"endpoint": "a", "path": "/", "identifier": "x"}', "expected one of endpoint and path"),
        (b'{"endpoint": "a", "identifier": "x", "cost": -1}', "$.cost"),
        (b'{"endpoint": "a", "identifier": "x", "cost": true}', "$.cost"),
        (b'{"endpoint": "POST /login", "identifier": ""}', "identifier=''"),
        (b'{"endpoint": "a", "identifer": "x"}', "unknown field `identifer`"),
        (b'{"path": "items", "identifier": "x"}', "expected a path that begins with /"),
        (b'{"checks": []}', "length >= 1"),
        (b'{"checks": [{"endpoint": "a", "identifier": "x"}], "cost": 1}', "checks cannot be used with"),
    ],
)
async def test_a_wrong_body_is_refused_with_its_reason(body: bytes, message: str) -> None:
    """Status 400 and problem details."""
    async with http(world_of()) as client:
        answer = await client.post("/v1/check", content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert message in answer.json()["detail"]


async def test_a_body_is_bounded() -> None:
    """With its length told or not."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    async with http(world_of()) as client:
        assert (await client.post("/v1/check", content=b" " * 70_000)).status_code == 413
        assert (await client.post("/v1/check", content=chunks())).status_code == 413
        assert (await client.get("/healthz")).status_code == 200


async def test_the_envoy_protocol_in_json() -> None:
    """As the reference server has it: 200 or 429, with the response in proto3's JSON."""
    async with http(world_of()) as client:
        request = {"domain": "d", "descriptors": [{"entries": [{"key": "user", "value": "ann"}], "hitsAddend": "2"}]}
        answers = [await client.post("/json", json=request) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[0].json()["overallCode"] == "OK"
        assert answers[0].json()["statuses"] == [
            {
                "code": "OK",
                "currentLimit": {"requestsPerUnit": 3, "unit": "MINUTE"},
                "limitRemaining": 1,
                "durationUntilReset": "40s",
            }
        ]
        assert answers[1].json()["overallCode"] == "OVER_LIMIT"
        for wrong in (b"{", b'{"domian": "d"}', b'{"domain": "d"}', b"\xff", b"[" * 5000):
            assert (await client.post("/json", content=wrong)).status_code == 400


async def test_the_service_lives_without_its_storage_but_is_not_ready() -> None:
    """`/healthz` is for the process, `/readyz` for load balancers."""
    async with http(world_of(storage=FailingStorage())) as client:
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 503]
        answer = await client.post("/v1/check", json={"endpoint": "POST /login", "identifier": "x"})
        assert (answer.json()["allowed"], answer.json()["degraded"], answer.json()["headers"]) == (True, "allow", {})
        request = {"domain": "d", "descriptors": [{"entries": [{"key": "user", "value": "ann"}]}]}
        assert (await client.post("/json", json=request)).status_code == 200
    async with http(world_of(storage=FailingStorage(), service={"storage_errors": "error"})) as client:
        assert (await client.post("/json", json=request)).status_code == 503
    async with http(world_of()) as client:
        assert (await client.get("/readyz")).text == "ready\n"


async def test_what_the_storage_did_not_decide_may_be_an_error() -> None:
    """On every route that decides, for the caller's own policy; then nothing stays reserved in this process either."""
    options = {"storage_errors": "error", "trusted_proxies": ("127.0.0.1",), "identifier_headers": {"user": "X-User"}}
    login = {"endpoint": "POST /login", "identifier": "192.0.2.1"}
    world = world_of(storage=FailingStorage(), on_storage_error="local", service=options)
    async with http(world) as client:
        for verb, body in (
            ("reserve", login | {"cost": 5}),
            ("reserve", {"checks": [login | {"cost": 5}]}),
            ("acquire", login),
            ("check", login),
            ("check", {"checks": [login, login]}),
        ):
            answer = await client.post(f"/v1/{verb}", json=body)
            assert (answer.status_code, answer.json()["detail"]) == (503, "the storage did not decide")
            if verb == "reserve":  # nothing is kept for a caller who does not know of it
                left = await world.limiter.reserve(endpoint="POST /login", identifier="192.0.2.1", cost=5)
                assert left.value.allowed  # type: ignore[union-attr]
                await world.limiter.cancel(left.value)  # type: ignore[union-attr]
        asked = forwarded("/login", x_forwarded_method="POST")
        assert (await client.get("/auth", headers=asked)).status_code == 503
        assert (await client.get("/auth", headers=forwarded("/none"))).status_code == 200


async def test_the_interface_is_published() -> None:
    """OpenAPI: its paths are those that are served, and tell of every status that a wrong request may get."""
    async with http(world_of(service={"trusted_proxies": ("127.0.0.1",)})) as client:
        document = (await client.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                for body in (b"", b" " * 70_000):
                    status = (await client.request(method, path, content=body)).status_code
                    assert status not in {404, 405}
                    assert str(status) in operation["responses"]
        assert "CheckBody" in document["components"]["schemas"]
        assert (await client.get("/nothing")).status_code == 404
        refused = await client.get("/v1/check")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        looked = await client.head("/readyz")
        assert (looked.status_code, looked.text, looked.headers["content-length"]) == (200, "", "6")


def forwarded(path: str, **more: str) -> dict[str, str]:
    """Return the header fields with which a proxy asks about a request."""
    return {"x-forwarded-uri": path, "x-forwarded-for": "192.0.2.7"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }


async def test_a_trusted_proxy_may_ask_about_a_request() -> None:
    """200 with the quota's fields, then 429 with Retry-After, or 403 where the proxy needs that."""
    world = world_of(service={"trusted_proxies": ("127.0.0.1",), "identifier_headers": {"user": "X-User"}})
    async with http(world) as client:
        asked = forwarded("/items/1?q=1", x_user="ann")
        answers = [await client.get("/auth", headers=asked) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["ratelimit"] == '"user-2-720s";r=1;t=360'
        assert answers[2].headers["retry-after"] == "360"
        assert answers[2].json()["status"] == 429
        assert (await client.get("/auth?denied=403", headers=asked)).status_code == 403
        assert (await client.get("/auth", headers=asked | {"x-user": "bob"})).status_code == 200
        assert (await client.get("/auth", headers=forwarded("/none"))).status_code == 200
        posted = forwarded("/login", x_forwarded_method="POST")
        assert [(await client.get("/auth", headers=posted)).status_code for _ in range(6)] == [200] * 5 + [429]


async def test_other_spellings_of_a_path_are_counted() -> None:
    """Nothing is known of the router behind the proxy: what some router would serve as an endpoint counts for it."""
    async with http(
        world_of(service={"trusted_proxies": ("127.0.0.1",), "identifier_headers": {"user": "X-User"}})
    ) as client:
        paths = ("//items/1", "/items/a%2Fb", "/items/3/")
        answers = [await client.get("/auth", headers=forwarded(path, x_user="ann")) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_a_path_that_is_not_percent_encoded_is_counted() -> None:
    """Proxies pass on the bytes that a client sent, and servers behind them take them for UTF-8."""
    async with http(world_of(service={"trusted_proxies": ("127.0.0.1",)})) as client:
        paths = ("/café".encode(), b"/caf%C3%A9")
        answers = [await client.get("/auth", headers={b"x-forwarded-uri": path}) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert (await client.get("/auth", headers={b"x-forwarded-uri": b"/caf\xe9"})).status_code == 200


async def test_wrong_questions_about_requests() -> None:
    """The proxy's configuration lacks something: it is told what."""
    async with http(world_of(service={"trusted_proxies": ("127.0.0.1",)})) as client:
        assert (await client.get("/auth")).json()["detail"] == "expected a header x-forwarded-uri"
        assert (await client.get("/auth", headers=forwarded("nothing"))).status_code == 400
        assert (await client.get("/auth?denied=200", headers=forwarded("/items/1"))).status_code == 400


async def test_nobody_else_may_ask_about_requests() -> None:
    """An identity is believed from a proxy that the operator named, and from nobody else; without one there is no such route."""
    async with http(world_of(service={"trusted_proxies": ("192.0.2.0/24",)})) as client:
        assert (await client.get("/auth", headers=forwarded("/items/1"))).status_code == 403
    async with http(world_of()) as client:
        assert (await client.get("/auth", headers=forwarded("/items/1"))).status_code == 404


async def test_too_many_requests_at_a_time_are_refused() -> None:
    """503 for those beyond the bound; the others are answered."""
    world = world_of(service={"limits": ServiceLimits(max_concurrent=2)})
    async with http(world):
        host, _, port = world.service.addresses["http"].rpartition(":")
        sockets = [socket.create_connection((host, int(port))) for _ in range(3)]
        await asyncio.sleep(0.05)
        sockets[0].sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        sockets[0].settimeout(5)
        answer = await asyncio.to_thread(sockets[0].recv, 100)
        assert answer.startswith(b"HTTP/1.1 503")
        for one in sockets:
            one.close()


def test_answers_are_sent_at_once() -> None:
    """Asyncio switches Nagle's algorithm off only for sockets that say that they are TCP: else a second packet waits 40 ms."""
    for host in ("127.0.0.1", "::1"):
        with open_socket("--http", Address(host, 0)) as listener:
            assert listener.proto == socket.IPPROTO_TCP


async def test_wrong_paths_and_methods() -> None:
    """404 for what is not there, and 405 with the method that is; HEAD answers as GET does, without the body."""
    async with http(world_of()) as client:
        for path in ("/", "/v1", "/v1/check/", "/v1/check%00", "/V1/CHECK", "//v1/check"):
            assert (await client.post(path, content=b"{}")).status_code == 404
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
            answer = await client.request(method, "/v1/check")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        answer = await client.post("/healthz", content=b"{}")
        assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
        get, head = await client.get("/healthz"), await client.head("/healthz")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"] == "3"


async def test_a_mistake_of_ours_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets 500 and no word of what went wrong; the next request is answered."""

    async def fail(_: Call) -> Reply:
        raise RuntimeError("the secret is 42")

    routes = [Endpoint("POST", "/fail", fail), Endpoint("GET", "/fine", answer_nothing)]
    listener = open_socket("--http", ANYWHERE)
    server = HttpServer(build_app(routes, ServiceLimits()), listener, ServiceLimits())
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{bound_address(listener)}", timeout=60) as client:
            answer = await client.post("/fail", content=b"{}")
            assert (answer.status_code, answer.text) == (500, "Internal Server Error")
            assert (await client.get("/fine")).status_code == 204
    finally:
        await server.drain(1)
    assert "the secret is 42" in caplog.text


async def answer_nothing(_: Call) -> Reply:
    """Answer without a body."""
    return Reply(204, content_type="")


async def test_malformed_requests_are_refused() -> None:
    """And the service goes on."""
    world = world_of()
    async with http(world) as client:
        host, _, port = world.service.addresses["http"].rpartition(":")
        for garbage in (b"\x00" * 100 + b"\r\n\r\n", b"GET /" + b"x" * 2_000_000):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            with contextlib.suppress(ConnectionError):  # httptools never ends to read a head, so that it is dropped
                answer = await asyncio.wait_for(reader.read(100), 10)
                assert answer.startswith(b"HTTP/1.1 400") or (not answer and len(garbage) > 1_048_576)
            writer.close()
        assert (await client.get("/healthz")).status_code == 200
