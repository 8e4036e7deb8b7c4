"""What the arithmetic of a token bucket needs to know of a rule: the finest tick in which it can be counted exactly."""

import itertools
from fractions import Fraction
from functools import cache

import msgspec

from sluicegate.domain.errors import InvalidInputError

MAX_UNITS = 2**52
"""The greatest capacity in units: a level plus a refill stays below 2**53, where doubles are still exact."""

MAX_FULL_US = 10_000_000 * 366 * 86_400 * 1_000_000
"""The longest time to full, ten million years: beyond it an expiry time in milliseconds leaves the range of Redis."""

_MINUTE_US = 60_000_000
_SECOND_US = 1_000_000
# The divisors of a minute, 2**8 * 3 * 5**7 microseconds, up to a second.
_TICKS_US = sorted(t for a in range(9) for b in range(2) for c in range(8) if (t := 2**a * 3**b * 5**c) <= _SECOND_US)


class BucketSpec(msgspec.Struct, frozen=True, gc=False):
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


_numbers = itertools.count()


@cache
def bucket_spec(max_tokens: int, tokens_per_minute: Fraction) -> BucketSpec:
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
            return BucketSpec(
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
