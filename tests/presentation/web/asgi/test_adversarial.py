"""What clients try. Each attack succeeds against a naive middleware and fails against ours."""

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from sluicegate import RateLimitRule
from sluicegate.asgi import RateLimitMiddleware
from support.asgi_calls import get, http_scope, send_scope
from support.naive_middleware import NaiveMiddleware

CAPACITY = 3
RULE = RateLimitRule(CAPACITY, 0.001, "ip")
PER_USER = RateLimitRule(CAPACITY, 0.001, "user")
Build = Callable[..., Any]
Attack = Callable[[Build], Awaitable[int]]

ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Enter an attack: a function that tells how many requests got through to the endpoint."""
    ATTACKS[function.__name__] = function
    return function


class Target:
    """An application that counts how often its endpoint ran."""

    def __init__(self, *, raises: bool = False) -> None:
        self.calls = 0
        self.raises = raises

    async def endpoint(self, _: Request) -> PlainTextResponse:
        """Count, and answer or raise."""
        self.calls += 1
        if self.raises:
            raise RuntimeError("of the application's own")
        return PlainTextResponse("done")

    async def feed(self, websocket: WebSocket) -> None:
        """Count, and accept."""
        self.calls += 1
        await websocket.accept()
        await websocket.close()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/login", self.endpoint, methods=["GET", "POST"]),
                Route("/health", PlainTextResponse("up")),
                Route("/healthrecords/{id}", self.endpoint),
                Route("/accounts/{id}", self.endpoint),
                Route("/accounts/{id}/lines/{line:int}", self.endpoint),
                Route("/files/{rest:path}", self.endpoint),
                Mount("/sub", routes=[Route("/items/{id}", self.endpoint)]),
                WebSocketRoute("/feed/{room}", self.feed),
            ]
        )


RULES = {
    "POST /login": RULE,
    "GET /login": RULE,
    "GET /accounts/{id}": RULE,
    "GET /accounts/{id}/lines/{line:int}": RULE,
    "GET /files/{rest:path}": RULE,
    "GET /healthrecords/{id}": RULE,
    "GET /sub/items/{id}": RULE,
    "WEBSOCKET /feed/{room}": RULE,
}


async def admitted(build: Build, scopes: Sequence[dict[str, Any]], *, rules: Any = RULES, **options: Any) -> int:
    """Return how many of some requests reached the application."""
    target = Target()
    app = build(target.app(), rules=rules, **options)
    for scope in scopes:
        await send_scope(app, scope)
    return target.calls


@attack
async def forged_x_forwarded_for(build: Build) -> int:
    """Another address in the header for each request."""
    scopes = [
        http_scope("POST", "/login", headers=[("X-Forwarded-For", f"198.51.100.{number}")]) for number in range(10)
    ]
    return await admitted(build, scopes)


@attack
async def forged_entry_before_the_proxys(build: Build) -> int:
    """The same through a proxy that appends the real address."""
    target = Target()
    app = build(target.app(), rules=RULES, trusted_proxies=["10.0.0.0/8"])
    for number in range(10):
        headers = [("X-Forwarded-For", f"198.51.100.{number}, 203.0.113.9")]
        await send_scope(app, http_scope("POST", "/login", headers=headers, client=("10.0.0.1", 1)))
    return target.calls


@attack
async def forged_tokens(build: Build) -> int:
    """An unsigned token with another subject for each request."""
    target = Target()
    app = build(target.app(), rules={"POST /login": PER_USER})
    for number in range(10):
        claims = base64.urlsafe_b64encode(json.dumps({"sub": f"user-{number}"}).encode()).decode().rstrip("=")
        await send_scope(app, http_scope("POST", "/login", headers=[("Authorization", f"Bearer e30.{claims}.x")]))
    return target.calls


@attack
async def a_skipped_prefix(build: Build) -> int:
    """A path that only begins like one that is not counted."""
    scopes = [http_scope("GET", f"/healthrecords/{number}") for number in range(10)]
    options = {"exempt": ["/health"]} if build is ours else {}
    return await admitted(build, scopes, **options)


@attack
async def one_bucket_per_concrete_path(build: Build) -> int:
    """Enumeration: another number for each request."""
    scopes = [http_scope("GET", f"/accounts/{number}") for number in range(10)]
    return await admitted(build, scopes)


@attack
async def a_nested_template(build: Build) -> int:
    """The same, with two parameters and a converter."""
    scopes = [http_scope("GET", f"/accounts/{number}/lines/{number}") for number in range(10)]
    return await admitted(build, scopes)


@attack
async def slashes_in_a_path_parameter(build: Build) -> int:
    """Double and trailing slashes where a route takes any rest."""
    scopes = [http_scope("GET", "/files/a" + "/" * number) for number in range(10)]
    return await admitted(build, scopes)


@attack
async def a_mounted_application(build: Build) -> int:
    """A path inside a mount."""
    scopes = [http_scope("GET", f"/sub/items/{number}") for number in range(10)]
    return await admitted(build, scopes)


@attack
async def head_in_place_of_get(build: Build) -> int:
    """HEAD runs the same code."""
    scopes = [http_scope("HEAD", "/login") for _ in range(10)]
    return await admitted(build, scopes)


@attack
async def a_path_of_8_kilobytes(build: Build) -> int:
    """A long path, each time another one."""
    scopes = [http_scope("GET", "/accounts/" + str(number) * 8_192) for number in range(10)]
    return await admitted(build, scopes)


@attack
async def a_template_as_a_path(build: Build) -> int:
    """The text of a template in place of a value."""
    scopes = [http_scope("GET", "/accounts/{id}" if number % 2 else "/accounts/{x:int}") for number in range(10)]
    return await admitted(build, scopes)


@attack
async def a_websocket(build: Build) -> int:
    """A handshake is a request too."""
    scopes = [http_scope(path="/feed/a", kind="websocket") for _ in range(10)]
    return await admitted(build, scopes)


@attack
async def an_address_for_each_request(build: Build) -> int:
    """One subscriber's IPv6 network has 2**64 addresses."""
    scopes = [http_scope("POST", "/login", client=(f"2001:db8:1:2::{number}", 1)) for number in range(10)]
    return await admitted(build, scopes)


@attack
async def an_address_in_two_wrappings(build: Build) -> int:
    """The same IPv4 address, plain, mapped and through NAT64."""
    target = Target()
    app = build(target.app(), rules=RULES)
    for number in range(12):
        address = ("192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1")[number % 3]
        await send_scope(app, http_scope("POST", "/login", client=(address, 1)))
    return target.calls


@attack
async def an_application_that_raises(build: Build) -> int:
    """An error of the application's runs it once, not twice."""
    target = Target(raises=True)
    app = build(target.app(), rules=RULES)
    for _ in range(10):
        answer_or_error: Any = None
        try:
            answer_or_error = await send_scope(app, http_scope("POST", "/login"))
        except RuntimeError:
            continue
        assert answer_or_error.status in {429, 500}
    return target.calls


def ours(app: Any, **options: Any) -> RateLimitMiddleware:
    """Build the middleware under test."""
    return RateLimitMiddleware(app, **options)


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(name: str) -> None:
    """Our middleware lets through what the rule allows; the naive one, in the same test, more."""
    assert await ATTACKS[name](NaiveMiddleware) > CAPACITY
    assert await ATTACKS[name](ours) == CAPACITY


async def test_a_newline_at_the_end() -> None:
    """`%0A` at the end, which Starlette's router forgives, makes no other bucket and no other rule."""
    target = Target()
    app = ours(target.app(), rules=RULES)
    for number in range(10):
        await get(app, "/login\n" if number % 2 else "/login")
    assert target.calls == CAPACITY


async def test_a_poisoned_host_header() -> None:
    """The host's text never becomes part of the path that decides, as in a URL put together from it (CVE-2026-48710)."""
    target = Target()
    app = ours(target.app(), rules=RULES, exempt=["/health", "/health/*"])
    for _ in range(10):
        await send_scope(app, http_scope("POST", "/login", headers=[("Host", "x/health?")]))
    assert target.calls == CAPACITY


async def test_a_victims_name_in_a_token() -> None:
    """A client that claims another user's name does not use up that user's bucket."""
    target = Target()
    app = ours(target.app(), rules={"POST /login": PER_USER})
    claims = base64.urlsafe_b64encode(b'{"sub": "victim"}').decode()
    for _ in range(10):
        await send_scope(app, http_scope("POST", "/login", headers=[("Authorization", f"Bearer e30.{claims}.x")]))
    victim = http_scope("POST", "/login", client=("203.0.113.9", 1), user=SimpleUser("victim"), auth=AuthCredentials())
    assert (await send_scope(app, victim)).status == 200


async def test_a_name_like_an_anonymous_one() -> None:
    """A user whose name reads like that of an anonymous client does not share its bucket."""
    target = Target()
    app = ours(target.app(), rules={"POST /login": PER_USER})
    for _ in range(10):
        await send_scope(app, http_scope("POST", "/login", user=SimpleUser("anonymous@192.0.2.1")))
    assert (await send_scope(app, http_scope("POST", "/login"))).status == 200
    assert target.calls == CAPACITY + 1


async def test_a_path_with_another_case_is_another_path() -> None:
    """A path that the router does not know gets the rule for what no other fits, and no bucket of its own."""
    target = Target()
    app = ours(target.app(), rules=RULES | {"*": RULE})
    statuses = [(await get(app, path)).status for path in ("/LOGIN", "/Login", "//login", "/login/x", "/%6Cogin")]
    assert statuses == [404, 404, 404, 429, 429]
    assert target.calls == 0


async def test_an_identifier_of_60_kilobytes() -> None:
    """A key that a client chose is cut to a digest: it costs no memory, raises nothing and is counted."""
    target = Target()
    app = ours(
        target.app(),
        rules={"POST /login": RateLimitRule(CAPACITY, 0.001, "api_key")},
        identifiers={"api_key": lambda scope: dict(scope["headers"]).get(b"x-api-key", b"").decode()},
    )
    for _ in range(10):
        await send_scope(app, http_scope("POST", "/login", headers=[("X-Api-Key", "k" * 60_000)]))
    assert target.calls == CAPACITY


async def test_a_cost_function_that_a_client_breaks() -> None:
    """A cost that cannot be worked out, or is none, is the rule's own cost: no free pass."""

    def cost(scope: Any) -> int:
        return int(scope["query_string"])

    target = Target()
    app = ours(target.app(), rules=RULES, cost=cost)
    for query in (b"x", b"-5", b"", b"x", b"x", b"x"):
        await send_scope(app, http_scope("POST", "/login", query_string=query))
    assert target.calls == CAPACITY


async def test_a_lower_case_method() -> None:
    """A method in lower case is counted as what some applications take it for."""
    calls = 0

    async def raw(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    app = ours(raw, rules=RULES)
    for method in ("post", "Post", "POST", "post", "pOST"):
        await send_scope(app, http_scope(method, "/login"))
    assert calls == CAPACITY
