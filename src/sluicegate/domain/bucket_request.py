"""What a storage is asked, and what it tells."""

import msgspec

from sluicegate.domain.bucket_spec import BucketSpec


class BucketRequest(msgspec.Struct, frozen=True, gc=False):
    """Ask one bucket for tokens.

    Args:
        key: The bucket's name in the storage.
        spec: Its arithmetic.
        cost_units: What is asked for, 0 to `spec.capacity`; 0 in a peek.
        lease_units: The most that a process may borrow at a time, where a storage lends; 0: nothing.
    """

    key: str
    spec: BucketSpec
    cost_units: int
    lease_units: int = 0


class BucketLevel(msgspec.Struct, frozen=True, gc=False):
    """Tell a bucket's level after a call.

    Args:
        level: Units in the bucket.
        effective_in_us: Microseconds from the call to the instant at which the level holds: 0 as a rule; negative inside a tick
            longer than a microsecond; positive after a clock has stepped back.
    """

    level: int
    effective_in_us: int


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Tell what a storage did with some requests: paid all of them or none.

    Args:
        allowed: Whether they were paid.
        levels: The buckets' levels afterwards, in the requests' order.
    """

    allowed: bool
    levels: tuple[BucketLevel, ...]
