"""Buckets that are at hand: their state in an object that a check keeps, so that it need not look for it in a table."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import msgspec

from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.result import Success

GONE = 1 << 61
"""Later than any clock tells: `Bucket.last` of a bucket that no table has any more."""


class Bucket:
    """Hold a bucket's state, taken apart, and what it is reckoned with.

    There is only one truth: a table that has such an object reads and writes the state in here. An object that has left its
    table looks, to whoever still holds it, like a bucket whose clock stepped back.

    Args:
        key: The bucket's name in the table.
        spec: Its arithmetic.
        cost_units: What those who hold it ask for.
        level: Units at the tick `last`.
        last: The tick at which `level` holds.
    """

    __slots__ = (
        "capacity",
        "cost_units",
        "key",
        "last",
        "left",
        "level",
        "rounding_up",
        "spec",
        "units_per_tick",
        "units_per_token",
    )

    def __init__(self, key: str, spec: BucketSpec, cost_units: int, level: int, last: int) -> None:
        self.key = key
        self.spec = spec
        self.cost_units = cost_units
        self.level = level
        self.last = last
        self.left = level
        """What would be left, while a check of several buckets does not know yet whether all can pay."""
        # As in the shape, one step nearer.
        self.capacity = spec.capacity
        self.units_per_tick = spec.units_per_tick
        self.units_per_token = spec.units_per_token
        self.rounding_up = spec.capacity + spec.units_per_second - 1
        """Less a level and divided by the units of a second: the seconds until the bucket is full, rounded up."""


QuickTake: TypeAlias = Callable[[str], Success[RateLimitResult] | None]
"""Identifier in; the answer, or None where this is not the way."""


class TurnLike(Protocol):
    """What is used of `runtime.turn.Turn`, and specified there."""

    @property
    def take(self) -> Callable[[], None]:
        """Take the turn, or raise `IndexError`."""
        ...

    @property
    def give(self) -> Callable[[None], None]:
        """Give the turn back."""
        ...

    def wait(self) -> None:
        """Take the turn once it is given back."""
        ...


class Timekeeping(msgspec.Struct, frozen=True, gc=False):
    """Tell when a table may be used, and what time it is.

    Args:
        turn: Taken from the reading of the clock to the writing of the buckets.
        read: Reads the clock.
        per_us: How many of its units are a microsecond.
    """

    turn: TurnLike
    read: Callable[[], int]
    per_us: int


class Denial(msgspec.Struct, frozen=True, gc=False):
    """A bucket's part in a denial.

    Args:
        spec: Its arithmetic.
        cost_units: What was asked for.
        level: What was there.
        held_us: When: the reply's instant, from which the client was told to wait, and the reading's lead.
        until_us: Until when the check is known to be denied.
    """

    spec: BucketSpec
    cost_units: int
    level: int
    held_us: int
    until_us: int


class DenialsAtHand(msgspec.Struct, frozen=True, gc=False):
    """Tell what is known of denials of single buckets.

    Args:
        find: Returns the denial of a key; it may be over.
        read: Reads the clock by which they were noted.
        per_us: How many of its units are a microsecond.
    """

    find: Callable[[str], Denial | None]
    read: Callable[[], int]
    per_us: int


class LoanLike(Protocol):
    """What is used of a loan: units of a bucket that this process has borrowed.

    Args:
        spec: The bucket's arithmetic.
        units: What is left of it.
        low: What must be left after a payment; else it is to be renewed.
        until_ns: When it ends.
        level: Units that were left in the bucket when they were last seen.
    """

    spec: BucketSpec
    units: int
    low: int
    until_ns: int
    level: int


class LoansAtHand(msgspec.Struct, frozen=True, gc=False):
    """Tell what is lent.

    Args:
        find: Returns the loan of a key; it may be spent, or over.
        turn: Taken from the reading of a loan to its writing.
        read_ns: Reads the clock by which they end.
    """

    find: Callable[[str], LoanLike | None]
    turn: TurnLike
    read_ns: Callable[[], int]
