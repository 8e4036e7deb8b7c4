"""The state of one bucket in memory."""

from typing import Final

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.token_bucket import anchor_after_payment, convert, refill
from sluicegate.domain.claims.claims import Claims

RESET: Final = -1
"""`Bucket.last` of a bucket that is full whatever its rule says: no clock tells such a tick."""

GONE: Final = -2
"""`Bucket.last` of a bucket that has left the table."""


@mypyc_attr(acyclic=True)  # the garbage collector need not visit a million of them
class Bucket:
    """The state of one bucket.

    Args:
        spec: The arithmetic that it was written under.
        level: Units at the tick `last`.
        last: The tick at which `level` held; or `RESET`, or `GONE`.
    """

    __slots__ = ("claims", "last", "level", "spec")

    def __init__(self, spec: BucketSpec, level: i64, last: i64) -> None:
        self.spec = spec
        self.level = level
        self.last = last
        self.claims: Claims | None = None
        """Loans, reservations and holds; None where there are none."""

    @property
    def claim_count(self) -> i64:
        """How many there are."""
        return 0 if self.claims is None else len(self.claims)


def level_of(bucket: Bucket | None, spec: BucketSpec, now_us: i64) -> tuple[i64, i64]:
    """Return a bucket's level at `now_us` and the tick from which it counts on; change nothing."""
    if bucket is None or bucket.last == RESET:
        return spec.capacity, -(-now_us // spec.tick_us)
    if bucket.claims is not None:
        if bucket.spec is spec or bucket.spec == spec:
            return bucket.claims.level_at(spec, bucket.level, bucket.last, now_us)
        return bucket.claims.copy().look(bucket.spec, spec, bucket.level, bucket.last, now_us)
    if bucket.spec is spec or bucket.spec == spec:
        return refill(spec, bucket.level, bucket.last, now_us)
    return convert(bucket.spec, spec, bucket.level, bucket.last, now_us)


def pay(  # noqa: PLR0913, PLR0917 - a request, its bucket, and what became of it
    request: BucketRequest,
    bucket: Bucket | None,
    level: i64,
    anchor: i64,
    allowed: bool,
    now_us: i64,
    states: list[tuple[str, Bucket]],
) -> BucketLevel:
    """Pay a request, or not; change nothing, but add what becomes of the bucket to `states`, if anything does.

    Args:
        request: What to pay.
        bucket: Its bucket, without claims; None: there is none, and it is full.
        level: The bucket's level, as `level_of` returned it.
        anchor: The tick from which it counts on, from there too.
        allowed: Whether the whole check is paid.
        now_us: The storage's clock.
        states: Gets the key and the new state.

    Returns:
        The level that is left.
    """
    spec = request.spec
    if allowed:
        if spec.tick_us != 1:
            anchor = anchor_after_payment(spec, level, anchor, now_us)
        level -= request.cost_units
        states.append((request.key, Bucket(spec, level, anchor)))
    elif bucket is not None and bucket.last != RESET and (anchor < bucket.last or bucket.spec != spec):
        # It begins anew, because the clock stepped back or its rule changed: what the client is told to wait counts
        # from here.
        states.append((request.key, Bucket(spec, level, anchor)))
    return BucketLevel(level, anchor * spec.tick_us - now_us)
