"""What the workers of one host can share without a server beside the limiter, and with one: each as it is fastest."""

import sqlite3
import time
from pathlib import Path

import limits
import limits.storage
import limits.strategies
from pyrate_limiter import Limiter, MultiprocessBucket, Rate, SingleBucketFactory, SQLiteBucket

from memory_peers import ENDPOINT, rule
from rounds import Check, SyncCheck
from sluicegate import SharedMemoryStorage, SyncTokenBucketAdapter, TokenBucketAdapter

_SIZE = 64 << 20
_DEADLINE_MS = 5_000
_LOG = [Rate(100, 1000)]
"""Their buckets are logs of what was admitted, so a low rate is what they are fastest with: a hundred a second."""


def ours(path: Path, burst: int, per_hour: int) -> Check:
    """Return a check of our asynchronous limiter."""
    storage = SharedMemoryStorage(path, size_bytes=_SIZE, deadline_ms=_DEADLINE_MS)
    limiter = TokenBucketAdapter(storage=storage, rules={ENDPOINT: rule(burst, per_hour)}, deadline_ms=_DEADLINE_MS)
    is_allowed = limiter.is_allowed
    return lambda client: is_allowed(endpoint=ENDPOINT, identifier=client)


def ours_sync(path: Path, burst: int, per_hour: int) -> SyncCheck:
    """Return a check of our synchronous limiter."""
    storage = SharedMemoryStorage(path, size_bytes=_SIZE, deadline_ms=_DEADLINE_MS)
    is_allowed = SyncTokenBucketAdapter(storage=storage, rules={ENDPOINT: rule(burst, per_hour)}).is_allowed
    return lambda client: is_allowed(endpoint=ENDPOINT, identifier=client)


def limits_on_redis(url: str, burst: int) -> SyncCheck:
    """Return a check of `limits` on a Redis of this host: its fixed window, which is its fastest strategy."""
    hit = limits.strategies.FixedWindowRateLimiter(limits.storage.RedisStorage(url)).hit
    item = limits.RateLimitItemPerHour(burst)
    return lambda client: hit(item, ENDPOINT, client)


def pyrate_sqlite(path: Path) -> SyncCheck:
    """Return a check of pyrate-limiter's bucket in SQLite, with the file lock that it needs between processes."""
    bucket = SQLiteBucket.init_from_file(_LOG, db_path=str(path), use_file_lock=True)
    limiter = Limiter(SingleBucketFactory(bucket))
    return lambda client: limiter.try_acquire(client, blocking=False)


def pyrate_multiprocess() -> SyncCheck:
    """Return a check of pyrate-limiter's bucket for the processes of one parent."""
    limiter = Limiter(SingleBucketFactory(MultiprocessBucket.init(_LOG)))
    return lambda client: limiter.try_acquire(client, blocking=False)


_UPSERT = """
INSERT INTO bucket (key, level, last) VALUES (:key, :capacity - 1, :now)
ON CONFLICT (key) DO UPDATE SET level = min(:capacity, level + (:now - last) * :rate) - 1, last = :now
WHERE min(:capacity, level + (:now - last) * :rate) >= 1 RETURNING level
"""


def bare_sqlite(path: Path, burst: int, per_hour: int) -> SyncCheck:
    """Return a token bucket as one writes it by hand on SQLite: one statement, no sync."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE bucket (key TEXT PRIMARY KEY, level REAL, last REAL) WITHOUT ROWID")
    execute, now = connection.execute, time.monotonic

    def check(client: str) -> object:
        values = {"key": client, "capacity": burst, "now": now(), "rate": per_hour / 3600}
        return execute(_UPSERT, values).fetchone()

    return check
