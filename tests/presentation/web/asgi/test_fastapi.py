"""A FastAPI endpoint has a rule of its own, which its documentation shows."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from starlette.authentication import SimpleUser

from sluicegate import InvalidInputError, MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.fastapi import TOO_MANY_REQUESTS, install_rate_limits, rate_limit
from sluicegate.testing import FailingStorage, FakeClock
from support.asgi_calls import get, http_scope, send_scope


@pytest.fixture
def limiter() -> TokenBucketAdapter:
    """A limiter on a clock that stands still."""
    return TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})


def application(*dependencies: Any, path: str = "/items/{item_id}") -> FastAPI:
    """Return an application with one limited endpoint."""
    app = FastAPI()

    @app.get(path, dependencies=[Depends(dependency) for dependency in dependencies])
    async def endpoint() -> dict[str, str]:
        return {"it": "ran"}

    install_rate_limits(app)
    return app


async def test_limits_its_endpoint_by_template(limiter: TokenBucketAdapter) -> None:
    """All values of a path parameter share a bucket; answers carry the fields, a denial problem details."""
    app = application(rate_limit("2/minute", limiter=limiter))
    answers = [await get(app, f"/items/{number}") for number in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit"] == '"ip-2-60s";r=1;t=30'
    assert answers[2].headers["retry-after"] == "30"
    assert answers[2].headers["content-type"] == "application/problem+json"
    assert b'"violated-policies":["ip-2-60s"]' in answers[2].body


async def test_without_installing_it_is_an_http_exception(limiter: TokenBucketAdapter) -> None:
    """An application's own handlers see an HTTPException with all fields but the body's."""
    app = FastAPI()

    @app.get("/", dependencies=[Depends(rate_limit("1/minute", limiter=limiter))])
    async def endpoint() -> None: ...

    await get(app)
    answer = await get(app)
    assert answer.status == 429
    assert answer.body == b'{"detail":"Too many requests"}'
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["cache-control"] == "no-store"


async def test_two_rules_and_two_dependencies(limiter: TokenBucketAdapter) -> None:
    """Rules of one dependency are taken all or none; different ones on a route have different buckets."""
    app = application(
        rate_limit("5/minute", RateLimitRule(3, 1, "global"), limiter=limiter),
        rate_limit("4/hour", limiter=limiter),
    )
    assert [(await get(app, "/items/1")).status for _ in range(5)] == [200, 200, 200, 429, 429]


async def test_cost_and_identifier_from_the_request(limiter: TokenBucketAdapter) -> None:
    """The cost and the identifier may depend on the request; coroutine functions are awaited."""

    async def key(request: Request) -> str | None:
        return request.headers.get("x-api-key")

    def cost(request: Request) -> int:
        return int(request.query_params["size"])

    app = application(rate_limit("10/minute per api_key", limiter=limiter, identifier=key, cost=cost))

    async def status(api_key: str, query: bytes) -> int:
        return (await get(app, "/items/1", headers=[("X-Api-Key", api_key)], query_string=query)).status

    assert [await status("a", b"size=6"), await status("a", b"size=6"), await status("b", b"size=6")] == [200, 429, 200]
    assert [await status("c", b"size=x") for _ in range(11)] == [200] * 10 + [429]
    assert await status("d", b"size=11") == 429


async def test_one_name_for_several_routes(limiter: TokenBucketAdapter) -> None:
    """Routes share buckets under a common name, and not without."""
    app = FastAPI()
    shared = rate_limit("2/minute", name="search", limiter=limiter)
    for path in ("/a", "/b"):
        app.get(path, dependencies=[Depends(shared)])(lambda: None)
    assert [(await get(app, path)).status for path in ("/a", "/b", "/a")] == [200, 200, 429]
    apart = rate_limit("2/minute", limiter=limiter)
    for path in ("/c", "/d"):
        app.get(path, dependencies=[Depends(apart)])(lambda: None)
    assert [(await get(app, path)).status for path in ("/c", "/c", "/d", "/c")] == [200, 200, 200, 429]


async def test_on_included_routers_the_whole_template_counts(limiter: TokenBucketAdapter) -> None:
    """Two routers with the same relative path are two places."""
    app, router = FastAPI(), APIRouter()
    router.get("/items/{item_id}", dependencies=[Depends(rate_limit("1/minute", limiter=limiter))])(lambda: None)
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    paths = ["/v1/items/1", "/v1/items/2", "/v2/items/1", "/v2/items/2"]
    assert [(await get(app, path)).status for path in paths] == [200, 429, 200, 429]


async def test_methods_and_addresses(limiter: TokenBucketAdapter) -> None:
    """HEAD counts with GET and POST does not; an address counts out of its wrapping, a network of IPv6 as one client."""
    app = FastAPI()
    app.api_route(
        "/", methods=["GET", "HEAD", "POST"], dependencies=[Depends(rate_limit("1/minute", limiter=limiter))]
    )(lambda: None)
    asked = [
        ("GET", "192.0.2.1", 200),
        ("HEAD", "::ffff:192.0.2.1", 429),
        ("POST", "192.0.2.1", 200),
        ("GET", "2001:db8::1", 200),
        ("GET", "2001:db8::2", 429),
        ("GET", "2001:db8:0:1::1", 200),
    ]
    for method, address, status in asked:
        assert (await send_scope(app, http_scope(method, client=(address, 1)))).status == status


async def test_who_is_not_counted_by_address(limiter: TokenBucketAdapter) -> None:
    """A rule for users counts users, and an identifier function names the client for a rule without a scope."""

    def key(request: Request) -> str:
        return request.headers["x-key"]

    for dependency in (
        rate_limit("1/minute per user", limiter=limiter),
        rate_limit("1/minute", identifier=key, limiter=limiter),
    ):
        app = application(dependency, path="/")
        for name, status in (("a", 200), ("a", 429), ("b", 200)):
            answer = await get(app, "/", headers=[("X-Key", name)], user=SimpleUser(name))
            assert answer.status == status


async def test_all_rules_are_told(limiter: TokenBucketAdapter) -> None:
    """Of several rules the policies are all told, and what is left of the tightest."""
    answer = await get(application(rate_limit("2/hour", "9/minute", limiter=limiter), path="/"), "/")
    assert answer.headers["ratelimit-policy"] == '"ip-2-3600s";q=2;w=3600, "ip-9-60s";q=9;w=60'
    assert answer.headers["ratelimit"] == '"ip-2-3600s";r=1;t=1800'


async def test_behind_a_proxy(limiter: TokenBucketAdapter) -> None:
    """The header of a trusted proxy is believed, any other is not."""
    app = application(rate_limit("1/minute", limiter=limiter, trusted_proxies=["10.0.0.0/8"]), path="/")
    for peer, client, status in (
        ("10.0.0.1", "203.0.113.1", 200),
        ("10.0.0.2", "203.0.113.1", 429),
        ("10.0.0.1", "203.0.113.2", 200),
        ("192.0.2.1", "203.0.113.3", 200),
        ("192.0.2.1", "203.0.113.4", 429),
    ):
        assert (await get(app, "/", client=(peer, 1), headers=[("X-Forwarded-For", client)])).status == status


async def test_websockets(limiter: TokenBucketAdapter) -> None:
    """A websocket's handshake is limited as well."""
    app = FastAPI()

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, _: Annotated[None, Depends(rate_limit("1/minute", limiter=limiter))]) -> None:
        await websocket.accept()
        await websocket.close()

    statuses = [(await send_scope(app, http_scope(path="/feed", kind="websocket"))).status for _ in range(2)]
    assert statuses == [101, 403]


def test_openapi_shows_a_429(limiter: TokenBucketAdapter) -> None:
    """Limited operations, those of included routers too, have a 429 in the schema; others have none."""
    app, router = FastAPI(), APIRouter()
    limited = [Depends(rate_limit("1/minute", limiter=limiter))]
    app.get("/limited", dependencies=limited)(lambda: None)
    app.get("/free")(lambda: None)
    router.post("/deep/{x}", dependencies=limited)(lambda: None)
    app.include_router(router, prefix="/v1")
    install_rate_limits(app)
    paths = app.openapi()["paths"]
    assert paths["/limited"]["get"]["responses"]["429"] == TOO_MANY_REQUESTS[429]
    assert "429" in paths["/v1/deep/{x}"]["post"]["responses"]
    assert "429" not in paths["/free"]["get"]["responses"]


async def test_while_the_storage_fails() -> None:
    """The failure policy answers here too, and a quota that was not counted is not told."""
    for policy, status in (("allow", 200), ("deny", 503)):
        limiter = TokenBucketAdapter(storage=FailingStorage(), rules={}, on_storage_error=policy)  # type: ignore[arg-type]
        answer = await get(application(rate_limit("1/minute", limiter=limiter)), "/items/1")
        assert answer.status == status
        assert "ratelimit" not in answer.headers


async def test_the_settings_limiter_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limiter, that of the settings is used."""
    from sluicegate import container  # noqa: PLC0415 - its cache is cleared

    monkeypatch.setenv("SLUICEGATE_STORAGE_URL", "memory://")
    container.get_rate_limit.cache_clear()
    app = application(rate_limit("1/minute"))
    assert [(await get(app, "/items/1")).status for _ in range(2)] == [200, 429]
    container.get_rate_limit.cache_clear()


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        ((), {}, "at least one"),
        (("often",), {"limiter": TokenBucketAdapter(storage=MemoryStorage(), rules={})}, "'often': no policy"),
        (("5/often",), {}, "rate='5/often'"),
        ((5,), {}, "rules: 5"),
        (("5/minute per tenant",), {}, "'tenant'"),
        (("5/minute",), {"headers": "old"}, "headers='old'"),
        (("5/minute",), {"limiter": object()}, "limiter="),
        (("5/minute",), {"cost": -1}, "cost=-1"),
        (("5/minute",), {"cost": 1.5}, "cost=1.5"),
    ],
)
def test_bad_arguments(rules: tuple[Any, ...], options: Any, message: str) -> None:
    """A wrong argument is an error where the endpoint is declared."""
    with pytest.raises(InvalidInputError, match=message):
        rate_limit(*rules, **options)
