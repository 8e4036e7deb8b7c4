"""Buckets in this process's memory: bounded, exact, and without a clock or a lock of its own."""

from collections.abc import Sequence
from typing import Final

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.expiry_queue import ExpiryQueue
from sluicegate.domain.token_bucket import anchor_after_payment, convert, full_at_us, refill

# `_Bucket.last` of a bucket that is full whatever its rule says, and of one that has left the table: no clock tells such a tick.
_RESET: Final = -1
_GONE: Final = -2

# A large dictionary stops everything when it grows: `benchmarks/small_parts.py` measures it.
_SHARDS: Final = 256
_SHARD_MASK: Final = _SHARDS - 1

_MAX_FREED: Final = 2  # full buckets that each new one replaces, so that memory shrinks after a flood
_MAX_LOOKS: Final = (
    16  # buckets looked at for that, and again where there is no room: what bounds the time of one check
)


@mypyc_attr(acyclic=True)  # the garbage collector need not visit a million of them
class _Bucket:
    """The state of one bucket."""

    __slots__ = ("last", "level", "spec")

    def __init__(self, spec: BucketSpec, level: i64, last: i64) -> None:
        self.spec = spec
        self.level = level
        self.last = last


class BucketTable:
    """Keep at most `max_keys` buckets; full ones, which equal absent ones, leave first.

    Not safe to share between threads without a lock. The time of each call is bounded, whatever the table holds.

    Args:
        max_keys: The greatest number of buckets held, at least 1. Where no bucket that was looked at is full, the one of them
            that would be full first is forgotten, which refills it.
    """

    __slots__ = ("_expiry", "_max_keys", "_shards", "_size", "evicted_unfull")

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._shards: list[dict[str, _Bucket]] = [{} for _ in range(_SHARDS)]
        self._size = 0
        self._expiry = ExpiryQueue()
        self.evicted_unfull = 0
        """How many buckets were forgotten before they were full."""

    def __len__(self) -> int:
        return self._size

    def take(self, requests: tuple[BucketRequest, ...], now_us: i64) -> Verdict:
        """Pay all requests at `now_us`, or none."""
        if len(requests) == 1:
            return self._take_one(requests[0], now_us)
        allowed = True
        buckets: list[_Bucket | None] = []
        for request in requests:
            bucket = self._find(request.key)
            level, _ = _level_of(bucket, request.spec, now_us)
            if level < request.cost_units:
                allowed = False
            buckets.append(bucket)
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            bucket = buckets[at]
            level, anchor = _level_of(bucket, request.spec, now_us)  # again: cheaper than to keep it in an object
            levels.append(self._settle(request, bucket, level, anchor, allowed, now_us))
        return Verdict(allowed, tuple(levels))

    def _take_one(self, request: BucketRequest, now_us: i64) -> Verdict:
        """Do what `take` does for one request: most checks are such, and take half the time without the lists."""
        spec = request.spec
        bucket = self._find(request.key)
        if bucket is None or bucket.spec is not spec or bucket.last == _RESET or spec.tick_us != 1:
            level, anchor = _level_of(bucket, spec, now_us)
            allowed = level >= request.cost_units
            return Verdict(allowed, (self._settle(request, bucket, level, anchor, allowed, now_us),))
        level, anchor = refill(spec, bucket.level, bucket.last, now_us)
        allowed = level >= request.cost_units
        if allowed:
            level -= request.cost_units
        if allowed or anchor < bucket.last:
            bucket.level = level
            bucket.last = anchor
        return Verdict(allowed, (BucketLevel(level, anchor - now_us),))

    def peek(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Return the levels at `now_us`; change nothing."""
        levels: list[BucketLevel] = []
        for request in requests:
            level, anchor = _level_of(self._find(request.key), request.spec, now_us)
            levels.append(BucketLevel(level, anchor * request.spec.tick_us - now_us))
        return tuple(levels)

    def refund(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Put `cost_units` back into each bucket, never above its capacity."""
        levels: list[BucketLevel] = []
        for request in requests:
            spec = request.spec
            bucket = self._find(request.key)
            level, anchor = _level_of(bucket, spec, now_us)
            if bucket is not None and bucket.last != _RESET:
                level = min(spec.capacity, level + request.cost_units)
                self._write(request.key, bucket, spec, level, anchor, now_us)
            levels.append(BucketLevel(level, anchor * spec.tick_us - now_us))
        return tuple(levels)

    def reset(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Make each bucket full, and return the levels."""
        for request in requests:
            bucket = self._find(request.key)
            if bucket is not None:
                bucket.last = _RESET
        return self.peek(requests, now_us)

    def _find(self, key: str) -> _Bucket | None:
        return self._shards[hash(key) & _SHARD_MASK].get(key)

    def _settle(  # noqa: PLR0913, PLR0917 - a request, its bucket, and what became of it
        self, request: BucketRequest, bucket: _Bucket | None, level: i64, anchor: i64, allowed: bool, now_us: i64
    ) -> BucketLevel:
        """Pay, or not, and return the level that is left."""
        spec = request.spec
        if allowed:
            if spec.tick_us != 1:
                anchor = anchor_after_payment(spec, level, anchor, now_us)
            level -= request.cost_units
            self._write(request.key, bucket, spec, level, anchor, now_us)
        elif bucket is not None and bucket.last != _RESET and (anchor < bucket.last or bucket.spec != spec):
            # It begins anew, because the clock stepped back or its rule changed: what the client is told to wait counts
            # from here.
            self._write(request.key, bucket, spec, level, anchor, now_us)
        return BucketLevel(level, anchor * spec.tick_us - now_us)

    def _write(  # noqa: PLR0913, PLR0917 - a state and its place
        self, key: str, bucket: _Bucket | None, spec: BucketSpec, level: i64, last: i64, now_us: i64
    ) -> None:
        if bucket is None:
            self._make_room(now_us)
            self._shards[hash(key) & _SHARD_MASK][key] = _Bucket(spec, level, last)
            self._size += 1
            self._expiry.add(key, full_at_us(spec, level, last), now_us)
            return
        if bucket.last == _GONE:  # it has just made room for another bucket of the same check
            self._write(key, None, spec, level, last, now_us)
            return
        bucket.spec = spec
        bucket.level = level
        bucket.last = last

    def _make_room(self, now_us: i64) -> None:
        """Forget some full buckets for a new one; one that is not full only where the table has no room."""
        freed = 0
        for _ in range(_MAX_LOOKS):
            key = self._expiry.pop_due(now_us)
            if key is None:
                break
            full_us = self._full_at_us(key)
            if full_us > now_us:
                self._expiry.add(key, full_us, now_us)
                continue
            self._forget(key)
            freed += 1
            if freed == _MAX_FREED:
                return
        if self._size >= self._max_keys:
            self._evict(now_us)

    def _evict(self, now_us: i64) -> None:
        """Forget the bucket that will be full first, of some that were expected to be."""
        victim = self._expiry.pop_first()
        victim_full_us = self._full_at_us(victim)
        others: list[tuple[str, int]] = []
        for _ in range(min(_MAX_LOOKS, self._size - 1)):
            if victim_full_us <= now_us:
                break
            key = self._expiry.pop_first()
            full_us = self._full_at_us(key)
            if full_us < victim_full_us:
                key, victim = victim, key
                full_us, victim_full_us = victim_full_us, full_us
            others.append((key, full_us))
        for key, full_us in others:
            self._expiry.add(key, full_us, now_us)
        self._forget(victim)
        if victim_full_us > now_us:
            self.evicted_unfull += 1

    def _forget(self, key: str) -> None:
        self._shards[hash(key) & _SHARD_MASK].pop(key).last = _GONE
        self._size -= 1

    def _full_at_us(self, key: str) -> i64:
        bucket = self._shards[hash(key) & _SHARD_MASK][key]
        return 0 if bucket.last == _RESET else full_at_us(bucket.spec, bucket.level, bucket.last)


def _level_of(bucket: _Bucket | None, spec: BucketSpec, now_us: i64) -> tuple[i64, i64]:
    """Return a bucket's level at `now_us` and the tick from which it counts on."""
    if bucket is None or bucket.last == _RESET:
        return spec.capacity, -(-now_us // spec.tick_us)
    if bucket.spec is spec or bucket.spec == spec:
        return refill(spec, bucket.level, bucket.last, now_us)
    return convert(bucket.spec, spec, bucket.level, bucket.last, now_us)
