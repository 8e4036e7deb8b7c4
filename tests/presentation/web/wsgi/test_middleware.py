"""WSGI and Flask applications are limited as ASGI's are."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from flask import Blueprint, Flask
from werkzeug.test import Client

from sluicegate import InvalidInputError, MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.flask import FlaskRateLimit
from sluicegate.testing import FakeClock, RecordingLogger
from sluicegate.wsgi import WSGIRateLimitMiddleware

ONE = RateLimitRule(1, 1, "ip", name="one")
TWO = RateLimitRule(2, 2, "ip", name="two")


def limiter_of(rules: Any) -> SyncTokenBucketAdapter:
    """Return a limiter on a clock that stands still."""
    return SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=rules)


def hello(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hel", b"lo"]


def wsgi(rules: Any, app: Any = hello, **options: Any) -> Client:
    """Return a client of the application behind the middleware."""
    limited = WSGIRateLimitMiddleware(app, limiter=limiter_of(rules), **options)

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ.setdefault("REMOTE_ADDR", "192.0.2.1")
        return limited(environ, start_response)

    return Client(served)


def test_wsgi_headers_and_denial() -> None:
    """Allowed responses carry the fields; a denied one is problem details with 429."""
    client = wsgi({"GET /items/{id}": TWO})
    answers = [client.get(f"/items/{number}") for number in range(3)]
    assert [answer.status for answer in answers] == ["200 OK", "200 OK", "429 Too Many Requests"]
    assert answers[0].text == "hello"
    assert answers[0].headers["RateLimit"] == '"two";r=1;t=30'
    assert answers[2].headers["Retry-After"] == "30"
    assert answers[2].headers["Cache-Control"] == "no-store"
    assert answers[2].mimetype == "application/problem+json"
    assert json.loads(answers[2].data)["violated-policies"] == ["two"]
    assert client.get("/other").status_code == 200


def test_wsgi_what_clients_try() -> None:
    """Forged headers, HEAD, encodings and long paths find no way round."""
    client = wsgi({"GET /items/{id}": TWO, "GET /café": TWO})
    statuses = [client.get(f"/items/{n}", headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code for n in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert client.head("/items/1").status_code == 429
    assert client.head("/items/1").data == b""
    assert client.get("/items/%31").status_code == 429
    assert client.get("/items/" + "x" * 8_192).status_code == 429
    assert [client.get("/caf%C3%A9").status_code for _ in range(3)] == [200, 200, 429]


def test_wsgi_exceptions_pass_through_once() -> None:
    """What the application raises is raised, and it is not called again."""
    calls: list[int] = []

    def broken(*_: Any) -> Any:
        calls.append(1)
        raise LookupError

    with pytest.raises(LookupError):
        wsgi({"GET /": TWO}, broken).get("/")
    assert len(calls) == 1


def test_wsgi_proxies_and_functions() -> None:
    """Trusted proxies are believed; functions name tenants and costs; one that fails gives no free pass."""
    client = wsgi({"*": ONE}, trusted_proxies=["10.0.0.0/8"])

    def status(forwarded: str) -> int:
        return client.get(
            "/", headers={"X-Forwarded-For": forwarded}, environ_base={"REMOTE_ADDR": "10.0.0.1"}
        ).status_code

    assert [status("1.1.1.1, 203.0.113.9"), status("2.2.2.2, 203.0.113.9"), status("203.0.113.8")] == [200, 429, 200]

    logger = RecordingLogger()
    client = wsgi(
        {"*": RateLimitRule(4, 1, "tenant")},
        identifiers={"tenant": lambda environ: environ["HTTP_X_TENANT"]},
        cost=lambda environ: int(environ["QUERY_STRING"]),
        logger=logger,
    )
    assert [client.get("/?3", headers={"X-Tenant": "a"}).status_code for _ in range(2)] == [200, 429]
    assert [client.get("/?x").status_code for _ in range(5)] == [200] * 4 + [429]
    assert {message for _, message, _ in logger.records} == {
        "An identifier function failed.",
        "A cost function failed; took the rule's cost.",
    }


def test_wsgi_preflights_and_exemptions() -> None:
    """Preflights and exempt paths are not counted."""
    client = wsgi({"*": ONE}, exempt=["/health"])
    fields = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert [client.options("/", headers=fields).status_code for _ in range(3)] == [200] * 3
    assert [client.get("/health").status_code for _ in range(3)] == [200] * 3
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


def test_bad_options() -> None:
    """A wrong option is an error at the start."""
    with pytest.raises(InvalidInputError, match="'tenant'"):
        wsgi({"*": RateLimitRule(1, 1, "tenant")})
    with pytest.raises(InvalidInputError, match="beside a limiter"):
        WSGIRateLimitMiddleware(hello, rules={}, limiter=limiter_of({}))


def flask_app(rules: Any, **options: Any) -> Flask:
    """Return a limited Flask application."""
    app = Flask(__name__)
    FlaskRateLimit(app, limiter=limiter_of(rules), **options)
    blueprint = Blueprint("v1", __name__)
    blueprint.get("/lines/<path:rest>")(lambda rest: rest)
    app.register_blueprint(blueprint, url_prefix="/v1")
    app.get("/items/<int:item_id>")(lambda item_id: f"item {item_id}")

    @app.get("/broken")
    def broken() -> str:
        raise LookupError

    return app


def test_flask_by_its_own_routes() -> None:
    """Rules name routes as Flask does; blueprints' prefixes are part of them; answers carry the fields."""
    client = flask_app({"GET /items/<int:item_id>": TWO, "GET /v1/lines/<path:rest>": ONE}).test_client()
    answers = [client.get(f"/items/{number}") for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit"] == '"two";r=1;t=30'
    assert answers[2].headers["Retry-After"] == "30"
    assert answers[2].mimetype == "application/problem+json"
    assert client.head("/items/9").status_code == 429
    assert [client.get(path).status_code for path in ("/v1/lines/a", "/v1/lines/b/c")] == [200, 429]


def test_flask_unmatched_paths_and_errors() -> None:
    """What no route takes belongs to `*`; an application's error is its own, and carries the fields."""
    client = flask_app({"*": TWO, "GET /broken": TWO}).test_client()
    assert [client.get(path).status_code for path in ("/x", "/y", "/z")] == [404, 404, 429]
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["RateLimit"] == '"two";r=1;t=30'


def test_flask_rules_that_name_no_route() -> None:
    """A rule that can match nothing is reported with the first request, once, with the route or the methods that there are."""
    log = RecordingLogger()
    app = flask_app({"GET /item/<int:item_id>": ONE, "POST /broken": ONE, "* /v1/lines/<path:rest>": ONE}, logger=log)
    client = app.test_client()
    assert log.records == []
    assert [client.get("/items/1").status_code for _ in range(2)] == [200, 200]
    assert [record[1] for record in log.records] == [
        "The rule for 'GET /item/<int:item_id>' is for no route of the application; the nearest is '/items/<int:item_id>'.",
        "The rule for 'POST /broken' is for no method of its route, which has GET, HEAD, OPTIONS.",
    ]


async def test_flask_without_a_loop_or_with_one() -> None:
    """A plain limiter serves threads of a running loop as well."""
    client = flask_app({"GET /items/<int:item_id>": RateLimitRule(20, 1, "ip")}).test_client()
    statuses = await asyncio.gather(*(asyncio.to_thread(lambda: client.get("/items/1").status_code) for _ in range(50)))
    assert sorted(statuses) == [200] * 20 + [429] * 30


def test_no_client_address() -> None:
    """Without an address there is no bucket that all share: requests pass, and a warning says so."""
    logger = RecordingLogger()
    client = Client(WSGIRateLimitMiddleware(hello, limiter=limiter_of({"*": ONE}), logger=logger))
    assert [client.get("/").status_code for _ in range(3)] == [200] * 3
    assert "no client address" in logger.records[0][1]
