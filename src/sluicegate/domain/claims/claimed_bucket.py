"""What calls do to a bucket with claims. `bucket_table.py` does the rest, and all of it where there are none."""

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket import RESET, Bucket
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.claims.claim import HOLD, KEPT_US, NOT_FOUND, PAID
from sluicegate.domain.claims.claims import Claims


def pay_and_claim(bucket: Bucket, request: BucketRequest, terms: ClaimTerms, number: i64, now_us: i64) -> BucketLevel:
    """Pay a request that the bucket has enough for, and note its claim.

    Args:
        bucket: The bucket.
        request: What to pay.
        terms: What it leaves.
        number: The claim's.
        now_us: The storage's clock.
    """
    spec = request.spec
    claims, level, anchor = _look(bucket, spec, now_us)
    anchor = claims.anchor_before_payment(spec, level, anchor, now_us)
    level -= request.cost_units
    if terms.kind != PAID:
        claims.add(number, request.cost_units, terms.kind, now_us, terms.ttl_us)
    _keep(bucket, spec, claims, level, anchor)
    # A client that holds is told when all holds are over, the others when the refill has filled the bucket.
    return _level(spec, claims, level, anchor, spec.capacity if terms.kind == HOLD else level, now_us)


def deny_claimed(bucket: Bucket, request: BucketRequest, now_us: i64) -> BucketLevel:
    """Return the level of a bucket that a denied check asked. It is written where it begins anew; see `StorageProtocol.take`."""
    spec = request.spec
    claims = bucket.claims or Claims()
    if bucket.spec == spec and now_us >= claims.set_us:
        units = request.cost_units
        level, anchor, reached = claims.denied_until(spec, bucket.level, bucket.last, units, now_us)
        if anchor >= bucket.last:
            if level < units:
                anchor = reached + (level - units) // spec.units_per_tick
            return BucketLevel(level, anchor * spec.tick_us - now_us)
    anew = bucket.spec != spec or claims.last_too_long(now_us)
    if not anew and not claims.is_still(spec, now_us):
        claims = claims.copy()
    level, anchor = claims.look(bucket.spec, spec, bucket.level, bucket.last, now_us)
    if anew or anchor < bucket.last:
        _keep(bucket, spec, claims, level, anchor)
    return _level(spec, claims, level, anchor, request.cost_units, now_us)


def refund_claimed(bucket: Bucket, request: BucketRequest, now_us: i64) -> BucketLevel:
    """Put tokens back, never above what the claims leave of the capacity."""
    spec = request.spec
    claims, level, anchor = _look(bucket, spec, now_us)
    level = min(claims.room(spec), level + request.cost_units)
    claims.shrink(spec, level)
    _keep(bucket, spec, claims, level, anchor)
    return _level(spec, claims, level, anchor, level, now_us)


def reset_claimed(bucket: Bucket, spec: BucketSpec, now_us: i64) -> None:
    """Fill the bucket, end its holds, and let nothing more come back of reservations."""
    claims, _, _ = _look(bucket, spec, now_us)
    claims.reset()
    _keep(bucket, spec, claims, claims.room(spec), -(-now_us // spec.tick_us))
    if bucket.claims is None:
        bucket.last = RESET


def settle_claim(
    bucket: Bucket, request: BucketRequest, number: int, max_debt_units: i64, now_us: i64
) -> BucketSettlement:
    """Charge what a claim that is there really cost; see `Claims.settle`."""
    spec = request.spec
    claims, before, anchor = _look(bucket, spec, now_us)
    claim = claims.find(number)
    if claim is None:  # it was to be forgotten
        _keep(bucket, spec, claims, before, anchor)
        return BucketSettlement(NOT_FOUND, 0, 0, _level(spec, claims, before, anchor, before, now_us))
    level, found, charged, back = claims.settle(spec, claim, before, request.cost_units, max_debt_units)
    if level < before:
        anchor = claims.anchor_before_payment(spec, before, anchor, now_us)
    _keep(bucket, spec, claims, level, anchor)
    return BucketSettlement(found, charged, back, _level(spec, claims, level, anchor, level, now_us))


def extend_claim(bucket: Bucket, request: BucketRequest, number: i64, ttl_us: i64, now_us: i64) -> None:
    """Let a claim that is not over end later."""
    claims, level, anchor = _look(bucket, request.spec, now_us)
    claims.extend(number, now_us, ttl_us)
    _keep(bucket, request.spec, claims, level, anchor)


def over_by_us(claims: Claims, spec: BucketSpec, level: i64, last: i64) -> i64:
    """Return an instant that is not before `Claims.over_at_us`, in one step however many claims there are.

    Args:
        claims: The bucket's.
        spec: Its arithmetic.
        level: Units at the tick `last`.
        last: That tick.
    """
    begins: i64 = last
    kept_us: i64 = 0
    if claims.ended:
        kept_us = claims.ended[-1].ends_us + KEPT_US
    if claims.active:  # when the last of them has ended there is room for all that is missing
        ends_us = claims.active[-1].ends_us
        begins = max(begins, -(-ends_us // spec.tick_us))
        kept_us = max(kept_us, ends_us + KEPT_US)
    missing: i64 = max(0, spec.capacity - level)
    return max(kept_us, (begins - -missing // spec.units_per_tick) * spec.tick_us)


def _look(bucket: Bucket, spec: BucketSpec, now_us: i64) -> tuple[Claims, i64, i64]:
    claims = bucket.claims or Claims()
    if bucket.last == RESET:
        return claims, spec.capacity, -(-now_us // spec.tick_us)
    level, anchor = claims.look(bucket.spec, spec, bucket.level, bucket.last, now_us)
    return claims, level, anchor


def _keep(bucket: Bucket, spec: BucketSpec, claims: Claims, level: i64, last: i64) -> None:
    bucket.spec = spec
    bucket.level = level
    bucket.last = last
    bucket.claims = claims if len(claims) > 0 else None


def _level(  # noqa: PLR0913, PLR0917 - a bucket's state, and what is waited for
    spec: BucketSpec, claims: Claims, level: i64, anchor: i64, units: i64, now_us: i64
) -> BucketLevel:
    """Return a level, and when it is effective: later or earlier, where claims must end before so many units are there."""
    if level < units:
        anchor = claims.reaches(spec, level, anchor, units) + (level - units) // spec.units_per_tick
    return BucketLevel(level, anchor * spec.tick_us - now_us)
