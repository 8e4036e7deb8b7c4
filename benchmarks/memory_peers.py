"""The limiters that keep their state in memory, each set up as its documentation says is fastest."""

import limits
import limits.aio.storage
import limits.aio.strategies
import limits.storage
import limits.strategies
import throttled
import throttled.asyncio
import throttled.rate_limiter
import throttled.store
import token_bucket
from pyrate_limiter import Limiter, Rate, SingleBucketFactory, StateBucket, TokenBucket

from rounds import Check, SyncCheck
from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter, TokenBucketAdapter

ENDPOINT = "GET /items"
_HOUR_MS = 3_600_000


def rule(burst: int, per_hour: int) -> RateLimitRule:
    """Return our rule for the same limit that the peers get."""
    return RateLimitRule.per_hour(per_hour, burst=burst)


def ours(burst: int, per_hour: int) -> Check:
    """Return a check of our asynchronous limiter."""
    is_allowed = TokenBucketAdapter(storage=MemoryStorage(), rules={ENDPOINT: rule(burst, per_hour)}).is_allowed
    return lambda client: is_allowed(endpoint=ENDPOINT, identifier=client)


def ours_sync(burst: int, per_hour: int) -> SyncCheck:
    """Return a check of our synchronous limiter."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={ENDPOINT: rule(burst, per_hour)})
    is_allowed = limiter.is_allowed
    return lambda client: is_allowed(endpoint=ENDPOINT, identifier=client)


def limits_async(burst: int, _per_hour: int) -> Check:
    """Return a check of `limits`: its fixed window, which is its fastest strategy; it has no token bucket."""
    hit = limits.aio.strategies.FixedWindowRateLimiter(limits.aio.storage.MemoryStorage()).hit
    item = limits.RateLimitItemPerHour(burst)
    return lambda client: hit(item, ENDPOINT, client)


def limits_sync(burst: int, _per_hour: int) -> SyncCheck:
    """Return a check of `limits` without a coroutine."""
    hit = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage()).hit
    item = limits.RateLimitItemPerHour(burst)
    return lambda client: hit(item, ENDPOINT, client)


def throttled_async(burst: int, per_hour: int) -> Check:
    """Return a check of throttled-py's token bucket, with a store that has room for every client."""
    limiter = throttled.asyncio.Throttled(
        using=throttled.asyncio.RateLimiterType.TOKEN_BUCKET.value,
        quota=throttled.asyncio.rate_limiter.per_hour(per_hour, burst=burst),
        store=throttled.asyncio.MemoryStore(options={"MAX_SIZE": 10_000_000}),
    )
    return limiter.limit


def throttled_sync(burst: int, per_hour: int) -> SyncCheck:
    """Return a check of throttled-py's token bucket without a coroutine."""
    limiter = throttled.Throttled(
        using=throttled.RateLimiterType.TOKEN_BUCKET.value,
        quota=throttled.rate_limiter.per_hour(per_hour, burst=burst),
        store=throttled.store.MemoryStore(options={"MAX_SIZE": 10_000_000}),
    )
    return limiter.limit


def pyrate_async(burst: int, per_hour: int) -> Check:
    """Return a check of pyrate-limiter's token bucket: one limiter for each client, so that they share no lock."""
    limiters: dict[str, Limiter] = {}

    def check(client: str) -> object:
        limiter = limiters.get(client)
        if limiter is None:
            bucket = StateBucket([Rate(per_hour, _HOUR_MS, burst=burst)], algorithm=TokenBucket())
            limiter = limiters[client] = Limiter(SingleBucketFactory(bucket, schedule_leak=False))  # nothing leaks
        return limiter.try_acquire_async(client, blocking=False)

    return check


def falconry_sync(burst: int, per_hour: int) -> SyncCheck:
    """Return a check of falconry's token-bucket, which has no coroutines."""
    return token_bucket.Limiter(per_hour / 3600, burst, token_bucket.MemoryStorage()).consume
