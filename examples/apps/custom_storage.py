"""A storage of your own: buckets in an SQLite file, shared by the processes of one machine, kept over a restart.

`StorageProtocol` says what the verbs promise, and `sluicegate.testing.StorageContract` tests it: this storage passes, see
`tests/examples/test_custom_storage.py`. The arithmetic is the library's; a storage only has to read, decide and write in one
transaction.

Run: `python examples/apps/custom_storage.py limits.db`, twice: the second run finds the bucket as the first one left it.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TypeVar

from sluicegate import Clock, RateLimitRule, StorageError, TokenBucketAdapter
from sluicegate.storage import (
    BucketLevel,
    BucketRequest,
    BucketSpec,
    StorageTraits,
    Verdict,
    anchor_after_payment,
    convert,
    full_at_us,
    refill,
)

T = TypeVar("T")

# A bucket is the spec that it was written under, its level in units, and the tick at which that level held. A bucket that is full
# again equals one that is absent, so its row may go.
SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    key TEXT PRIMARY KEY, spec TEXT, level INTEGER, last INTEGER, full_at_us INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS buckets_by_full_at ON buckets (full_at_us);
"""


class WallClock:
    """The machine's wall clock: unlike the monotonic one, all processes share it, and it goes on over a restart."""

    def now_us(self) -> int:
        """Return the instant in microseconds."""
        return time.time_ns() // 1000  # noqa: TID251 - the storage's one clock


class SQLiteStorage:
    """Keep buckets in a file.

    Args:
        path: The file; it is made if it is not there.
        clock: What time decides; the wall clock if None.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.traits = StorageTraits()  # it keeps no deadline of its own, so the limiter puts a timer round each call
        self._clock = clock or WallClock()
        self._lock = Lock()  # one connection, used by one thread at a time
        self._database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(SCHEMA)

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests, or none."""
        return await self._transact(lambda now_us: self._take(requests, now_us))

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels, and write nothing."""
        return await self._transact(lambda now_us: self._peek(requests, now_us))

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        return await self._transact(lambda now_us: self._refund(requests, now_us))

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        await self._transact(lambda _: self._reset(requests))

    async def aclose(self) -> None:
        """Close the file. Calling it twice is harmless."""

        def close() -> None:
            with self._lock:
                self._database.close()

        await asyncio.to_thread(close)

    async def _transact(self, work: Callable[[int], T]) -> T:
        """Do some work in one transaction, in a thread, for SQLite waits for the disk and for other processes."""

        def run() -> T:
            with self._lock:
                try:
                    self._database.execute("BEGIN IMMEDIATE")
                    try:
                        result = work(self._clock.now_us())
                    except BaseException:
                        self._database.execute("ROLLBACK")
                        raise
                    self._database.execute("COMMIT")
                except sqlite3.Error as error:
                    raise StorageError("server_error", f"SQLite: {error}") from error
                return result

        return await asyncio.to_thread(run)

    def _take(self, requests: Sequence[BucketRequest], now_us: int) -> Verdict:
        states = [self._read(request, now_us) for request in requests]
        allowed = all(level >= request.cost_units for request, (level, _, _) in zip(requests, states, strict=True))
        levels: list[BucketLevel] = []
        for request, (level, tick, begins_anew) in zip(requests, states, strict=True):
            left, anchor = level, tick
            if allowed:
                anchor = anchor_after_payment(request.spec, level, tick, now_us)
                left -= request.cost_units
            if allowed or begins_anew:  # else a denial writes nothing
                self._write(request, left, anchor)
            levels.append(_bucket_level(request.spec, left, anchor, now_us))
        self._forget_full_buckets(now_us)
        return Verdict(allowed, tuple(levels))

    def _peek(self, requests: Sequence[BucketRequest], now_us: int) -> tuple[BucketLevel, ...]:
        states = [self._read(request, now_us) for request in requests]
        return tuple(
            _bucket_level(request.spec, level, tick, now_us)
            for request, (level, tick, _) in zip(requests, states, strict=True)
        )

    def _refund(self, requests: Sequence[BucketRequest], now_us: int) -> tuple[BucketLevel, ...]:
        levels: list[BucketLevel] = []
        for request in requests:
            level, tick, _ = self._read(request, now_us)
            level = min(request.spec.capacity, level + request.cost_units)
            self._write(request, level, tick)
            levels.append(_bucket_level(request.spec, level, tick, now_us))
        return tuple(levels)

    def _reset(self, requests: Sequence[BucketRequest]) -> None:
        self._database.executemany("DELETE FROM buckets WHERE key = ?", [(request.key,) for request in requests])

    def _read(self, request: BucketRequest, now_us: int) -> tuple[int, int, bool]:
        """Return a bucket's level, the tick from which it counts on, and whether it begins anew there.

        It begins anew if its rule has changed, or if the clock stepped back by more than the bucket takes to fill. The
        state is written then even if the request is denied, because the wait that the client is told counts from it.
        """
        spec = request.spec
        row = self._database.execute("SELECT spec, level, last FROM buckets WHERE key = ?", (request.key,)).fetchone()
        if row is None:
            return spec.capacity, -(-now_us // spec.tick_us), False
        written, level, last = row
        if written != spec.text:
            old = BucketSpec(*map(int, written.split()))
            return *convert(old, spec, level, last, now_us), True
        level, tick = refill(spec, level, last, now_us)
        return level, tick, tick < last

    def _write(self, request: BucketRequest, level: int, last: int) -> None:
        spec = request.spec
        self._database.execute(
            "REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)",
            (request.key, spec.text, level, last, full_at_us(spec, level, last)),
        )

    def _forget_full_buckets(self, now_us: int) -> None:
        """Delete some rows of buckets that are full: more than a check adds, and few enough to delay none."""
        self._database.execute(
            "DELETE FROM buckets WHERE key IN (SELECT key FROM buckets WHERE full_at_us <= ? LIMIT 10)", (now_us,)
        )


def _bucket_level(spec: BucketSpec, level: int, tick: int, now_us: int) -> BucketLevel:
    return BucketLevel(level, tick * spec.tick_us - now_us)


async def main(path: Path) -> None:
    """Check four times, of which a bucket of three tokens a day lets three pass."""
    storage = SQLiteStorage(path)
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /export": RateLimitRule.per_day(3)}, deadline_ms=5_000)
    for _ in range(4):
        decision = await limiter.check(endpoint="GET /export", identifier="alice")
        print(decision.result.allowed, decision.result.remaining)
    await limiter.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
