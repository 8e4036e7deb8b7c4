"""Spans of checks: one a check, beneath the request's own, with what was decided and never who asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sluicegate import (
    BufferedEventBus,
    InlineEventBus,
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    container,
)
from sluicegate.application.joint_check import Part
from sluicegate.fastapi import rate_limit
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.infrastructure.settings import read_settings
from sluicegate.opentelemetry import OpenTelemetryTraces
from sluicegate.testing import FailingStorage
from support.metered import RULES
from support.redis_servers import RedisServer

SECRET = "192.0.2.123"


class Spans:
    """What a provider gets."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    def finished(self) -> list[ReadableSpan]:
        """Return the spans of checks, and require that none says who asked."""
        spans = [span for span in self._exporter.get_finished_spans() if span.name.startswith("rate_limit ")]
        for span in spans:
            assert SECRET not in span.to_json()
        return spans

    def told(self) -> list[dict[str, Any]]:
        """Return the attributes, without their prefix and the cost."""
        return [
            {
                name.removeprefix("rate_limit."): value
                for name, value in (span.attributes or {}).items()
                if name[-4:] != "cost"
            }
            for span in self.finished()
        ]


@pytest.fixture
def spans() -> Spans:
    """A provider of its own."""
    return Spans()


@pytest.fixture
def of_the_process(monkeypatch: pytest.MonkeyPatch, spans: Spans) -> Iterator[Spans]:
    """The provider that the process has set; the API would set one only once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
    monkeypatch.setenv("SLUICEGATE_TRACES", "true")
    for cached in (container.get_rate_limit, container.get_sync_rate_limit):
        cached.cache_clear()
    yield spans
    for cached in (container.get_rate_limit, container.get_sync_rate_limit):
        cached.cache_clear()


def limiter_of(spans: Spans, storage: Any = None, rules: Any = RULES) -> TokenBucketAdapter:
    """Return a limiter whose checks are traced."""
    bus = InlineEventBus()
    limiter = TokenBucketAdapter(
        storage=storage or MemoryStorage(),
        rules=parse_rules(rules) if isinstance(rules, str) else rules,
        event_bus=bus,
        deadline_ms=5_000,
    )
    OpenTelemetryTraces(limiter, bus, tracer_provider=spans.provider)
    return limiter


async def test_a_span_says_what_was_decided_and_by_which_rule(spans: Spans) -> None:
    """For each check one, whatever decided it."""
    limiter = limiter_of(spans)
    for _ in range(3):
        await limiter.is_allowed(endpoint="POST /login", identifier=SECRET)
    await limiter.is_allowed(endpoint="POST /login", identifier="192.0.2.66")
    await limiter.is_allowed(endpoint="GET /tried", identifier=SECRET)
    await limiter.is_allowed(endpoint="no rule", identifier=SECRET)
    login = {"endpoint": "POST /login", "policy": "login"}
    assert spans.told() == [
        {"decision": "allowed", "reason": "quota", **login},
        {"decision": "allowed", "reason": "quota", **login},
        {"decision": "denied", "reason": "quota", "rejected_by": "login", **login},
        {"decision": "denied", "reason": "listed", "rejected_by": "listed", "endpoint": "POST /login"},
        {"decision": "allowed", "reason": "shadow", "endpoint": "GET /tried"},
    ]
    first = spans.finished()[0]
    assert first.name == "rate_limit POST /login"
    assert first.start_time is not None
    assert first.end_time is not None
    assert 0 <= first.end_time - first.start_time < 60 * 10**9


async def test_a_check_without_the_storage_is_marked(spans: Spans) -> None:
    """As an error with its cause, and whether it was let pass."""
    limiter = limiter_of(spans, FailingStorage())
    for endpoint in ("POST /login", "GET /guards", "GET /refuses"):
        await limiter.is_allowed(endpoint=endpoint, identifier=SECRET)
    marked = [(one["decision"], one["fail_open"], one["on_storage_error"], one["cause"]) for one in spans.told()]
    assert marked == [
        ("allowed", True, "allow", "connection"),
        ("allowed", True, "local", "connection"),
        ("denied", False, "deny", "connection"),
    ]
    assert spans.told()[2]["rejected_by"] == "refuses"
    assert {span.status.status_code for span in spans.finished()} == {StatusCode.ERROR}


async def test_names_that_callers_make_up_are_in_no_span(spans: Spans) -> None:
    """They may be identifiers."""
    limiter = limiter_of(spans)
    await limiter.check_together([Part(SECRET, SECRET, rule=RateLimitRule.per_minute(3))])
    assert [span.name for span in spans.finished()] == ["rate_limit other"]


async def test_a_span_is_beneath_the_one_that_is_current(spans: Spans, redis_server: RedisServer) -> None:
    """With and without an event loop, in memory and on Redis, where the check waits in between."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=5_000)
    bus = InlineEventBus()
    sync = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a": "5/minute"}, event_bus=bus)
    OpenTelemetryTraces(sync, bus, tracer_provider=spans.provider)
    with spans.tracer.start_as_current_span("request") as request:
        await limiter_of(spans, storage, {"GET /a": "5/minute"}).is_allowed(endpoint="GET /a", identifier=SECRET)
        await limiter_of(spans).is_allowed(endpoint="POST /login", identifier=SECRET)
        sync.is_allowed(endpoint="GET /a", identifier=SECRET)
        sync.reserve(endpoint="GET /a", identifier=SECRET)
    sync.is_allowed(endpoint="GET /a", identifier=SECRET)
    await storage.aclose()
    *beneath, root = spans.finished()
    assert len(beneath) == 4
    for span in beneath:
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
    assert root.parent is None


def traced_requests(app: Any, spans: Spans) -> Any:
    """Return an application that has a span round each request, as instrumentations put there."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        with spans.tracer.start_as_current_span("request", attributes={"asked": scope["path"]}):
            await app(scope, receive, send)

    return outer


async def ask(app: Any, *paths: str) -> list[int]:
    """Return the status of each answer."""
    transport = httpx.ASGITransport(app, client=(SECRET, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return [(await client.get(path)).status_code for path in paths]


def asked(span: ReadableSpan, spans: Spans) -> str:
    """Return the path of the request that a span is beneath. Newer versions of FastAPI have spans of their own in between."""
    above = {one.context.span_id: one for one in spans._exporter.get_finished_spans()}
    while span.parent is not None:
        span = above[span.parent.span_id]
    attributes = span.attributes or {}
    return str(attributes.get("url.path") or attributes["asked"])


async def test_requests_of_fastapi_have_their_checks_beneath_them(
    of_the_process: Spans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middleware's and the dependency's, by the setting alone."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[endpoints]\n"GET /limited" = "1/minute"\n')
    monkeypatch.setenv("SLUICEGATE_RULES", str(rules))
    app = FastAPI()

    @app.get("/limited")
    def limited() -> None: ...

    @app.get("/depends", dependencies=[Depends(rate_limit("5/minute"))])
    def depends() -> None: ...

    app.add_middleware(RateLimitMiddleware)
    assert await ask(traced_requests(app, of_the_process), "/limited", "/limited", "/depends") == [200, 429, 200]
    requests = [asked(span, of_the_process) for span in of_the_process.finished()]
    decisions = [told["decision"] for told in of_the_process.told()]
    assert (requests, decisions) == (["/limited", "/limited", "/depends"], ["allowed", "denied", "allowed"])


async def test_requests_of_starlette_have_their_checks_beneath_them(spans: Spans) -> None:
    """Those of a middleware with a limiter of its own."""
    limiter = limiter_of(spans, rules={"GET /{name}": "1/minute"})

    async def answer(_: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    app = RateLimitMiddleware(Starlette(routes=[Route("/{name}", answer)]), limiter=limiter)
    assert await ask(traced_requests(app, spans), "/a", "/b") == [200, 429]
    assert [(asked(span, spans), span.name) for span in spans.finished()] == [
        ("/a", "rate_limit GET /{name}"),
        ("/b", "rate_limit GET /{name}"),
    ]


def test_the_setting_traces_both_limiters_of_the_process(of_the_process: Spans) -> None:
    """And nothing is built without it."""
    settings = read_settings()
    for build in (container.build_rate_limit, container.build_sync_rate_limit):
        limiter = build(settings, rules={"GET /a": "5/minute"})
        limiter.current_rules()
        assert limiter._checker._observed
    container.get_sync_rate_limit().rules.replace({"GET /a": "5/minute"})
    container.get_sync_rate_limit().is_allowed(endpoint="GET /a", identifier=SECRET)
    assert len(of_the_process.finished()) == 1
    quiet = container.build_rate_limit(read_settings({}), rules={"GET /a": "5/minute"})
    assert not quiet._checker._observed


def test_a_bus_that_forgets_whose_check_it_is_is_refused(spans: Spans) -> None:
    """A buffered one calls its subscribers later; a bus that is traced already would make two spans of a check."""
    buffered: Any = BufferedEventBus()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={}, event_bus=buffered)
    with pytest.raises(ValueError, match="bus=BufferedEventBus.*expected an InlineEventBus"):
        OpenTelemetryTraces(limiter, buffered)
    bus = InlineEventBus()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={}, event_bus=bus)
    OpenTelemetryTraces(limiter, bus)
    with pytest.raises(ValueError, match="bus: its checks are traced already"):
        OpenTelemetryTraces(limiter, bus)
    with pytest.raises(ValueError, match="SLUICEGATE_TRACES: bus="):
        container.build_rate_limit(read_settings({"SLUICEGATE_TRACES": "1"}), event_bus=buffered)
