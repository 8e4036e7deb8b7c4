"""Read what the storages on Redis did so far. Nothing here imports redis-py, so that those who have no Redis need not have it."""

import sys
from typing import TYPE_CHECKING, cast

from sluicegate.domain.storage_figures import StorageFigures

if TYPE_CHECKING:
    from sluicegate.infrastructure.redis.storage import RedisStorage


def redis_figures(storage: object) -> StorageFigures | None:
    """Return the numbers of a storage on Redis, of either kind, and of those that share its connections; None: it is another."""
    redis = _redis_storage(storage)
    if redis is None:
        return None
    leases, connections = redis.leases, redis.connections
    return StorageFigures(
        calls=connections.script.calls,
        round_trips=connections.script.batches,
        denials_repeated=0 if redis.denials is None else redis.denials.repeated,
        breaker_open=any(
            breaker.is_open
            for router in list(connections.routers.values())
            for breaker in getattr(router.router, "breakers", None) or [getattr(router.router, "breaker", None)]
            if breaker is not None
        ),
        lent=sum(leases.held.values()),
        borrowed=leases.borrowed,
        returned=leases.returned,
        lost=leases.lost,
    )


def _redis_storage(storage: object) -> "RedisStorage | None":
    module = sys.modules.get("sluicegate.infrastructure.redis.storage")
    if module is None:
        return None
    inner: object = getattr(storage, "_storage", storage)  # the one in the background thread of a `SyncRedisStorage`
    return cast("RedisStorage", inner) if isinstance(inner, module.RedisStorage) else None
