"""What the arithmetic of a token bucket needs to know of a rule: the finest tick in which it can be counted exactly."""

from fractions import Fraction
from functools import cache
from typing import Final

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.errors import InvalidInputError

MAX_UNITS: Final = 2**52
"""The greatest capacity in units: a level plus a refill stays below 2**53, where doubles are still exact."""

MAX_FULL_US: Final = 100_000 * 366 * 86_400 * 1_000_000
"""The longest time to full, a hundred thousand years: below it each instant and duration in microseconds stays within 2**62."""

_MINUTE_US: Final = 60_000_000
_SECOND_US: Final = 1_000_000
# The divisors of a minute, 2**8 * 3 * 5**7 microseconds, up to a second.
_TICKS_US: Final = sorted(
    t for a in range(9) for b in range(2) for c in range(8) if (t := 2**a * 3**b * 5**c) <= _SECOND_US
)


@mypyc_attr(acyclic=True)
class BucketSpec:
    """The numbers of a bucket's arithmetic.

    Two specs are equal if their texts are: the text means the same in every process, and in Redis.

    Args:
        capacity: Units in a full bucket, at most `MAX_UNITS`.
        units_per_token: Units in one token.
        units_per_tick: Units that flow in per tick.
        tick_us: The tick in microseconds: 1 unless the capacity times the rate's denominator would leave the range.
        full_ticks: Ticks from empty to full, rounded up.
    """

    __slots__ = ("capacity", "full_ticks", "max_tokens", "text", "tick_us", "units_per_tick", "units_per_token")

    def __init__(self, capacity: int, units_per_token: int, units_per_tick: int, tick_us: int, full_ticks: int) -> None:
        self.capacity: Final[i64] = capacity
        self.units_per_token: Final[i64] = units_per_token
        self.units_per_tick: Final[i64] = units_per_tick
        self.tick_us: Final[i64] = tick_us
        self.full_ticks: Final[i64] = full_ticks
        self.max_tokens: Final[i64] = capacity // units_per_token
        self.text: Final = f"{capacity} {units_per_token} {units_per_tick} {tick_us} {full_ticks}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketSpec) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[object, ...]:
        return BucketSpec, (
            self.capacity,
            self.units_per_token,
            self.units_per_tick,
            self.tick_us,
            self.full_ticks,
        )

    def __repr__(self) -> str:
        return f"BucketSpec({self.text.replace(' ', ', ')})"


@cache
def bucket_spec(max_tokens: int, tokens_per_minute: Fraction) -> BucketSpec:
    """Find the finest tick in which a bucket can be counted exactly.

    Args:
        max_tokens: The capacity in tokens, at least 1.
        tokens_per_minute: The refill rate, positive.

    Raises:
        InvalidInputError: If no tick of a second or less keeps every product within `MAX_UNITS`, or the bucket would
            take more than a hundred thousand years to fill.
    """
    for tick_us in _TICKS_US:
        rate = tokens_per_minute * tick_us / _MINUTE_US
        capacity = max_tokens * rate.denominator
        if capacity <= MAX_UNITS and rate.numerator <= MAX_UNITS:
            full_ticks = -(-capacity // rate.numerator)
            if full_ticks * tick_us > MAX_FULL_US:
                break
            return BucketSpec(capacity, rate.denominator, rate.numerator, tick_us, full_ticks)
    raise InvalidInputError(
        f"refill_rate={float(tokens_per_minute)!r} with max_tokens={max_tokens}: this bucket cannot be counted exactly;"
        " use a smaller max_tokens, or a refill_rate that is a simpler fraction and fills it within a hundred thousand years"
    )
