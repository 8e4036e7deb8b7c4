"""One bucket that this process borrows from: what it has, and how much it should ask for."""

from collections import OrderedDict
from typing import Final, NamedTuple

from sluicegate.domain.buckets.bucket_key import key_bytes
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.token_bucket import refill
from sluicegate.infrastructure.redis.calls import LENT_US, LeaseTerms

SPENT_US: Final = LENT_US - 500_000
"""How long a loan is spent here, counted from the question, in microseconds. The margin is for clocks that run apart: the server
counts from when it lent, which was later, by its own clock."""

PERIOD_US: Final = 500_000
"""A loan should last about this long; one that is idle for this long goes back."""

HOT: Final = 8
"""How many times a check's cost must be taken in a period before borrowing pays."""

MAX_LEASES: Final = 10_000
"""Most buckets whose use is counted."""

MAX_BYTES: Final = 8 * 2**20
"""About how much memory they take at most."""

_BYTES_OF_ONE: Final = 500  # without its key
_SECOND_CHANCES: Final = 8  # loans that are passed over to find a lease that has none

GROWTH: Final = 8
"""A loan is at most this many times the one before: of a bucket that has just become hot, nothing is known."""


class LeaseRequest(NamedTuple):
    """A question to the server about one loan. `LeaseTable.settle`, `give_up` or `unsent` must be told of it, once.

    Args:
        request: The bucket, and the cost to pay besides; cost 0 if there is none.
        terms: What is reported and wanted.
        number: The question's number in its table, from 1.
        asked_us: When it was asked, from which the answer counts.
    """

    request: BucketRequest
    terms: LeaseTerms
    number: int
    asked_us: int


class Lease:
    """One bucket that this process borrows from, or counts because it may come to.

    Args:
        key: The bucket's name.
        spec: Its arithmetic.
        lease_id: The number under which the server keeps the loan.
        now_us: Since when its use is counted.
    """

    __slots__ = (
        "asked_us",
        "asking",
        "at_last_look",
        "key",
        "lease_id",
        "lent",
        "level",
        "low",
        "owner",
        "read_us",
        "since_us",
        "spec",
        "unconfirmed",
        "units",
        "until_us",
        "used",
        "wanted",
    )

    def __init__(self, key: str, spec: BucketSpec, lease_id: int, now_us: int) -> None:
        self.key = key
        self.spec = spec
        self.lease_id = lease_id
        self.since_us = now_us
        self.used = 0
        """Units that the server was asked for since `since_us`."""
        self.units = 0
        """Units that are left of the loan."""
        self.lent = 0
        """Units of the loan when it was given or renewed."""
        self.low = 0
        """The loan is renewed when fewer units than this are left of it."""
        self.until_us = 0
        """When the loan ends."""
        self.level = 0
        """Units that were left in the bucket at `read_us`, by this process's clock."""
        self.read_us = 0
        self.wanted = 0
        """Units that were asked for last."""
        self.asking = 0
        """The number of the question that has no answer yet; 0 if there is none."""
        self.asked_us = 0
        """When the last question was asked."""
        self.unconfirmed = False
        """Whether an answer was lost: the loan may be spent to its end, but not reported any more."""
        self.at_last_look = -1
        """Units that were left when `due_requests` looked last."""
        self.owner: object = None
        """The `LeaseRouter` that asks the server for it."""

    def aside(self) -> BucketRequest:
        """Return a request of the bucket that pays for nothing."""
        return BucketRequest(self.key, self.spec, 0)


def units_wanted(lease: Lease, request: BucketRequest, now_us: int, hot: int) -> int:
    """Return how much to borrow: what a period takes at the recent pace, in whole tokens; 0 if that is too little to borrow.

    Args:
        lease: The loan, and the recent use of the bucket.
        request: The check that asks.
        now_us: This process's clock.
        hot: See `HOT`.
    """
    used = lease.used + lease.lent - lease.units
    elapsed_us = max(1, now_us - lease.since_us)
    pace = used * PERIOD_US // elapsed_us
    enough = hot * request.cost_units
    too_little = used < enough or pace < enough
    if elapsed_us > PERIOD_US * (1 if too_little else 2):  # what was long ago does not tell the recent pace
        lease.since_us, lease.used, lease.lent = now_us, request.cost_units, lease.units
        return 0
    if too_little:
        return 0
    units = min(request.lease_units, pace, GROWTH * max(lease.wanted, request.cost_units))
    return units - units % lease.spec.units_per_token if units >= request.cost_units else 0


def bucket_level(lease: Lease, now_us: int) -> BucketLevel:
    """Return what is left in the bucket, without the loan, if no other process has taken from it since it was seen."""
    elapsed_us = now_us - lease.read_us
    level, tick = refill(lease.spec, lease.level, 0, elapsed_us)
    return BucketLevel(level, tick * lease.spec.tick_us - elapsed_us)


class BoundedLeases:
    """Hold at most `max_leases` leases in at most about `max_bytes` of memory, in the order in which they came.

    Args:
        max_leases: At least 1.
        max_bytes: Keys included.
    """

    __slots__ = ("_by_key", "_bytes", "_max_bytes", "_max_leases")

    def __init__(self, max_leases: int, max_bytes: int) -> None:
        self._max_leases = max_leases
        self._max_bytes = max_bytes
        self._by_key: OrderedDict[str, Lease] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Lease | None:
        """Return a bucket's lease; None if there is none."""
        return self._by_key.get(key)

    def add(self, lease: Lease) -> None:
        """Hold the lease of a bucket that has none."""
        self._by_key[lease.key] = lease
        self._bytes += _BYTES_OF_ONE + key_bytes(lease.key)

    def remove(self, key: str) -> None:
        """Drop a bucket's lease."""
        del self._by_key[key]
        self._bytes -= _BYTES_OF_ONE + key_bytes(key)

    def surplus(self, key: str) -> Lease | None:
        """Return the lease that must be removed before another one is added; None if there is room.

        That is the oldest one without a loan if it is among the first few, else the oldest.

        Args:
            key: The bucket whose lease will be added.
        """
        size = self._bytes + _BYTES_OF_ONE + key_bytes(key)
        if not self._by_key or (len(self._by_key) < self._max_leases and size <= self._max_bytes):
            return None
        for _ in range(_SECOND_CHANCES):
            oldest = next(iter(self._by_key.values()))
            if not oldest.units:
                break
            self._by_key.move_to_end(oldest.key)
        return next(iter(self._by_key.values()))

    def clear(self) -> None:
        """Drop all of them."""
        self._by_key.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._by_key)
