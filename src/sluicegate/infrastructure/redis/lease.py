"""One bucket of which this process borrows: what it has, and how much it should ask for."""

from typing import NamedTuple

import msgspec

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.token_bucket import refill
from sluicegate.infrastructure.redis.script import LENT_US, LeaseTerms

SPENT_US = LENT_US - 500_000
"""How long a loan is spent here, from when it was asked for, in microseconds. The margin is for clocks that run apart: the
server counts from when it lent, by its own clock, which was later."""

PERIOD_US = 500_000
"""A loan should last about so long; one that nobody spends of for so long goes back."""

_HOT = 8
"""So many times a check's cost must be asked for in a period before borrowing pays."""

GROWTH = 8
"""Nothing is known of a bucket that has just become hot: a loan is at most so many times the one before."""


class LeaseRequest(NamedTuple):
    """What the server is to be asked for. It must be answered with `settle`, `give_up` or `unsent`, once.

    Args:
        request: The bucket, and what is paid beside; of cost 0 if nothing is.
        terms: What is reported and wanted.
        number: Which request of this book it is, from 1.
        asked_us: The instant from which the answer counts.
    """

    request: BucketRequest
    terms: LeaseTerms
    number: int
    asked_us: int


class Lease(msgspec.Struct, gc=False):
    """One bucket that this process borrows of, or watches because it may come to.

    Args:
        spec: Its arithmetic.
        holder: Under what number the server keeps the loan.
        since_us: Since when its use is counted.
        used: Units that were asked of the server since then.
        units: What is left of the loan.
        lent: What it was when it was given or renewed.
        low: Below it the loan is renewed, while it can still be spent.
        until_ns: When it ends, for a clock that is read without rounding.
        level: Units that were left in the bucket at `read_us`.
        read_us: See `level`; by this process's clock.
        wanted: How much was asked for last.
        asking: The request that the server has not answered yet; 0: there is none.
        asked_us: When the last one was made.
        orphaned: Whether the server's answer was lost: the loan may be spent to its end, but not be reported any more.
        at_last_look: What was left when `due_requests` looked.
        owner: Who asks the server for it.
    """

    spec: BucketSpec
    lease_id: int
    since_us: int
    used: int = 0
    units: int = 0
    lent: int = 0
    low: int = 0
    until_ns: int = 0
    level: int = 0
    read_us: int = 0
    wanted: int = 0
    asking: int = 0
    asked_us: int = 0
    unconfirmed: bool = False
    at_last_look: int = -1
    owner: object = None

    @property
    def until_us(self) -> int:
        """When it ends, in microseconds."""
        return self.until_ns // 1000


def wanted(lease: Lease, request: BucketRequest, now_us: int) -> int:
    """Return how much to borrow: as much as is used in a period at the pace of late, in whole tokens; 0 if that is little."""
    used = lease.used + lease.lent - lease.units
    elapsed_us = max(1, now_us - lease.since_us)
    pace = used * PERIOD_US // elapsed_us
    hot = _HOT * request.cost_units
    too_little = used < hot or pace < hot
    if elapsed_us > PERIOD_US * (1 if too_little else 2):  # what was long ago says nothing of the pace of late
        lease.since_us, lease.used, lease.lent = now_us, request.cost_units, lease.units
        return 0
    if too_little:
        return 0
    units = min(request.lease_units, pace, GROWTH * max(lease.wanted, request.cost_units))
    return units - units % lease.spec.units_per_token if units >= request.cost_units else 0


def bucket_level(lease: Lease, now_us: int) -> BucketLevel:
    """Return what is left in the bucket as far as is known here, if nobody else has asked for it since; without the loan."""
    since_us = now_us - lease.read_us
    level, tick = refill(lease.spec, lease.level, 0, since_us)
    return BucketLevel(level, tick * lease.spec.tick_us - since_us)
