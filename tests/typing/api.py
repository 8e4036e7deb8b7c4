"""The public API as a typed user sees it. Checked by mypy and pyright, never executed."""

from collections.abc import Awaitable, Callable
from typing import assert_type

from sluicegate import (
    BufferedEventBus,
    Estimator,
    Failure,
    FlaskRateLimit,
    Hold,
    MemoryStorage,
    RateLimitCheckDenied,
    RateLimitedError,
    RateLimitError,
    RateLimitEvent,
    RateLimitMiddleware,
    RateLimitProtocol,
    RateLimitResult,
    RateLimitRule,
    RateLimitScope,
    RateLimitTransport,
    RedisStorage,
    Reservation,
    Result,
    Settlement,
    SlotTimeoutError,
    StorageProtocol,
    Success,
    SyncRedisStorage,
    SyncStorageProtocol,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
    get_rate_limit,
    get_sync_rate_limit,
    rate_limit,
    rate_limited,
)
from sluicegate.asgi import DenialResponse
from sluicegate.flask import FlaskRateLimit as FlaskRateLimitOfItsModule
from sluicegate.wsgi import WSGIRateLimitMiddleware as WSGIMiddlewareOfItsModule


async def check() -> str:
    """Check as the design's first lines do."""
    rate_limit: RateLimitProtocol = get_rate_limit()
    result = await rate_limit.is_allowed(endpoint="POST /api/v1/sessions", identifier="192.168.1.1")
    assert_type(result, Result[RateLimitResult, RateLimitError])
    match result:
        case Success(value=value):
            assert_type(value, RateLimitResult)
            return f"{value.allowed} {value.retry_after} {value.remaining} {value.limit} {value.reset_seconds}"
        case Failure(error=error):
            assert_type(error, RateLimitError)
            return error.message


async def build() -> None:
    """Build a limiter by hand."""
    rule = RateLimitRule(max_tokens=5, refill_rate=0.5, scope=RateLimitScope.IP)
    per_user = RateLimitRule.per_minute(10, burst=20, scope="tenant")
    limiter: RateLimitProtocol = TokenBucketAdapter(
        storage=MemoryStorage(max_keys=10), rules={"GET /": rule, "POST /": (rule, per_user)}
    )
    assert_type(await limiter.get_remaining(endpoint="GET /", identifier={"ip": "::1"}), Result[int, RateLimitError])
    assert_type(await limiter.reset(endpoint="GET /", identifier="x"), Result[None, RateLimitError])


async def values_without_a_match() -> None:
    """A check is always a success; the process's limiter can wait and be closed."""
    limiter = get_rate_limit()
    assert_type((await limiter.is_allowed(endpoint="GET /", identifier="x")).value, RateLimitResult)
    assert_type((await limiter.get_remaining(endpoint="GET /", identifier="x")).value, int)
    assert_type(await limiter.wait(endpoint="GET /", identifier="x"), RateLimitResult)
    assert_type(get_sync_rate_limit().is_allowed(endpoint="GET /", identifier="x").value.allowed, bool)
    await limiter.aclose()


def build_sync() -> None:
    """Build a limiter for plain calls."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": "5/minute; 100/hour", "*": ["9/day"]})
    assert_type(limiter.is_allowed(endpoint="GET /", identifier="x"), Result[RateLimitResult, RateLimitError])


def protect(app: Callable[..., Awaitable[None]]) -> None:
    """Protect applications and functions."""
    rule = RateLimitRule.parse("5/minute")
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": rule})
    assert_type(RateLimitMiddleware(app, rules={"GET /": rule}, trusted_proxies=("10.0.0.0/8",)), RateLimitMiddleware)
    RateLimitMiddleware(app, limiter=limiter, identifiers={"tenant": lambda scope: scope["state"]["tenant"]})
    assert_type(rate_limit(rule, "5/hour per user", cost=2, limiter=limiter), rate_limit)
    RateLimitTransport("10/second", limiter=limiter)
    WSGIRateLimitMiddleware(lambda environ, start_response: [b""], rules={"GET /": rule})
    FlaskRateLimit(rules={"GET /": rule}, headers="both", cost=lambda request: 2)
    RateLimitMiddleware(app, on_denied=slow_down)
    assert_type(FlaskRateLimitOfItsModule(), FlaskRateLimit)
    WSGIMiddlewareOfItsModule(lambda environ, start_response: [b""], trusted_proxies=["10.0.0.0/8"])


def slow_down(scope: object, denial: DenialResponse) -> Callable[..., Awaitable[None]]:
    """Answer a denied request in another way."""
    assert_type(denial.decision.result, RateLimitResult)
    assert_type(denial.status, int)
    raise NotImplementedError(scope)


@rate_limited("5/minute", identifier=str)
async def limited_coroutine(name: str) -> int:
    """Keep its type."""
    return len(name)


async def wait() -> None:
    """Wait for one's turn."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={})
    assert_type(await limiter.wait(endpoint="x", identifier="y", timeout_s=1.5), RateLimitResult)
    try:
        async with limiter.slot(endpoint="x", identifier="y") as result:
            assert_type(result, RateLimitResult)
            assert_type(await limited_coroutine("x"), int)
    except SlotTimeoutError as late:
        assert_type(late.retry_after, float)
    except RateLimitedError as denied:
        assert_type(denied.retry_after, float)


async def build_on_redis() -> None:
    """Keep buckets in Redis, from a URL or from a client."""
    async with RedisStorage.from_url("redis://localhost", deadline_ms=20) as storage:
        assert_type(storage, RedisStorage)
        port: StorageProtocol = storage
        TokenBucketAdapter(storage=port, rules={})
    with SyncRedisStorage(redis_client=object()) as plain:
        assert_type(plain, SyncRedisStorage)
        plain_port: SyncStorageProtocol = plain
        SyncTokenBucketAdapter(storage=plain_port, rules={})


async def budget() -> None:
    """Reserve, commit and hold."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"x": RateLimitRule.in_flight(4, scope="user")})
    match await limiter.reserve(endpoint="x", identifier="y", cost={"tokens": 1500}, ttl_seconds=120):
        case Success(value=reservation):
            assert_type(reservation, Reservation)
            assert_type(reservation.id, str)
            assert_type(await limiter.commit(reservation.id, cost=830), Result[Settlement, RateLimitError])
            assert_type(await limiter.extend(reservation, ttl_seconds=1.5), Result[None, RateLimitError])
        case Failure(error=error):
            assert_type(error, RateLimitError)
    async with limiter.budget(endpoint="x", identifier="y", cost=1500) as spent:
        spent.cost = 830
    assert_type(spent.settlement, Result[Settlement, RateLimitError] | None)
    async with limiter.hold(endpoint="x", identifier="y") as hold:
        assert_type(hold, Hold)
        assert_type(await limiter.renew(hold), Result[None, RateLimitError])
    assert_type(Estimator().estimate("tokens", "model", client_max=100), int)
    plain = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={})
    assert_type(plain.reserve(endpoint="x", identifier="y"), Result[Reservation, RateLimitError])
    with plain.hold(endpoint="x", identifier="y") as plain_hold:
        assert_type(plain_hold, Hold)


def subscribe() -> None:
    """Subscribers take the type of event that they subscribed to."""
    bus = BufferedEventBus()
    bus.subscribe(RateLimitCheckDenied, lambda denied: assert_type(denied.retry_after, float))
    bus.subscribe(RateLimitEvent, lambda event: assert_type(event.endpoint, str))
