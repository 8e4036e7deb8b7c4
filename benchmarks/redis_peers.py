"""The limiters that keep their state in Redis, each set up as its documentation says is fastest, and bare redis-py."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import coredis.pool
import limits
import limits.aio.storage
import limits.aio.strategies
import redis.asyncio
import throttled.asyncio
from pyrate_limiter import Limiter, Rate, RedisStateStore, SingleBucketFactory, StateBucket, TokenBucket

from memory_peers import ENDPOINT
from rounds import Check
from sluicegate import RateLimitRule, RedisStorage, TokenBucketAdapter

_HOUR_MS = 3_600_000
_MAX_CONNECTIONS = 50
_THROTTLED = {
    "REUSE_CONNECTION": True,
    "CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool",
    "CONNECTION_POOL_KWARGS": {"max_connections": _MAX_CONNECTIONS, "timeout": 60},
}


def _pool(url: str) -> redis.asyncio.BlockingConnectionPool:
    """Return redis-py's pool that waits for a free connection; its other one raises beyond 100 callers."""
    return redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=_MAX_CONNECTIONS, timeout=60)


BARE_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local capacity, per_us, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local level, last = capacity, now
local state = redis.call('GET', KEYS[1])
if state then
  local a, b = state:match('^(%S+) (%S+)$')
  level, last = tonumber(a), tonumber(b)
end
level = math.min(capacity, level + math.max(0, now - last) * per_us)
local allowed = level >= cost
if allowed then
  level = level - cost
  redis.call('SET', KEYS[1], string.format('%.17g %.0f', level, now), 'PX', math.ceil((capacity - level) / per_us / 1000) + 1000)
end
return {allowed and 1 or 0, math.floor(level)}
"""
"""A token bucket as one writes it by hand: the least that a limiter can cost that calls Redis once for each check."""


@dataclass(slots=True)
class Connected:
    """A check that holds connections.

    Args:
        check: One check of one client.
        aclose: Closes what it holds.
    """

    check: Check
    aclose: Callable[[], Awaitable[object]]


Connect = Callable[[str, int, int], Awaitable[Connected]]
"""URL, burst and tokens per hour in."""


async def ours(  # noqa: PLR0913 - what differs between the comparisons
    url: str, burst: int, per_hour: int, *, rules: int = 1, lease: bool = False, limiter_deadline_ms: int = 5_000
) -> Connected:
    """Connect our limiter. Its deadlines are long: a benchmark wants answers from Redis, not from the failure policy."""
    storage = RedisStorage.from_url(url, deadline_ms=5_000)
    several = tuple(replace(RateLimitRule.per_hour(per_hour, burst=burst * (n + 1)), lease=lease) for n in range(rules))
    limiter = TokenBucketAdapter(storage=storage, rules={ENDPOINT: several}, deadline_ms=limiter_deadline_ms)
    is_allowed = limiter.is_allowed
    return Connected(lambda client: is_allowed(endpoint=ENDPOINT, identifier=client), limiter.aclose)


async def bare_redis_py(url: str, burst: int, per_hour: int) -> Connected:
    """Connect redis-py, and call a hand-written script by its digest."""
    client = redis.asyncio.Redis(connection_pool=_pool(url))
    digest = await client.script_load(BARE_SCRIPT)
    per_us = per_hour / 3600 / 1e6

    def check(name: str) -> Awaitable[object]:
        return client.evalsha(digest, 1, f"bare:{name}", burst, per_us, 1)

    return Connected(check, client.aclose)


async def limits_redispy(url: str, burst: int, per_hour: int) -> Connected:
    """Connect `limits` through redis-py."""
    return _limits(url, burst, per_hour, "redispy")


async def limits_coredis(url: str, burst: int, per_hour: int) -> Connected:
    """Connect `limits` through coredis, its default."""
    return _limits(url, burst, per_hour, "coredis")


def _limits(url: str, burst: int, _per_hour: int, implementation: str) -> Connected:
    if implementation == "redispy":
        pool = _pool(url)
    else:
        pool = coredis.pool.BlockingConnectionPool.from_url(url, max_connections=_MAX_CONNECTIONS, timeout=60)
    storage = limits.aio.storage.RedisStorage(f"async+{url}", implementation=implementation, connection_pool=pool)
    hit = limits.aio.strategies.FixedWindowRateLimiter(storage).hit
    item = limits.RateLimitItemPerHour(burst)

    async def close() -> None:
        client = storage.bridge.get_connection()
        if implementation == "redispy":
            await client.aclose()
        else:
            client.connection_pool.disconnect()

    return Connected(lambda client: hit(item, ENDPOINT, client), close)


async def throttled_py(url: str, burst: int, per_hour: int) -> Connected:
    """Connect throttled-py's token bucket."""
    store = throttled.asyncio.RedisStore(server=url, options=_THROTTLED)
    limiter = throttled.asyncio.Throttled(
        using=throttled.asyncio.RateLimiterType.TOKEN_BUCKET.value,
        quota=throttled.asyncio.rate_limiter.per_hour(per_hour, burst=burst),
        store=store,
    )
    return Connected(limiter.limit, store._backend.get_client().aclose)  # noqa: SLF001 - it offers no other way to close


async def pyrate(url: str, burst: int, per_hour: int) -> Connected:
    """Connect pyrate-limiter's token bucket: a limiter for each client, so that they share no lock."""
    client = redis.asyncio.Redis(connection_pool=_pool(url))
    limiters: dict[str, Limiter] = {}

    def check(name: str) -> Awaitable[object]:
        limiter = limiters.get(name)
        if limiter is None:
            store = RedisStateStore(client, f"pyrate:{name}")
            bucket = StateBucket([Rate(per_hour, _HOUR_MS, burst=burst)], algorithm=TokenBucket(), store=store)
            limiter = limiters[name] = Limiter(SingleBucketFactory(bucket, schedule_leak=False))  # nothing leaks
        return limiter.try_acquire_async(name, blocking=False)

    return Connected(check, client.aclose)
