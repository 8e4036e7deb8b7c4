"""The arithmetic of a token bucket, in integers. Nothing here may read a clock or round in a client's favour.

A bucket refills `units_per_tick` units in each tick of `tick_us` microseconds, a token is `units_per_token` units, and
all of these are whole numbers, so that a rate such as 7 tokens a minute is kept without error for ever. Its state is two
numbers: the level at the instant `last` (a count of ticks). `token_bucket.lua` says the same in Lua, where numbers are
doubles, which is why `MAX_UNITS` leaves every sum below 2**53.
"""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import inf

import msgspec

from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError

MAX_UNITS = 2**52
"""The greatest capacity in units: a level plus a refill stays below 2**53, where doubles are still exact."""

MAX_FULL_US = 10_000_000 * 366 * 86_400 * 1_000_000
"""The longest time to full, ten million years: beyond it an expiry time in milliseconds leaves the range of Redis."""

_MINUTE_US = 60_000_000
_SECOND_US = 1_000_000
# The divisors of a minute, 2**8 * 3 * 5**7 microseconds, up to a second.
_TICKS_US = sorted(t for a in range(9) for b in range(2) for c in range(8) if (t := 2**a * 3**b * 5**c) <= _SECOND_US)


class BucketShape(msgspec.Struct, frozen=True, gc=False):
    """What the arithmetic needs to know of a rule.

    Args:
        capacity: Units in a full bucket, at most `MAX_UNITS`.
        units_per_token: Units in one token.
        units_per_tick: Units that flow in per tick.
        tick_us: The tick in microseconds: 1 unless the capacity times the rate's denominator would leave the range.
        full_ticks: Ticks from empty to full, rounded up.
        max_tokens: The capacity in tokens.
        number: A small number that no other shape of this process has: storages tell shapes apart by it.
        units_per_second: Units that flow in per second if the tick is a microsecond; else 0.
    """

    capacity: int
    units_per_token: int
    units_per_tick: int
    tick_us: int
    full_ticks: int
    max_tokens: int
    number: int
    units_per_second: int = 0


class Demand(msgspec.Struct, frozen=True, gc=False):
    """Ask one bucket for tokens.

    Args:
        key: The bucket's name in the storage.
        shape: Its arithmetic.
        cost_units: What is asked for, 0 to `shape.capacity`; 0 in a peek.
        lease_units: The most that a process may borrow at a time, where a storage lends; 0: nothing.
    """

    key: str
    shape: BucketShape
    cost_units: int
    lease_units: int = 0


class Reading(msgspec.Struct, frozen=True, gc=False):
    """Tell a bucket's level after a call.

    Args:
        level: Units in the bucket.
        lead_us: Microseconds from the call to the instant at which the level holds: 0 as a rule; negative inside a tick
            longer than a microsecond; positive after a clock has stepped back.
    """

    level: int
    lead_us: int


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Tell what a storage did with some demands: paid all of them or none.

    Args:
        allowed: Whether they were paid.
        readings: The buckets' levels afterwards, in the demands' order.
    """

    allowed: bool
    readings: tuple[Reading, ...]


_numbers = itertools.count()


@cache
def shape_of(max_tokens: int, tokens_per_minute: Fraction) -> BucketShape:
    """Find the finest tick in which a bucket can be counted exactly. Equal arguments give the same object.

    Args:
        max_tokens: The capacity in tokens, at least 1.
        tokens_per_minute: The refill rate, positive.

    Raises:
        InvalidInputError: If no tick of a second or less keeps every product within `MAX_UNITS`, or the bucket would
            take more than ten million years to fill.
    """
    for tick_us in _TICKS_US:
        rate = tokens_per_minute * tick_us / _MINUTE_US
        capacity = max_tokens * rate.denominator
        if capacity <= MAX_UNITS and rate.numerator <= MAX_UNITS:
            full_ticks = -(-capacity // rate.numerator)
            if full_ticks * tick_us > MAX_FULL_US:
                break
            return BucketShape(
                capacity,
                rate.denominator,
                rate.numerator,
                tick_us,
                full_ticks,
                max_tokens,
                next(_numbers),
                rate.numerator * _SECOND_US if tick_us == 1 else 0,
            )
    raise InvalidInputError(
        f"refill_rate={float(tokens_per_minute)!r} with max_tokens={max_tokens}: this bucket cannot be counted exactly;"
        " use a smaller max_tokens, or a refill_rate that is a simpler fraction and fills it within ten million years"
    )


def accrue(shape: BucketShape, level: int, last: int, now_us: int) -> tuple[int, int]:
    """Return the level at `now_us` and the tick from which it counts on.

    A clock that stepped back refills nothing and the bucket counts on from `last`. If it stepped back by more than the
    time to full, waiting for it to catch up would deny for long, so the level is taken over to the new time as it is.
    A full bucket counts from the tick that begins next, never from before it was asked: with ticks longer than a
    microsecond, counting from the tick's beginning would pay for time that had passed already.

    Args:
        shape: The bucket's arithmetic.
        level: Units at the tick `last`.
        last: The tick at which `level` held.
        now_us: The storage's clock.
    """
    tick_us = shape.tick_us
    tick = now_us if tick_us == 1 else now_us // tick_us
    elapsed = tick - last
    if elapsed > 0:
        level += elapsed * shape.units_per_tick
        if level < shape.capacity:
            return level, tick
        return shape.capacity, tick if tick_us == 1 else -(-now_us // tick_us)
    if -elapsed <= shape.full_ticks:
        return level, last
    return level, -(-now_us // tick_us)


def carry_over(old: BucketShape, new: BucketShape, level: int, last: int, now_us: int) -> tuple[int, int]:
    """Translate a bucket's state when its rule has changed: refill until now at the old rate, keep the tokens.

    Tokens above the new capacity are lost; a greater capacity adds none. The fraction of a token is kept to within two
    units, in doubles and never upwards, so that Lua and Python agree to the bit.

    Args:
        old: The arithmetic that the state was written under.
        new: The arithmetic to translate it to.
        level: Units of the old kind.
        last: The old tick at which `level` held.
        now_us: The storage's clock.
    """
    level, last = accrue(old, level, last, now_us)
    tokens, part = divmod(level, old.units_per_token)
    part_units = max(0, int(part / old.units_per_token * new.units_per_token) - 1)
    anchor_us = max(last * old.tick_us, now_us)
    return min(new.capacity, tokens * new.units_per_token + part_units), -(-anchor_us // new.tick_us)


def full_at_us(shape: BucketShape, level: int, last: int) -> int:
    """Return the instant in microseconds from which the bucket is full, and equal to an absent one."""
    return (last - (level - shape.capacity) // shape.units_per_tick) * shape.tick_us


def to_result(demand: Demand, reading: Reading, *, allowed: bool) -> RateLimitResult:
    """Derive a client's answer from what a storage told.

    Args:
        demand: What was asked.
        reading: What the storage told.
        allowed: Whether the whole check, of which this may be one bucket of several, was paid.
    """
    return result_at(demand.shape, demand.cost_units, reading.level, reading.lead_us, allowed)


def wait_us(shape: BucketShape, cost_units: int, level: int, lead_us: int) -> int:
    """Return the microseconds until a bucket that is short of `cost_units` has them, if nobody else asks.

    Args:
        shape: The bucket's arithmetic.
        cost_units: What was asked for; more than `level`.
        level: What is there.
        lead_us: Microseconds until the level holds; see `Reading`.
    """
    return lead_us - (level - cost_units) // shape.units_per_tick * shape.tick_us


def result_at(shape: BucketShape, cost_units: int, level: int, lead_us: int, allowed: bool) -> RateLimitResult:
    """Derive a client's answer from a bucket's level: the one place where units become tokens and seconds.

    Args:
        shape: The bucket's arithmetic.
        cost_units: What was asked for.
        level: What is there.
        lead_us: Microseconds until the level holds; see `Reading`.
        allowed: Whether the check was paid.
    """
    # What is missing is negative, so that // rounds the wait up.
    missing = level - shape.capacity
    units_per_second = shape.units_per_second
    if units_per_second and not lead_us:
        # Rounding up to microseconds and then to seconds is rounding up to seconds.
        reset_seconds = -(missing // units_per_second)
    else:
        reset_us = lead_us - missing // shape.units_per_tick * shape.tick_us if missing else 0
        reset_seconds = -(-reset_us // _SECOND_US) if reset_us > 0 else 0
    retry_after = 0.0
    if not allowed and level < cost_units:
        retry_after = wait_us(shape, cost_units, level, lead_us) / _SECOND_US
    return RateLimitResult(allowed, retry_after, level // shape.units_per_token, shape.max_tokens, reset_seconds)


def tightest(demands: Sequence[Demand], verdict: Verdict) -> RateLimitResult:
    """Derive the answer of the bucket that binds: the longest wait of a denial, else the fewest tokens left.

    Args:
        demands: What was asked, at least one.
        verdict: What the storage told.
    """
    readings = verdict.readings
    if verdict.allowed:  # most buckets are out of the question before their answers are worked out
        binding, least, tied = 0, inf, False
        for at, demand in enumerate(demands):
            remaining = readings[at].level // demand.shape.units_per_token
            if remaining < least:
                binding, least, tied = at, remaining, False
            elif remaining == least:
                tied = True
        if not tied:
            return to_result(demands[binding], readings[binding], allowed=True)
    results = [to_result(demand, readings[at], allowed=verdict.allowed) for at, demand in enumerate(demands)]
    return min(results, key=_slack)


def _slack(result: RateLimitResult) -> tuple[float, int, int]:
    return -result.retry_after, result.remaining, -result.reset_seconds


def impossible(limit: int) -> RateLimitResult:
    """Answer a cost above the capacity: denied, nothing consumed, and no wait would help.

    Args:
        limit: The capacity that was exceeded.
    """
    return RateLimitResult(allowed=False, retry_after=inf, remaining=0, limit=limit, reset_seconds=0)
