"""The public API as a typed user sees it. Checked by mypy and pyright, never executed."""

from typing import assert_type

from sluicegate import (
    Failure,
    MemoryStorage,
    RateLimitError,
    RateLimitProtocol,
    RateLimitResult,
    RateLimitRule,
    RateLimitScope,
    RedisStorage,
    Result,
    StorageProtocol,
    Success,
    SyncRedisStorage,
    SyncStorageProtocol,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    get_rate_limit,
)


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


def build_sync() -> None:
    """Build a limiter for plain calls."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={})
    assert_type(limiter.is_allowed(endpoint="GET /", identifier="x"), Result[RateLimitResult, RateLimitError])


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
