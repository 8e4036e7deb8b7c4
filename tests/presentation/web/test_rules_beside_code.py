"""Rules beside code have buckets of their own where they should, are charged once for a request, and belong to the process."""

import functools
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from flask import Blueprint, Flask, g
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.responses import Response as StarletteResponse
from starlette.routing import Mount, Route

from sluicegate import (
    Failure,
    FlaskRateLimit,
    InvalidInputError,
    InvalidTypeError,
    MemoryStorage,
    Override,
    RateLimitedError,
    RateLimitError,
    RateLimitMiddleware,
    RateLimitRule,
    RedisStorage,
    RuleBook,
    Success,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
    container,
    exempt,
    get_rate_limit,
    get_sync_rate_limit,
    rate_limited,
)
from sluicegate.fastapi import install_rate_limits, rate_limit
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.presentation.web import request_record
from sluicegate.testing import FakeClock, RecordingLogger
from support import django_project
from support.asgi_calls import get, http_scope, send_scope
from support.redis_servers import RedisServer

assert django_project.settings.configured, "before what follows is imported"

from rest_framework import routers, viewsets  # noqa: E402
from rest_framework.decorators import api_view, throttle_classes  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from sluicegate.rest_framework import throttle  # noqa: E402


@pytest.fixture
def limiter() -> TokenBucketAdapter:
    """A limiter on a clock that stands still."""
    return TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})


@pytest.fixture
def blocking() -> SyncTokenBucketAdapter:
    """The same for code without an event loop."""
    return SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})


@pytest.fixture
def _process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process with a rules file, whose limiters are not built yet."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[policies]\nauth_login = "1/minute"\n[endpoints]\n"GET /other" = "9/minute"\n')
    monkeypatch.setenv("SLUICEGATE_RULES", str(rules))
    monkeypatch.setenv("SLUICEGATE_RULES_WATCH", "off")
    for cached in (container.get_rate_limit, container.get_sync_rate_limit):
        cached.cache_clear()
    yield
    for cached in (container.get_rate_limit, container.get_sync_rate_limit):
        cached.cache_clear()


async def statuses(app: Any, *paths: str) -> list[int]:
    """Return the statuses of requests, one after the other."""
    return [(await get(app, path)).status for path in paths]


# Buckets


async def test_the_same_path_below_two_mounts(limiter: TokenBucketAdapter) -> None:
    """Applications that are mounted have buckets of their own, a mount's parameter does not multiply them."""
    limit = rate_limit("1/minute", limiter=limiter)

    def inner() -> FastAPI:
        app = FastAPI()
        install_rate_limits(app)
        app.get("/items", dependencies=[Depends(limit)])(lambda: None)
        return app

    app = FastAPI()
    app.mount("/a", inner())
    app.mount("/b", inner())
    app.mount("/of/{tenant}", inner())
    deep = FastAPI()
    deep.mount("/a", inner())
    app.mount("/deep", deep)
    asked = ("/a/items", "/b/items", "/a/items", "/of/x/items", "/of/y/items", "/deep/a/items", "/deep/a/items")
    assert await statuses(app, *asked) == [200, 200, 429, 200, 429, 200, 429]
    assert set(limiter.rules.beside_code) == {
        "GET /items", "GET /a/items", "GET /b/items", "GET /of/{tenant}/items", "GET /deep/a/items",
    }  # fmt: skip


async def test_a_root_path_is_no_mount(limiter: TokenBucketAdapter) -> None:
    """What a server puts before all paths is no part of the names of buckets."""
    app = FastAPI()
    app.get("/items", dependencies=[Depends(rate_limit("9/minute", limiter=limiter))])(lambda: None)
    scope = http_scope(path="/api/items", root_path="/api")
    assert (await send_scope(app, scope)).status == 200
    assert set(limiter.rules.beside_code) == {"GET /items"}


def test_views_of_rest_framework(blocking: SyncTokenBucketAdapter) -> None:
    """Two functions, and two actions of a view set, do not share buckets; two methods of a view do."""
    limit = throttle("1/minute", limiter=blocking)

    @api_view(["GET", "POST"])
    @throttle_classes([limit])
    def one(_: Any) -> Response:
        return Response()

    @api_view(["GET"])
    @throttle_classes([limit])
    def other(_: Any) -> Response:
        return Response()

    class Users(viewsets.ViewSet):
        throttle_classes = (limit,)

        def list(self, _: Any) -> Response:
            return Response([])

        def create(self, _: Any) -> Response:
            return Response({})

        def retrieve(self, _: Any, pk: str) -> Response:
            return Response({"user": pk})

    router = routers.SimpleRouter()
    router.register("users", Users, basename="user")
    routes = django_project.Routes(path("one/", one), path("other/", other), *router.urls)
    with override_settings(ROOT_URLCONF=routes, MIDDLEWARE=[]):
        client = Client()
        asked = [client.get("/one/"), client.get("/other/"), client.post("/one/")]
        assert [answer.status_code for answer in asked] == [200, 200, 429]
        asked = [client.get("/users/"), client.post("/users/"), client.get("/users/1/"), client.get("/users/2/")]
        assert [answer.status_code for answer in asked] == [200, 200, 200, 429]


# Charged once


async def test_the_same_rule_on_the_application_and_on_the_route(limiter: TokenBucketAdapter) -> None:
    """Equal rules of one endpoint are charged once for a request, and told once; another rule, or cost, is charged too."""

    def limit(*rules: Any, **options: Any) -> Any:
        return Depends(rate_limit(*rules, limiter=limiter, **options))

    app = FastAPI(dependencies=[limit("3/minute")])
    install_rate_limits(app)
    router = APIRouter(dependencies=[limit("3/minute")])
    router.get("/same", dependencies=[limit("3/minute")])(lambda: None)
    router.get("/other", dependencies=[limit("2/hour")])(lambda: None)
    router.get("/dear", dependencies=[limit("3/minute", cost=2)])(lambda: None)
    app.include_router(router)
    answer = await get(app, "/same")
    assert answer.headers["ratelimit"] == '"ip-3-60s";r=2;t=20'
    assert [name for name, _ in answer.messages[0]["headers"]].count(b"ratelimit") == 1
    assert await statuses(app, *["/same"] * 3) == [200, 200, 429]
    assert await statuses(app, *["/other"] * 3) == [200, 200, 429]
    assert await statuses(app, *["/dear"] * 2) == [200, 429]


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_two_middlewares_with_an_equal_rule(where: str, request: pytest.FixtureRequest) -> None:
    """They behave alike in memory, where each has buckets of its own, and on Redis, where they share them."""
    storages: list[Any] = []

    def storage() -> Any:
        server: RedisServer = request.getfixturevalue("redis_server")
        one = MemoryStorage() if where == "memory" else RedisStorage.from_url(server.url, deadline_ms=10_000)
        storages.append(one)
        return one

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    served: Any = app
    for _ in range(2):
        limited = TokenBucketAdapter(storage=storage(), rules={"*": RateLimitRule(4, 0.001, "ip")}, deadline_ms=10_000)
        served = RateLimitMiddleware(served, limiter=limited)
    assert await statuses(served, *["/"] * 5) == [200] * 4 + [429]
    for one in storages:
        await one.aclose()


@pytest.mark.parametrize("where", ["memory", "redis"])
@pytest.mark.usefixtures("_process")
async def test_two_middlewares_with_different_rules(
    where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counts in buckets of its own, in memory and on Redis, whichever of them is outside; an equal rule is shared."""
    server: RedisServer | None = None
    if where == "redis":
        server = request.getfixturevalue("redis_server")
        monkeypatch.setenv("SLUICEGATE_STORAGE_URL", server.url)
        monkeypatch.setenv("SLUICEGATE_DEADLINE_MS", "10000")
    get_rate_limit().rules.replace({"GET /file": "4/day"})
    page = Starlette(routes=[Route("/{name}", lambda _: StarletteResponse())])
    rules: list[Any] = [
        {"GET /a": "5/day", "GET /b": "3/day", "GET /c": ("9/day", "7 per 2 days"), "GET /file": "4/day"},
        {"GET /a": "2/hour", "GET /b": "3/day", "GET /c": ("9/day", "3 per 2 days"), "GET /file": "2/day"},
    ]
    inner = RateLimitMiddleware(page, rules=rules[0])
    outer = RateLimitMiddleware(inner, rules=rules[1])
    limiters: list[Any] = [inner.limiter, outer.limiter]
    for name, passed in (("/a", 2), ("/b", 3), ("/c", 3), ("/file", 2)):
        assert await statuses(outer, *[name] * (passed + 1)) == [200] * passed + [429]
    left = [(await one.get_remaining(endpoint="GET /a", identifier="192.0.2.1")).value for one in limiters]
    assert left == [3, 0]
    if server is not None:
        keys: Any = server.client().keys("rate_limit:*:GET /a")
        assert sorted(keys) == ["rate_limit:ip:192.0.2.1:GET /a", "rate_limit:ip~&5-86400s:192.0.2.1:GET /a"]
        assert len(cast("Any", server.client().keys("rate_limit:*:GET /b"))) == 1
    outer.limiter.rules.switch_off()  # and what operators do meanwhile means these buckets
    await outer.limiter.reset(endpoint="GET /a", identifier="192.0.2.1")
    outer.limiter.rules.switch_on()
    assert await statuses(outer, *["/a"] * 3) == [200, 200, 429]
    for one in limiters:
        await one.aclose()


@pytest.mark.parametrize("where", ["memory", "redis"])
@pytest.mark.usefixtures("_process")
async def test_rules_with_names_of_their_own_count_apart_below_two_mounts(
    where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same limit for the same inner path, in memory and on Redis."""
    if where == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        monkeypatch.setenv("SLUICEGATE_STORAGE_URL", server.url)
        monkeypatch.setenv("SLUICEGATE_DEADLINE_MS", "10000")
    page = Starlette(routes=[Route("/{name}", lambda _: StarletteResponse())])
    mounted = {
        name: RateLimitMiddleware(page, rules={"GET /a": RateLimitRule(2, 0.001, "ip", name=name)})
        for name in ("shop", "blog")
    }
    app = Starlette(routes=[Mount(f"/{name}", one) for name, one in mounted.items()])
    for name in ("shop", "blog"):
        assert await statuses(app, *[f"/{name}/a"] * 3) == [200, 200, 429]
    for one in mounted.values():
        await cast("TokenBucketAdapter", one.limiter).aclose()


@pytest.mark.usefixtures("_process")
async def test_which_of_different_rules_has_a_key_does_not_depend_on_their_order() -> None:
    """Workers build the middlewares of mounted applications as they are asked for, and share buckets all the same."""
    page = Starlette()
    texts = ["5/day", "2/hour", "9/minute"]
    built: list[set[tuple[str, Any]]] = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        made = {texts[nth]: RateLimitMiddleware(page, rules={"GET /a": texts[nth]}) for nth in order}
        limiters = {text: cast("TokenBucketAdapter", one.limiter) for text, one in made.items()}
        built.append({(text, *one.current_rules().keys_of("GET /a")) for text, one in limiters.items()})
        del made, limiters
        gc.collect()
    assert built[0] == built[1] == built[2]
    assert len({key for _, key in built[0]}) == 3
    alone = cast("TokenBucketAdapter", RateLimitMiddleware(page, rules={"GET /a": "9/minute"}).limiter)
    assert list(alone.current_rules().keys_of("GET /a")) == [("rate_limit:ip:", ":GET /a")]


async def test_limiters_that_spoil_each_others_buckets_are_reported(redis_server: RedisServer) -> None:
    """Who gives two middlewares limiters of his own, with different rules, is told once; not of different prefixes or scopes."""
    logger = RecordingLogger()

    async def told(*rules: Any, **settings: Any) -> list[str]:
        logger.records.clear()
        redis_server.client().flushall()
        served: Any = Starlette(routes=[Route("/{page}", lambda _: StarletteResponse())])
        limiters: list[TokenBucketAdapter] = []
        for nth, rule in enumerate(rules):
            storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
            prefix = f"limits{nth if settings else ''}"
            limiters.append(TokenBucketAdapter(storage=storage, rules={"*": rule}, key_prefix=prefix))
            served = RateLimitMiddleware(served, limiter=limiters[-1], logger=logger)
        assert await statuses(served, "/x", "/x") == [200, 200]
        for limiter in limiters:
            await limiter.aclose()
        return [message for level, message, _ in logger.records if level == "warning"]

    request_record._reported.clear()
    assert await told("5/day", "5/day") == []
    assert await told("5/day", "6/day per global") == []
    assert await told("5/day", "6/day", apart=True) == []
    (message,) = await told("5/day", "6/day")
    assert message.startswith("Two limiters count different rules for '*' in buckets of the same name")
    assert await told("5/day", "7/day") == []


# The process


@pytest.mark.usefixtures("_process")
async def test_switches_of_the_process() -> None:
    """The kill switch and the deny list of the process reach dependencies, decorators and middlewares with rules of their own."""
    app = FastAPI()
    install_rate_limits(app)
    app.get("/login", dependencies=[Depends(rate_limit("auth_login"))])(lambda: None)

    @rate_limited("1/minute")
    async def awaited() -> None: ...

    @rate_limited("1/minute")
    def plain() -> None: ...

    asgi = RateLimitMiddleware(Starlette(routes=[Route("/", lambda _: None)]), rules={"GET /x": "1/minute"})
    wsgi = WSGIRateLimitMiddleware(lambda _, start: start("404 Not Found", []) or [], rules={"GET /x": "auth_login"})

    async def all_denied() -> list[bool]:
        denied = [(await get(app, "/login")).status == 429]
        for call in (awaited, plain):
            try:
                answer = call()
                if answer is not None:
                    await answer
                denied.append(False)
            except RateLimitedError:
                denied.append(True)
        denied.append((await get(asgi, "/x")).status == 429)
        seen: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "REMOTE_ADDR": "192.0.2.1"}
        list(wsgi(environ, lambda status, _: seen.append(status)))
        return [*denied, seen[0].startswith("429")]

    assert await all_denied() == [False] * 5
    assert await all_denied() == [True] * 5
    rules = get_rate_limit().rules
    assert get_sync_rate_limit().rules is rules
    rules.switch_off(reason="a test")
    assert await all_denied() == [False] * 5
    rules.switch_on()
    assert await all_denied() == [True] * 5
    rules.replace(parse_rules('kill_switch = true\n[policies]\nauth_login = "1/minute"\n'))
    assert await all_denied() == [False] * 5
    rules.replace(parse_rules('[policies]\nauth_login = "1/minute"\n[allow]\nip = ["192.0.2.1"]\n'))
    assert await all_denied() == [False, True, True, False, False]
    with pytest.raises(InvalidInputError, match="'auth_login': no policy"):
        rules.replace({})


@pytest.mark.usefixtures("_process")
async def test_reset_knows_code_by_its_name() -> None:
    """A route by method and path, a function by module and name; also from the limiter of the other kind."""
    app = FastAPI()
    install_rate_limits(app)
    app.get("/items/{item}", dependencies=[Depends(rate_limit("1/minute"))])(lambda item: None)

    @rate_limited("1/minute", identifier=lambda who: who)
    def send(who: str) -> None: ...

    assert await statuses(app, "/items/1", "/items/2") == [200, 429]
    send("ann")
    limiter = get_rate_limit()
    for endpoint in ("GET /items/{item}", "GET /items/7"):
        assert await limiter.get_remaining(endpoint=endpoint, identifier="192.0.2.1") == Success(0)
    await limiter.reset(endpoint="GET /items/{item}", identifier="192.0.2.1")
    assert await statuses(app, "/items/1", "/items/2") == [200, 429]
    name = f"{send.__module__}.{send.__qualname__}"
    assert await limiter.get_remaining(endpoint=name, identifier="ann") == Success(0)
    get_sync_rate_limit().reset(endpoint=name, identifier="ann")
    send("ann")


@pytest.mark.parametrize("face", ["async", "sync"])
@pytest.mark.usefixtures("_process")
async def test_reset_all_of_the_process(face: str) -> None:
    """One call reaches the buckets of dependencies, decorators of both kinds, and middlewares built from the settings."""
    app = FastAPI()
    app.get("/login", dependencies=[Depends(rate_limit("auth_login", "1/hour per user"))])(lambda: None)

    @rate_limited("1/minute")
    async def awaited() -> None: ...

    @rate_limited("1/minute", identifier=lambda: "ann")
    def plain() -> None: ...

    page = Starlette(routes=[Route("/x", lambda _: StarletteResponse())])
    own = RateLimitMiddleware(page, rules={"GET /x": "1/minute"})
    of_file = RateLimitMiddleware(page, rules=None)
    wsgi = WSGIRateLimitMiddleware(lambda _, start: start("200 OK", []) or [], rules={"GET /x": "1/minute per user"})
    get_rate_limit().rules.replace(
        parse_rules('[policies]\nauth_login = "1/minute"\n[endpoints]\n"GET /x" = "1/hour"\n')
    )
    other = TokenBucketAdapter(storage=get_rate_limit().storage, rules={"a": "1/minute"}, key_prefix="others")

    async def passed() -> list[bool]:
        found = [(await get(app, "/login")).status == 200]
        for call in (awaited, plain):
            try:
                answer = call()
                if answer is not None:
                    await answer
                found.append(True)
            except RateLimitedError:
                found.append(False)
        found += [(await get(one, "/x")).status == 200 for one in (own, of_file)]
        seen: list[str] = []
        list(
            wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "REMOTE_ADDR": "192.0.2.1"}, lambda s, _: seen.append(s))
        )
        return [*found, seen[0].startswith("200"), (await other.is_allowed(endpoint="a", identifier="x")).value.allowed]

    assert await passed() == [True] * 7
    assert await passed() == [False] * 7
    done = await get_rate_limit().reset_all() if face == "async" else get_sync_rate_limit().reset_all()
    assert done == Success(None)
    assert await passed() == [True] * 6 + [False]


@pytest.mark.usefixtures("_process")
async def test_the_off_switch_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLUICEGATE_ENABLED=false stops all of it."""
    monkeypatch.setenv("SLUICEGATE_ENABLED", "false")
    app = FastAPI(dependencies=[Depends(rate_limit("auth_login"))])
    app.get("/x")(lambda: None)
    app.add_middleware(RateLimitMiddleware, rules={"*": "1/minute"})  # type: ignore[arg-type]
    assert await statuses(app, *["/x"] * 3) == [200] * 3

    @rate_limited("1/minute")
    def plain() -> None: ...

    plain()
    plain()
    monkeypatch.setenv("SLUICEGATE_ENABLED", "perhaps")
    container.get_rate_limit.cache_clear()
    with pytest.raises(InvalidInputError, match="SLUICEGATE_ENABLED='perhaps'"):
        get_rate_limit()


async def test_rules_that_follow_and_no_longer_fit() -> None:
    """If an operator's override does not fit derived rules, those before stay in force, and it is said."""
    logger = RecordingLogger()
    policies = {"p": RateLimitRule(1, 1, "user", name="p")}
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=RuleBook({}, policies=policies), logger=logger)
    derived = limiter.with_rules({"a": RateLimitRule(1, 1, "ip", name="p")})
    assert (await derived.is_allowed(endpoint="a", identifier="10.0.0.1")).value.allowed  # type: ignore[union-attr]
    override = Override(policy="p", identifier="no address", rule=RateLimitRule(9, 9, "user"))
    limiter.rules.replace(RuleBook({}, policies=policies, overrides=[override]))
    for _ in range(2):
        assert not (await derived.is_allowed(endpoint="a", identifier="10.0.0.1")).value.allowed  # type: ignore[union-attr]
    assert [text for level, text, _ in logger.records if level == "error"] == [
        "Rate limit rules refused; those before stay in force."
    ]


# Flask


def test_blueprints_and_other_options_of_flask(blocking: SyncTokenBucketAdapter) -> None:
    """Each view of a blueprint has its own bucket, unless they share a name; methods may be chosen; views may be exempt."""
    app, extension = Flask(__name__), FlaskRateLimit(limiter=blocking)
    extension.init_app(app)
    api = extension.limit("1/minute")(Blueprint("api", __name__))
    for name in ("a", "b"):
        api.get(f"/{name}", endpoint=name)(lambda: "")
    api.get("/free", endpoint="free")(extension.exempt(lambda: ""))
    shared = extension.limit("1/minute", name="shared")
    for name in ("c", "d"):
        app.get(f"/{name}", endpoint=name)(shared(lambda: ""))
    app.route("/e", methods=["GET", "POST"])(extension.limit("1/minute", methods=["POST"])(lambda: ""))
    app.register_blueprint(api, url_prefix="/api")
    quiet = extension.exempt(Blueprint("quiet", __name__))
    quiet.get("/quiet")(lambda: "")
    app.register_blueprint(quiet)
    client = app.test_client()
    asked = ["/api/a", "/api/b", "/api/a", "/api/free", "/api/free", "/c", "/d", "/quiet", "/quiet"]
    assert [client.get(path).status_code for path in asked] == [200, 200, 429, 200, 200, 200, 429, 200, 200]
    assert [client.get("/e").status_code for _ in range(2)] == [200, 200]
    assert [client.post("/e").status_code for _ in range(2)] == [200, 429]


def test_flasks_own_error_handler(blocking: SyncTokenBucketAdapter) -> None:
    """A denial goes to `errorhandler(429)`; the fields that it leaves out are added."""
    app = Flask(__name__)
    FlaskRateLimit(app, limiter=blocking.with_rules({"GET /": RateLimitRule(1, 1, "ip")}))
    app.get("/")(lambda: "")
    seen: list[Any] = []

    @app.errorhandler(429)
    def answer(error: Any) -> Any:
        seen.append(error.denial.decision.result.retry_after)
        return "slow down", 429

    client = app.test_client()
    assert client.get("/").status_code == 200
    denied = client.get("/")
    assert (denied.status_code, denied.text, seen) == (429, "slow down", [60.0])
    assert (denied.headers["Retry-After"], denied.headers["Content-Type"]) == ("60", "text/html; charset=utf-8")


def test_flask_after_authentication(blocking: SyncTokenBucketAdapter) -> None:
    """The check may run after all functions of `before_request`, those of blueprints too, which know the user."""
    rules = blocking.with_rules({"GET /<name>": RateLimitRule(1, 1, "user")})
    app = Flask(__name__)
    FlaskRateLimit(app, limiter=rules, after_authentication=True, identifiers={"user": lambda _: g.get("user")})
    api = Blueprint("api", __name__)

    @api.before_request
    def sign_in() -> Any:
        g.user = flask_request.headers.get("X-User")
        return None if g.user else ("who?", 401)

    api.get("/<name>")(lambda name: name)
    app.register_blueprint(api)
    client = app.test_client()

    def status(user: str) -> int:
        return client.get("/x", headers={"X-User": user} if user else {}).status_code

    assert [status(user) for user in ("ann", "ann", "bob", "", "")] == [200, 429, 200, 401, 401]


# Websockets


async def test_messages_of_a_websocket(limiter: TokenBucketAdapter) -> None:
    """Each message counts, apart from the handshake; one too many closes the connection."""
    app = FastAPI()
    messages = rate_limit("2/minute", limiter=limiter)

    @app.websocket("/feed", dependencies=[Depends(rate_limit("9/minute", limiter=limiter))])
    async def feed(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            await messages.message(socket)
            await socket.send_text("counted")

    sent: list[Any] = []
    incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": "x"}] * 4

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(http_scope(path="/feed", kind="websocket"), receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", *["websocket.send"] * 2, "websocket.close"]
    assert sent[-1]["code"] == 1008
    assert set(limiter.rules.beside_code) == {"WEBSOCKET /feed", "MESSAGE /feed"}


# What is decorated


async def test_odd_functions(limiter: TokenBucketAdapter, blocking: SyncTokenBucketAdapter) -> None:
    """Partials, objects, class and static methods and generators are limited as functions are."""

    async def add(one: int, other: int) -> int:
        return one + other

    class Adder:
        async def __call__(self, one: int) -> int:
            return one

        @rate_limited("1/minute", limiter=blocking)
        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

        @classmethod
        @rate_limited("1/minute", limiter=blocking)
        def below(cls) -> str:
            return cls.__name__

        @rate_limited("1/minute", limiter=blocking)
        @staticmethod
        def static() -> str:
            return "static"

    partial_, object_ = functools.partial(add, 1), Adder()
    for function, arguments in ((partial_, (2,)), (object_, (3,))):
        limited: Any = rate_limited("1/minute", limiter=limiter)(function)
        assert await limited(*arguments) == 3
        with pytest.raises(RateLimitedError):
            await limited(*arguments)
    assert {name.rpartition(".")[2] for name in limiter.rules.beside_code} == {"add", "Adder"}
    for method, answer in ((Adder.of_class, "Adder"), (Adder.below, "Adder"), (object_.static, "static")):
        assert method() == answer
        with pytest.raises(RateLimitedError):
            method()


async def test_an_asynchronous_generator(limiter: TokenBucketAdapter) -> None:
    """It is denied when its first item is asked for; what is sent, thrown and closed reaches it."""
    seen: list[Any] = []

    @rate_limited("2/minute", limiter=limiter)
    async def numbers(first: int) -> AsyncIterator[int]:
        try:
            while True:
                try:
                    seen.append((yield first))
                except LookupError as error:
                    seen.append(error.args)
                first += 1
        finally:
            seen.append("closed")

    stream: Any = numbers(5)
    assert [await anext(stream), await stream.asend("a"), await stream.athrow(LookupError(1))] == [5, 6, 7]
    await stream.aclose()
    assert seen == ["a", (1,), "closed"]
    assert [item async for item in _first(numbers(1))] == [1]
    with pytest.raises(RateLimitedError):
        await anext(numbers(1))


async def _first(stream: Any) -> AsyncIterator[int]:
    yield await anext(stream)
    await stream.aclose()


def test_what_cannot_be_decorated(limiter: TokenBucketAdapter, blocking: SyncTokenBucketAdapter) -> None:
    """Classes, values, and a coroutine function for what a plain function counts."""

    class Thing: ...

    async def who() -> str:
        return "x"

    limit: Any = rate_limited("1/minute", limiter=blocking)
    with pytest.raises(InvalidTypeError, match="Thing: a class"):
        limit(Thing)
    with pytest.raises(InvalidTypeError, match="5: expected a function"):
        limit(5)
    named: Any = rate_limited("1/minute", limiter=blocking, identifier=who)
    with pytest.raises(InvalidTypeError, match="identifier=.*coroutine function"):
        named(lambda: None)
    with pytest.raises(InvalidTypeError, match=r"rules\[0\]=.*coroutine function"):
        rate_limited(who, limiter=limiter)  # type: ignore[arg-type]


def test_above_the_decorator_that_registers(blocking: SyncTokenBucketAdapter, limiter: TokenBucketAdapter) -> None:
    """There the framework goes on calling the function itself: it is refused, and told how it is right."""
    limit = rate_limited("1/minute", limiter=limiter)
    fastapi, flask, router = FastAPI(), Flask(__name__), APIRouter()
    extension = FlaskRateLimit(flask, limiter=blocking)
    for register in (fastapi.get("/"), router.get("/"), fastapi.websocket("/ws")):
        with pytest.raises(InvalidInputError, match="registered as a view already"):

            @limit
            @register
            async def awaited() -> None: ...

    for decorate in (rate_limited("1/minute", limiter=blocking), extension.limit("1/minute")):
        with pytest.raises(InvalidInputError, match="registered as a view already"):

            @decorate
            @flask.get(f"/{id(decorate)}", endpoint=str(id(decorate)))
            def plain() -> str:
                return ""

    @fastapi.get("/right")
    @limit
    async def right() -> None: ...


async def test_a_mounted_view_that_is_exempt(limiter: TokenBucketAdapter) -> None:
    """The middleware finds the view behind mounts and included routers as the router does."""

    @exempt
    async def free(_: Request) -> Any:
        from starlette.responses import PlainTextResponse  # noqa: PLC0415

        return PlainTextResponse("")

    app = FastAPI()
    router = APIRouter()
    router.get("/free")(exempt(lambda: None))
    router.get("/counted")(lambda: None)
    app.include_router(router, prefix="/api")
    app.mount("/sub", Starlette(routes=[Mount("/deep", routes=[Route("/free", free)])]))
    app.add_middleware(RateLimitMiddleware, limiter=limiter.with_rules({"*": "2/minute"}))  # type: ignore[arg-type]
    assert await statuses(app, *["/api/free", "/sub/deep/free"] * 3) == [200] * 6
    assert await statuses(app, *["/api/counted"] * 3) == [200, 200, 429]


async def test_a_rule_function_that_never_worked(limiter: TokenBucketAdapter) -> None:
    """Before it has returned any rules its error is the application's own."""

    @rate_limited(lambda: 1 // 0, limiter=limiter)  # type: ignore[arg-type,return-value]
    async def call() -> None: ...

    with pytest.raises(ZeroDivisionError):
        await call()


def test_a_middleware_of_django_that_is_asked_for_more(blocking: SyncTokenBucketAdapter) -> None:
    """A denied request of Django may be answered by the application, even where its answer fails."""

    def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse("")

    routes = django_project.Routes(path("", view))
    options = {"limiter": blocking.with_rules({"GET /": "1/minute"}), "on_denied": lambda *_: 1 // 0}
    with override_settings(SLUICEGATE=options, ROOT_URLCONF=routes):
        client = Client()
        answers = [client.get("/") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["Content-Type"] == "application/problem+json"


def test_several_rates_in_one_text_of_a_rules_file() -> None:
    """As in code; a failure has no value, and says why."""
    book = parse_rules('[policies]\nslow = "9/week"\n[endpoints]\n"GET /" = "5/minute; slow"\n')
    assert [rule.policy for rule in book["GET /"]] == ["ip-5-60s", "slow"]
    with pytest.raises(AttributeError, match="no value: gone"):
        _ = Failure(error=RateLimitError("timeout", "gone")).value
