"""A router that can be asked decides what a request counts as; `tests/frameworks/litestar_routes.py` asks Litestar itself."""

import asyncio
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from sluicegate import MemoryStorage, RateLimitMiddleware, RateLimitRule, TokenBucketAdapter
from sluicegate.testing import FakeClock
from support.asgi_calls import get, http_scope, send_scope

ONE = RateLimitRule(1, 1, "ip")


class NotFoundError(Exception):
    """What Litestar's router raises."""

    status_code = 404


class Handler:
    """A handler, or a mount."""

    def __init__(self, *, is_mount: bool = False) -> None:
        self.is_mount = is_mount


class Route(NamedTuple):
    """A route, as Litestar's application lists them."""

    path: str
    path_format: str
    route_handler: Handler


class Router:
    """Answers as Litestar's router does, from a table."""

    __module__ = "litestar._asgi.asgi_router"

    def __init__(self, app: Any, found: dict[str, tuple[Any, ...] | Exception]) -> None:
        self.app = app
        self.found = found
        self.asked: list[tuple[str, str | None]] = []

    def handle_routing(self, path: str, method: str | None) -> tuple[Any, ...]:
        """Return the answer of a path, or raise it."""
        self.asked.append((path, method))
        found = self.found.get(path, NotFoundError())
        if isinstance(found, Exception):
            raise found
        return found


class Litestar:
    """An application with two routes and a mount."""

    __module__ = "litestar.app"

    def __init__(self) -> None:
        item, special, mount = Handler(), Handler(), Handler(is_mount=True)
        self.routes = [
            Route("/items/{id:int}", "/items/{id}", item),
            Route("/items/special", "/items/special", special),
            Route("/m", "/m", mount),
        ]
        self.asgi_router = Router(
            self,
            {
                "/items/3": (None, item, "/items/3", {}, "/items/{id}"),
                "/items/-3": (None, item, "/items/-3", {}, "/items/{id}"),
                "/items/special": (None, special, "/items/special", {}, "/items/special"),
                "/mx/y": (None, mount, "x/y/", {}, ""),
                "/items/old": (None, item, "/items/old", {}),
                "/items/odd": TypeError("of another version"),
                "/items/new": (None, Handler(), "/items/new", {}, "/items/new"),
            },
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve whatever is asked."""
        await PlainTextResponse("served")(scope, receive, send)


def limited(app: Any, *endpoints: str, **options: Any) -> RateLimitMiddleware:
    """Return an application with a bucket of one token for each endpoint."""
    storage = MemoryStorage(clock=FakeClock())
    return RateLimitMiddleware(
        app, limiter=TokenBucketAdapter(storage=storage, rules=dict.fromkeys(endpoints, ONE)), **options
    )


async def statuses(app: Any, *paths: str) -> list[int]:
    """Return the statuses of one request after the other."""
    return [(await get(app, path)).status for path in paths]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("/items/3", "//items//3/"), [200, 429]),
        (("/items/3", "/items/-3"), [200, 429]),
        (("/items/3", "/items/special", "/items/special/"), [200, 200, 429]),
        (
            ("/items/3", "/items/3;v", "/nowhere"),
            [200, 200, 429],
        ),  # what the router does not serve has the rule for the rest
        (("/m/x", "/mx/y"), [200, 429]),
    ],
)
async def test_what_the_router_serves_is_counted_under_its_route(paths: tuple[str, ...], expected: list[int]) -> None:
    """Whatever the spelling, and whatever the order of the rules."""
    app = limited(Litestar(), "GET /items/{id:int}", "GET /items/special", "GET /m/{rest:path}", "*")
    assert await statuses(app, *paths) == expected


async def test_what_the_router_does_not_tell() -> None:
    """An older version, one that asks otherwise, or a route that is not listed: every reading counts."""
    app = limited(Litestar(), "GET /items/{id}")
    assert await statuses(app, "/items/old", "//items/odd", "/items/new/") == [200, 429, 429]


async def test_the_root_path_goes() -> None:
    """Litestar takes what follows the root path, wherever that is."""
    app = Litestar()
    root = limited(app, "GET /items/{id:int}")
    scopes = [http_scope("GET", path, root_path="/api") for path in ("/api/items/3", "/x/api/items/3")]
    assert [(await send_scope(root, scope)).status for scope in scopes] == [200, 429]
    assert {path for path, _ in app.asgi_router.asked} == {"/items/3"}


async def test_websockets_are_asked_for_without_a_method() -> None:
    """As Litestar does."""
    app = Litestar()
    await send_scope(limited(app, "WEBSOCKET /items/{id:int}"), http_scope(path="/items/3", kind="websocket"))
    assert app.asgi_router.asked == [("/items/3", None)]


async def test_routes_that_come_later() -> None:
    """A route that is registered while requests come is known at once."""
    app = Litestar()
    wrapped = limited(app, "GET /items/{id:int}", "GET /items/late")
    assert await statuses(wrapped, "/items/3") == [200]
    handler = Handler()
    app.routes.append(Route("/items/late", "/items/late", handler))
    app.asgi_router.found["/items/late"] = (None, handler, "/items/late", {}, "/items/late")
    assert await statuses(wrapped, "/items/late", "/items/late/") == [200, 429]


async def test_exempt_paths_are_those_of_the_router() -> None:
    """A path is exempt as the router reads it."""
    app = limited(Litestar(), "GET /items/{id:int}", "*", exempt=["/items/3"])
    assert await statuses(app, *["//items/3"] * 3, "/items/-3", "/items/-3") == [200, 200, 200, 200, 429]


async def test_through_middlewares_and_round_the_router() -> None:
    """The router is found behind middlewares, and where the middleware is put round the router itself; not in a mount."""
    for app in (CORSMiddleware(Litestar()), Litestar().asgi_router):
        assert limited(app)._requests.endpoints.asked is None  # before the first request
        wrapped = limited(app, "GET /items/{id:int}")
        wrapped._look_at_the_application()
        assert wrapped._requests.endpoints.asked is not None
    mounted = limited(Starlette(routes=[Mount("/", Litestar())]), "GET /items/{id:int}")
    assert await statuses(mounted, "/items/3", "//items/3") == [200, 429]
    assert mounted._requests.endpoints.asked is None


async def test_a_choice_of_readings_is_kept() -> None:
    """Who chooses the readings is not overruled by what could be asked."""
    app = Litestar()
    assert await statuses(limited(app, "GET /items/{id}", path_readings="exact"), "/items/3", "//items/3") == [200, 200]
    assert app.asgi_router.asked == []


async def test_a_port_gets_the_path_of_the_router() -> None:
    """A limiter of which only the port is known is asked for the path as the router reads it."""
    asked: list[str] = []

    class Limiter:
        def __init__(self) -> None:
            self.inner = TokenBucketAdapter(storage=MemoryStorage(), rules={})

        async def is_allowed(self, *, endpoint: str, identifier: Any, cost: int = 0) -> Any:
            asked.append(endpoint)
            return await self.inner.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)

        async def get_remaining(self, *, endpoint: str, identifier: Any) -> Any:
            return await self.inner.get_remaining(endpoint=endpoint, identifier=identifier)

        async def reset(self, *, endpoint: str, identifier: Any) -> Any:
            return await self.inner.reset(endpoint=endpoint, identifier=identifier)

    await get(RateLimitMiddleware(Litestar(), limiter=Limiter()), "//items/3/")
    assert asked == ["GET /items/3"]


async def test_at_the_same_time() -> None:
    """Requests of all spellings at the same time take no more than the bucket has."""
    app = limited(Litestar(), "GET /items/{id:int}")
    answers = await asyncio.gather(*(get(app, path) for path in ("/items/3", "//items/3", "/items/-3/") * 5))
    assert sorted(answer.status for answer in answers) == [200] + [429] * 14
