"""What a router behind serves under another spelling of a path is counted, at once and once; where it is known, exactly so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RuleBook,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
)
from sluicegate.domain.rules.rule_book_entries import RuleGroup
from sluicegate.presentation.web.routes.endpoint_finder import Router
from sluicegate.presentation.web.routes.known_routers import known_router
from sluicegate.testing import FakeClock, RecordingLogger
from support.asgi_calls import get, http_scope, send_scope

TWO = RateLimitRule(2, 2, "ip", name="two")
ONE = RateLimitRule(1, 1, "ip", name="one")
ITEMS = {"GET /items/{id}": TWO}
EXACT = Router(exact=True, empty_parameters=False)
LOOSE = Router(empty_parameters=False)


async def any_router(scope: Any, receive: Any, send: Any) -> None:
    """Serve whatever is asked: a router of which nothing is known."""
    await PlainTextResponse("served")(scope, receive, send)


def limiter_of(rules: Any) -> TokenBucketAdapter:
    """Return a limiter on a clock that stands still."""
    return TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=rules)


def limited(app: Any, rules: Any, **options: Any) -> RateLimitMiddleware:
    """Return an application behind the middleware."""
    return RateLimitMiddleware(app, limiter=limiter_of(rules), **options)


async def statuses(app: Any, *paths: str) -> list[int]:
    """Return the statuses of one request after the other."""
    return [(await get(app, path)).status for path in paths]


@pytest.mark.parametrize(
    "path", ["//items/3", "/items//3", "/items/3/", "/x/../items/3", "http://a/items/3", "/items/3;v"]
)
async def test_another_spelling_is_counted(path: str) -> None:
    """A request is counted under the endpoint that some router would serve its path as."""
    assert await statuses(limited(any_router, ITEMS), "/items/1", "/items/2", path) == [200, 200, 429]


async def test_an_encoded_slash_is_counted() -> None:
    """A router that keeps `%2F` apart serves one segment."""
    app = limited(any_router, ITEMS)
    scope = http_scope("GET", "/items/a/b", raw_path=b"/items/a%2Fb")
    assert [(await send_scope(app, scope)).status for _ in range(3)] == [200, 200, 429]


def test_every_spelling_on_wsgi() -> None:
    """WSGI applications get the same, bytes that are not UTF-8 included."""

    def app(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"served"]

    def status(path: str) -> int:
        seen: list[int] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": "192.0.2.1"}
        list(middleware(environ, lambda line, *_: seen.append(int(line[:3]))))
        return seen[0]

    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=ITEMS)
    middleware = WSGIRateLimitMiddleware(app, limiter=limiter)
    assert [status(path) for path in ("//items/1", "/items\xff/2", "/items//3/")] == [200, 200, 429]


async def test_all_endpoints_or_none() -> None:
    """A request that belongs to two endpoints takes from both or from neither, in one check."""
    rules = {"GET /items/{id}": TWO, "GET /items/special": ONE}
    app = limited(any_router, rules)
    answers = [await get(app, path) for path in ("/items/special", "/items/special", "/items/1", "/items/2")]
    assert [answer.status for answer in answers] == [200, 429, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"two";q=2;w=60, "one";q=1;w=60'


async def test_a_shared_bucket_is_charged_once() -> None:
    """Two endpoints of a group have one bucket: a request that belongs to both takes from it once."""
    group = RuleGroup(name="items", rules=(TWO,), endpoints=("GET /items/{id}", "GET /items/special"))
    app = limited(any_router, RuleBook({}, groups=[group]))
    assert await statuses(app, "/items/special", "/items/special", "/items/special") == [200, 200, 429]


async def test_the_greater_cost_of_a_shared_bucket_counts() -> None:
    """Where two endpoints of a group cost differently, the request that belongs to both takes the greater cost."""
    rule = RateLimitRule(4, 4, "ip", name="four")
    group = RuleGroup(name="items", rules=(rule,), endpoints=("GET /items/{id}", "GET /items/special"))
    app = limited(any_router, RuleBook({}, groups=[group], costs={"GET /items/special": 2}))
    assert await statuses(app, *["/items/special"] * 3) == [200, 200, 429]


async def test_scopes_of_all_endpoints() -> None:
    """Each rule counts by its own scope, also where the endpoints of a request have different ones."""
    rules = {"GET /items/{id}": RateLimitRule(5, 5, "ip"), "GET /items/special": RateLimitRule(1, 1, "user")}
    app = limited(any_router, rules, identifiers={"user": lambda scope: scope["state"].get("user")})
    assert [(await get(app, "/items/special", state={"user": name})).status for name in "aba"] == [200, 200, 429]


async def test_unmatched_paths_count_as_such_as_well() -> None:
    """A path that no template fits as it is has the rules of unmatched endpoints too, whatever else it may be read as."""
    app = limited(any_router, ITEMS | {"*": ONE})
    assert await statuses(app, "/items/1", "//items/2", "//items/3", "/nowhere") == [200, 200, 429, 429]


async def test_the_provider_in_another_spelling() -> None:
    """`user_provider` counts what stands in the reading of the path that fits its template."""
    rules = {"GET /oauth/{provider}": RateLimitRule(1, 1, "user_provider")}
    app = limited(any_router, rules)
    assert await statuses(app, "/oauth/a", "//oauth/a", "/oauth/b", "/oauth//b/") == [200, 429, 200, 429]


async def test_an_exempt_path_that_leads_elsewhere() -> None:
    """A path that is exempt in one reading is counted if a template fits another one; else it stays exempt."""
    app = limited(any_router, ITEMS | {"*": ONE}, exempt=["/static/*"])
    assert await statuses(app, *["/static/../items/1"] * 3) == [200, 200, 429]
    assert await statuses(app, *["/static//a", "/static/%zz", "/static/a/"] * 2) == [200] * 6


@pytest.mark.parametrize(
    ("readings", "expected"),
    [("exact", [200, 200, 200, 200]), ("every", [200, 200, 429, 200]), ("every_ignoring_case", [200, 200, 429, 429])],
)
async def test_the_option(readings: str, expected: list[int]) -> None:
    """Users choose the readings, and what they choose is not changed by what the application is."""
    paths = ("//items/1", "/items/2/", "//items/3", "/ITEMS/4")
    app = limited(any_router, ITEMS, path_readings=readings)
    assert await statuses(app, *paths) == expected
    routed = limited(
        Starlette(routes=[Route("/{rest:path}", lambda _: PlainTextResponse("served"))]), ITEMS, path_readings=readings
    )
    assert await statuses(routed, *paths) == expected


def test_a_wrong_option() -> None:
    """An unknown choice is refused with the choices there are."""
    with pytest.raises(InvalidInputError, match="path_readings='any': expected one of auto, exact, every"):
        RateLimitMiddleware(any_router, rules=ITEMS, path_readings="any")  # type: ignore[arg-type]


def endpoint(_: Request) -> PlainTextResponse:
    """Answer."""
    return PlainTextResponse("served")


async def test_starlette_is_read_exactly() -> None:
    """What Starlette does not serve under an endpoint is not counted under it, inside it or wrapped round it."""
    rules = {"GET /items/{id}": ONE, "GET /{rest:path}": TWO}
    routes = [Route("/items/{id}", endpoint), Route("/{rest:path}", endpoint)]
    inside = Starlette(routes=routes, middleware=[Middleware(RateLimitMiddleware, limiter=limiter_of(rules))])
    for app in (inside, limited(Starlette(routes=routes), rules)):
        assert await statuses(app, "//items/1", "/items/2/", "/items/3", "/items/4") == [200, 200, 200, 429]


def fastapi_with(*mounted: Any) -> FastAPI:
    """Return an application with an included router, and with others mounted."""
    app, router = FastAPI(), APIRouter(prefix="/v1")
    router.add_api_route("/items/{id}", endpoint)
    app.include_router(router)
    for number, one in enumerate(mounted):
        app.mount(f"/sub{number}", one)
    return app


class Quart:
    """Stands for an application of another framework."""

    __module__ = "quart.app"

    def wsgi_app(self) -> None:
        """Stand for the method that middlewares wrap."""


class Dispatcher:
    """Stands for Werkzeug's dispatcher, which has one application for what no mount takes."""

    def __init__(self) -> None:
        self.app = Quart()
        self.mounts = {"/sub": any_router}


class Application:
    """Stands for an application whose router takes letters in either case."""

    __module__ = "blacksheep.server.application"


@pytest.mark.parametrize(
    ("app", "router"),
    [
        (any_router, Router()),
        (object(), Router()),
        (Starlette(routes=[Route("/", endpoint)]), EXACT),
        (Starlette(routes=[Mount("/sub", Starlette(routes=[Route("/", endpoint)]))]), EXACT),
        (Starlette(routes=[Mount("/sub", any_router)]), Router()),
        (Starlette(routes=[Route("/x/{rest:path}", any_router)]), EXACT),
        (Starlette(routes=[Route("/x/{rest:path}", PlainTextResponse("an application"))]), Router()),
        (Starlette(routes=[Mount("/static", StaticFiles(directory="."))]), Router()),
        (fastapi_with(), EXACT),
        (fastapi_with(FastAPI()), EXACT),
        (fastapi_with(FastAPI(), Quart()), LOOSE),
        (fastapi_with(Application(), Quart()), Router(ignoring_case=True, empty_parameters=False)),
        (fastapi_with(fastapi_with(any_router)), Router()),
        (limited(fastapi_with(), ITEMS), EXACT),
        (Quart(), LOOSE),
        (Quart().wsgi_app, LOOSE),
        (Dispatcher(), Router()),
    ],
)
def test_which_router_an_application_has(app: Any, router: Router) -> None:
    """A router is known by its application, through middlewares and in mounts; what one of them needs holds for all."""
    assert known_router(app).router == router


async def test_a_root_path_that_the_application_sets_itself() -> None:
    """FastAPI puts its own root path into the scope after a middleware round it has seen it: both are the same endpoint."""
    app = FastAPI()
    app.root_path = "/api"  # as the argument does, which newer versions deprecate
    app.add_api_route("/items/{id}", endpoint)
    assert await statuses(limited(app, ITEMS), "/items/1", "/api/items/2", "/api/items/3") == [200, 200, 429]


async def test_routes_added_before_the_first_request() -> None:
    """The application is looked at when it gets its first request, not when it is wrapped."""
    app = Starlette()
    wrapped = limited(app, ITEMS)
    app.mount("/", any_router)
    assert await statuses(wrapped, "//items/1", "/items/2/", "/items/3") == [200, 200, 429]


async def test_readings_under_concurrency() -> None:
    """Requests at the same time, each of two endpoints, take no more than the tightest rule has."""
    app = limited(any_router, {"GET /items/{id}": TWO, "GET /items/special": ONE})
    answers = await asyncio.gather(*(get(app, "/items/special") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [429] * 19


async def test_a_scope_that_a_reload_brings() -> None:
    """A scope that nothing names, of rules that are reloaded while requests come, is reported once."""
    log = RecordingLogger()
    limiter = limiter_of(ITEMS)
    app = RateLimitMiddleware(any_router, limiter=limiter, logger=log)
    limiter.rules.replace(RuleBook({"GET /items/{id}": RateLimitRule(9, 9, "ipp")}))
    assert await statuses(app, "/items/1", "/items/2") == [200, 200]
    (record,) = log.records
    assert record[1].startswith(
        "identifiers: has no function for the scope 'ipp', which a rule or list counts (did you mean 'ip'?)"
    )


def test_a_frontend_is_not_read_exactly(tmp_path: Path) -> None:
    """Files that FastAPI serves beside its routes are found under several spellings of their paths."""
    app = FastAPI()
    if not hasattr(app, "frontend"):
        pytest.skip("this FastAPI has no frontend")
    assert known_router(app).router == EXACT
    app.frontend("/", directory=str(tmp_path))
    assert not known_router(app).router.exact
