"""Buckets in this process's memory: bounded, exact, and without a clock or a lock of its own."""

from collections.abc import Sequence
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.bucket import GONE, RESET, Bucket, level_of
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.claim import MAX_CLAIMS, NOT_FOUND, PAID
from sluicegate.domain.claimed_bucket import (
    deny_claimed,
    extend_claim,
    pay_and_claim,
    refund_claimed,
    reset_claimed,
    settle_claim,
)
from sluicegate.domain.errors import StorageError
from sluicegate.domain.expiry_queue import ExpiryQueue
from sluicegate.domain.token_bucket import anchor_after_payment, full_at_us, refill

# A large dictionary stops everything when it grows: `benchmarks/small_parts.py` measures it.
_SHARDS: Final = 256
_SHARD_MASK: Final = _SHARDS - 1

_MAX_FREED: Final = 2  # full buckets that each new one replaces, so that memory shrinks after a flood
_MAX_LOOKS: Final = (
    16  # buckets looked at for that, and again where there is no room: what bounds the time of one check
)


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
        self._shards: list[dict[str, Bucket]] = [{} for _ in range(_SHARDS)]
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
        return self._take_several(requests, (), 0, now_us)

    def _take_several(
        self, requests: tuple[BucketRequest, ...], terms: Sequence[ClaimTerms], number: int, now_us: i64
    ) -> Verdict:
        allowed = True
        may_rise = False
        buckets: list[Bucket | None] = []
        for request in requests:
            bucket = self._find(request.key)
            level, _ = level_of(bucket, request.spec, now_us)
            if level < request.cost_units:
                allowed = False
            if bucket is not None and bucket.claims is not None:
                may_rise = True
            buckets.append(bucket)
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            bucket = buckets[at]
            term = terms[at] if terms else _PAID
            if (bucket is not None and bucket.claims is not None) or (allowed and term.kind != PAID):
                levels.append(self._pay_claimed(request, bucket, term, number, allowed, now_us))
                continue
            level, anchor = level_of(bucket, request.spec, now_us)  # again: cheaper than to keep it in an object
            levels.append(self._pay(request, bucket, level, anchor, allowed, now_us))
        return Verdict(allowed, tuple(levels), may_rise and not allowed)

    def _take_one(self, request: BucketRequest, now_us: i64) -> Verdict:
        """Do what `take` does for one request: most checks are such, and take half the time without the lists."""
        spec = request.spec
        bucket = self._find(request.key)
        if bucket is None or bucket.spec is not spec or bucket.last == RESET or spec.tick_us != 1:
            if bucket is not None and bucket.claims is not None:
                return self._take_several((request,), (), 0, now_us)
            level, anchor = level_of(bucket, spec, now_us)
            allowed = level >= request.cost_units
            return Verdict(allowed, (self._pay(request, bucket, level, anchor, allowed, now_us),))
        if bucket.claims is not None:
            return self._take_several((request,), (), 0, now_us)
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
            level, anchor = level_of(self._find(request.key), request.spec, now_us)
            levels.append(BucketLevel(level, anchor * request.spec.tick_us - now_us))
        return tuple(levels)

    def refund(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Put `cost_units` back into each bucket, never above its capacity."""
        levels: list[BucketLevel] = []
        for request in requests:
            spec = request.spec
            bucket = self._find(request.key)
            if bucket is not None and bucket.claims is not None:
                levels.append(refund_claimed(bucket, request, now_us))
                continue
            level, anchor = level_of(bucket, spec, now_us)
            if bucket is not None and bucket.last != RESET:
                level = min(spec.capacity, level + request.cost_units)
                self._write(request.key, bucket, spec, level, anchor, now_us)
            levels.append(BucketLevel(level, anchor * spec.tick_us - now_us))
        return tuple(levels)

    def reset(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Make each bucket full, and return the levels."""
        for request in requests:
            bucket = self._find(request.key)
            if bucket is not None and bucket.claims is not None:
                reset_claimed(bucket, request.spec, now_us)
            elif bucket is not None:
                bucket.last = RESET
        return self.peek(requests, now_us)

    # Reservations and holds

    def reserve(
        self, requests: tuple[BucketRequest, ...], number: int, terms: Sequence[ClaimTerms], now_us: i64
    ) -> Verdict:
        """Pay all requests at `now_us` and note their claims, or do nothing.

        Args:
            requests: What to pay.
            number: What names the claims, in all of the buckets.
            terms: What each request leaves in its bucket.
            now_us: The storage's clock.

        Raises:
            StorageError: If a bucket has `MAX_CLAIMS`.
        """
        for request in requests:
            bucket = self._find(request.key)
            if bucket is not None and bucket.claims is not None and len(bucket.claims) >= MAX_CLAIMS:
                raise StorageError("overload", f"{MAX_CLAIMS} reservations of one bucket are not settled.")
        return self._take_several(requests, terms, number, now_us)

    def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], now_us: i64
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, `cost_units` of each request, and forget them; see `Claims.settle`."""
        settled: list[BucketSettlement] = []
        for at, request in enumerate(requests):
            bucket = self._find(request.key)
            if bucket is None or bucket.claims is None or not bucket.claims.has(number):
                level, anchor = level_of(bucket, request.spec, now_us)
                left = BucketLevel(level, anchor * request.spec.tick_us - now_us)
                settled.append(BucketSettlement(NOT_FOUND, 0, 0, left))
            else:
                settled.append(settle_claim(bucket, request, number, max_debts[at], now_us))
        return tuple(settled)

    def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], now_us: i64) -> int:
        """Let claims that are not over end later, and return how many there are."""
        extended = 0
        for at, request in enumerate(requests):
            bucket = self._find(request.key)
            if (
                bucket is not None
                and bucket.claims is not None
                and bucket.claims.is_active(bucket.spec, number, now_us)
            ):
                extend_claim(bucket, request, number, ttls_us[at], now_us)
                extended += 1
        return extended

    def _pay_claimed(  # noqa: PLR0913, PLR0917 - a request, its bucket, and what becomes of it
        self,
        request: BucketRequest,
        bucket: Bucket | None,
        terms: ClaimTerms,
        number: int,
        allowed: bool,
        now_us: i64,
    ) -> BucketLevel:
        """Do what `_pay` does where there are claims, or one is to be made."""
        spec = request.spec
        if bucket is None or bucket.last == GONE:
            self._write(request.key, bucket, spec, spec.capacity, -(-now_us // spec.tick_us), now_us)
            bucket = self._shards[hash(request.key) & _SHARD_MASK][request.key]
        if allowed:
            return pay_and_claim(bucket, request, terms, number, now_us)
        return deny_claimed(bucket, request, now_us)

    def _find(self, key: str) -> Bucket | None:
        return self._shards[hash(key) & _SHARD_MASK].get(key)

    def _pay(  # noqa: PLR0913, PLR0917 - a request, its bucket, and what became of it
        self, request: BucketRequest, bucket: Bucket | None, level: i64, anchor: i64, allowed: bool, now_us: i64
    ) -> BucketLevel:
        """Pay, or not, and return the level that is left."""
        spec = request.spec
        if allowed:
            if spec.tick_us != 1:
                anchor = anchor_after_payment(spec, level, anchor, now_us)
            level -= request.cost_units
            self._write(request.key, bucket, spec, level, anchor, now_us)
        elif bucket is not None and bucket.last != RESET and (anchor < bucket.last or bucket.spec != spec):
            # It begins anew, because the clock stepped back or its rule changed: what the client is told to wait counts
            # from here.
            self._write(request.key, bucket, spec, level, anchor, now_us)
        return BucketLevel(level, anchor * spec.tick_us - now_us)

    def _write(  # noqa: PLR0913, PLR0917 - a state and its place
        self, key: str, bucket: Bucket | None, spec: BucketSpec, level: i64, last: i64, now_us: i64
    ) -> None:
        if bucket is None:
            self._make_room(now_us)
            self._shards[hash(key) & _SHARD_MASK][key] = Bucket(spec, level, last)
            self._size += 1
            self._expiry.add(key, full_at_us(spec, level, last), now_us)
            return
        if bucket.last == GONE:  # it has just made room for another bucket of the same check
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
        self._shards[hash(key) & _SHARD_MASK].pop(key).last = GONE
        self._size -= 1

    def _full_at_us(self, key: str) -> i64:
        bucket = self._shards[hash(key) & _SHARD_MASK][key]
        if bucket.claims is not None:
            return bucket.claims.over_at_us(bucket.spec, bucket.level, bucket.last)
        return 0 if bucket.last == RESET else full_at_us(bucket.spec, bucket.level, bucket.last)


_PAID: Final = ClaimTerms(PAID, 0)
