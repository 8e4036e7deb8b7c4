"""Buckets with claims: reservations, holds and loans, which are changed in place."""

from collections.abc import Sequence
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket import GONE, RESET, Bucket, level_of, pay
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.bucket_store import BYTES_A_CLAIM, BucketStore
from sluicegate.domain.claims.claim import MAX_CLAIMS, NOT_FOUND, PAID
from sluicegate.domain.claims.claimed_bucket import (
    deny_claimed,
    extend_claim,
    pay_and_claim,
    refund_claimed,
    reset_claimed,
    settle_claim,
)
from sluicegate.domain.errors import StorageError

_PAID: Final = ClaimTerms(PAID, 0)


class ClaimedBuckets(BucketStore):
    """Change buckets in place, those with claims among them. Meanwhile the store is closed to interruptions.

    Args:
        max_keys: The greatest number of buckets held, at least 1; see `BucketStore`.
    """

    __slots__ = ()

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
        return self._take_in_place(requests, terms, number, now_us)

    def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], now_us: i64
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, `cost_units` of each request, and forget them; see `Claims.settle`."""
        self._close(now_us)
        try:
            if len(requests) == 1:
                return (self._settle_one(requests[0], number, max_debts[0], now_us),)
            return tuple(
                [self._settle_one(request, number, max_debts[at], now_us) for at, request in enumerate(requests)]
            )
        finally:
            self._closed = False

    def _settle_one(self, request: BucketRequest, number: int, max_debt_units: i64, now_us: i64) -> BucketSettlement:
        bucket = self._find(request.key)
        if bucket is None or bucket.claims is None or bucket.claims.find(number) is None:
            level, anchor = level_of(bucket, request.spec, now_us)
            left = BucketLevel(level, anchor * request.spec.tick_us - now_us)
            return BucketSettlement(NOT_FOUND, 0, 0, left)
        before = bucket.claim_count
        settled = settle_claim(bucket, request, number, max_debt_units, now_us)
        self._count_claims(bucket, before)
        return settled

    def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], now_us: i64) -> int:
        """Let claims that are not over end later, and return how many there are."""
        extended = 0
        self._close(now_us)
        try:
            for at, request in enumerate(requests):
                bucket = self._find(request.key)
                claims = None if bucket is None else bucket.claims
                if bucket is not None and claims is not None and claims.is_active(bucket.spec, number, now_us):
                    before = bucket.claim_count
                    extend_claim(bucket, request, number, ttls_us[at], now_us)
                    self._count_claims(bucket, before)
                    extended += 1
            return extended
        finally:
            self._closed = False

    def reset_shard(self, shard: i64, prefixes: tuple[str, ...], now_us: i64) -> None:
        """Make each bucket full whose key begins with one of some prefixes, as a reset does.

        Args:
            shard: The part of the buckets that is looked at, below `SHARDS`: that bounds the time of the call.
            prefixes: What the keys begin with.
            now_us: The storage's clock.
        """
        self._close(now_us)
        try:
            for key, bucket in self._shards[shard].items():
                if key.startswith(prefixes):
                    self._reset_one(bucket, bucket.spec, now_us)
        finally:
            self._closed = False

    def _take_in_place(
        self, requests: tuple[BucketRequest, ...], terms: Sequence[ClaimTerms], number: int, now_us: i64
    ) -> Verdict:
        self._close(now_us)
        try:
            if len(requests) == 1:
                return self._take_one(requests[0], terms[0] if terms else None, number, now_us)
            return self._take_several(requests, terms, number, now_us)
        finally:
            self._closed = False

    def _refund_in_place(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        self._close(now_us)
        try:
            return tuple([self._refund_one(request, now_us) for request in requests])
        finally:
            self._closed = False

    def _reset_in_place(self, requests: Sequence[BucketRequest], now_us: i64) -> None:
        self._close(now_us)
        try:
            for request in requests:
                bucket = self._find(request.key)
                if bucket is not None:
                    self._reset_one(bucket, request.spec, now_us)
        finally:
            self._closed = False

    def _reset_one(self, bucket: Bucket, spec: BucketSpec, now_us: i64) -> None:
        if bucket.claims is None:
            bucket.last = RESET
            return
        before = bucket.claim_count
        reset_claimed(bucket, spec, now_us)
        self._count_claims(bucket, before)

    def _refund_one(self, request: BucketRequest, now_us: i64) -> BucketLevel:
        spec = request.spec
        bucket = self._find(request.key)
        if bucket is not None and bucket.claims is not None:
            before = bucket.claim_count
            refunded = refund_claimed(bucket, request, now_us)
            self._count_claims(bucket, before)
            return refunded
        level, anchor = level_of(bucket, spec, now_us)
        if bucket is not None and bucket.last != RESET:
            level = min(spec.capacity, level + request.cost_units)
            self._write(request.key, bucket, spec, level, anchor, now_us)
        return BucketLevel(level, anchor * spec.tick_us - now_us)

    def _take_one(self, request: BucketRequest, terms: ClaimTerms | None, number: int, now_us: i64) -> Verdict:
        bucket = self._find(request.key)
        may_rise = bucket is not None and bucket.claims is not None
        level, anchor = level_of(bucket, request.spec, now_us)
        allowed = level >= request.cost_units
        if terms is None:
            terms = _PAID
        else:
            _require_room(bucket)
            if allowed:
                self._make_room_beside(BYTES_A_CLAIM, now_us)
        left = self._pay(request, bucket, terms, number, level, anchor, allowed, now_us)
        return Verdict(allowed, (left,), may_rise and not allowed)

    def _take_several(
        self, requests: tuple[BucketRequest, ...], terms: Sequence[ClaimTerms], number: int, now_us: i64
    ) -> Verdict:
        allowed = True
        may_rise = False
        buckets: list[Bucket | None] = []
        for request in requests:
            bucket = self._find(request.key)
            if terms:
                _require_room(bucket)
            level, _ = level_of(bucket, request.spec, now_us)
            if level < request.cost_units:
                allowed = False
            if bucket is not None and bucket.claims is not None:
                may_rise = True
            buckets.append(bucket)
        if allowed and terms:
            self._make_room_beside(BYTES_A_CLAIM * len(terms), now_us)
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            bucket = buckets[at]
            level, anchor = level_of(bucket, request.spec, now_us)  # again: cheaper than to keep it in an object
            term = terms[at] if terms else _PAID
            levels.append(self._pay(request, bucket, term, number, level, anchor, allowed, now_us))
        return Verdict(allowed, tuple(levels), may_rise and not allowed)

    def _pay(  # noqa: PLR0913, PLR0917 - a request, its bucket, and what becomes of it
        self,
        request: BucketRequest,
        bucket: Bucket | None,
        terms: ClaimTerms,
        number: int,
        level: i64,
        anchor: i64,
        allowed: bool,
        now_us: i64,
    ) -> BucketLevel:
        """Pay a request, or not, and note its claim; the level is that of `level_of`, and used where there are no claims."""
        if (bucket is not None and bucket.claims is not None) or (allowed and terms.kind != PAID):
            return self._pay_claimed(request, bucket, terms, number, allowed, now_us)
        states: list[tuple[str, Bucket]] = []
        left = pay(request, bucket, level, anchor, allowed, now_us, states)
        for key, state in states:
            self._write(key, bucket, state.spec, state.level, state.last, now_us)
        return left

    def _pay_claimed(  # noqa: PLR0913, PLR0917 - a request, its bucket, and what becomes of it
        self,
        request: BucketRequest,
        bucket: Bucket | None,
        terms: ClaimTerms,
        number: int,
        allowed: bool,
        now_us: i64,
    ) -> BucketLevel:
        """Do what `pay` does where there are claims, or one is to be made."""
        spec = request.spec
        if bucket is None or bucket.last == GONE:
            self._write(request.key, bucket, spec, spec.capacity, -(-now_us // spec.tick_us), now_us)
            bucket = self._find(request.key)
            assert bucket is not None  # noqa: S101 - it was written
        before = bucket.claim_count
        left = (
            pay_and_claim(bucket, request, terms, number, now_us) if allowed else deny_claimed(bucket, request, now_us)
        )
        self._count_claims(bucket, before)
        return left


def _require_room(bucket: Bucket | None) -> None:
    """Refuse another claim on a bucket.

    Raises:
        StorageError: If it has `MAX_CLAIMS`.
    """
    if bucket is not None and bucket.claims is not None and len(bucket.claims) >= MAX_CLAIMS:
        raise StorageError("overload", f"{MAX_CLAIMS} reservations of one bucket are not settled.")
