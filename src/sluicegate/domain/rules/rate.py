"""Refill rates: the exact fraction behind a float, and the notation `100/minute`."""

import math
import re
from fractions import Fraction

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError

SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}
"""The units of a rate. A month is 30 days: a bucket knows no calendar."""

_ABBREVIATIONS = {
    "s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day", "w": "week",
    "mo": "month",
}  # fmt: skip

_NOTATION = re.compile(
    r"\s*(?P<count>[0-9]{1,15})\s*(?:/|\bper\b)\s*(?:(?P<many>[0-9]{1,9})\s*)?(?P<unit>[A-Za-z]+)"
    r"(?:\s+burst\s+(?P<burst>[0-9]{1,15}))?(?:\s+per\s+(?P<scope>[A-Za-z_][A-Za-z0-9_]*))?\s*",
    re.ASCII | re.IGNORECASE,
)

_IN_FLIGHT = re.compile(
    r"\s*(?P<count>[0-9]{1,15})\s+in[ _-]flight(?:\s+per\s+(?P<scope>[A-Za-z_][A-Za-z0-9_]*))?\s*",
    re.ASCII | re.IGNORECASE,
)


def parse_in_flight(text: str) -> tuple[int, str | None] | None:
    """Parse `4 in flight` or `4 in flight per user`.

    Args:
        text: The notation.

    Returns:
        How many, and the scope's name (None if the text names none); None if the text does not have that form.
    """
    match = _IN_FLIGHT.fullmatch(text)
    if match is None:
        return None
    scope = match["scope"]
    return int(match["count"]), scope.lower() if scope else None


def parse_rate(text: str) -> tuple[int, Fraction, int, str | None]:
    """Parse a rate such as `100/minute`, `5 per 10 seconds`, `100/minute burst 20` or `5/minute per ip`.

    Args:
        text: The notation. The unit is a second, minute, hour, day, week or month (of 30 days); it may be plural or abbreviated
            (`s`, `min`, `h`, `d`, `w`, `mo`), in upper or lower case.

    Returns:
        The count, the refill rate in tokens per minute, the burst (the count if the text names none) and the scope's name
        (None if the text names none).

    Raises:
        InvalidInputError: If the text does not have that form, or one of its numbers is zero.
        InvalidTypeError: If it is not a text.
    """
    if not isinstance(text, str):
        raise InvalidTypeError(f"rate={text!r}: expected a text such as '100/minute', not {type(text).__name__}")
    match = _NOTATION.fullmatch(text)
    unit = match["unit"].lower() if match else ""
    unit = _ABBREVIATIONS.get(unit, unit.removesuffix("s"))
    if match is None or unit not in SECONDS:
        raise InvalidInputError(
            f"rate={text!r}: expected a rate such as '100/minute', '5 per 10 seconds' or '5/minute burst 20 per ip'"
        )
    count, many = int(match["count"]), int(match["many"] or 1)
    burst = int(match["burst"] or count)
    for name, number in (("count", count), ("period", many), ("burst", burst)):
        if number == 0:
            raise InvalidInputError(f"rate={text!r}: the {name} must be at least 1")
    scope = match["scope"]
    return count, Fraction(count * 60, many * SECONDS[unit]), burst, scope.lower() if scope else None


def exact_rate(tokens_per_minute: float) -> Fraction:
    """Return the fraction that a number of tokens per minute means.

    An integer is exact. A float means the simplest fraction that rounds to it: `1 / 1440` is one token a day, not the binary
    number next to that, whose denominator would leave no room for a capacity.

    Args:
        tokens_per_minute: A finite, positive number.
    """
    if isinstance(tokens_per_minute, int):
        return Fraction(tokens_per_minute)
    exact = Fraction(tokens_per_minute)
    half_gap = Fraction(math.ulp(tokens_per_minute)) / 2
    return _simplest_between(exact - half_gap, exact + half_gap)


def _simplest_between(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction with the smallest denominator in an interval, by walking down the Stern-Brocot tree."""
    floor = low.numerator // low.denominator
    if low == floor:
        return Fraction(floor)
    if floor + 1 <= high:
        return Fraction(floor + 1)
    return floor + 1 / _simplest_between(1 / (high - floor), 1 / (low - floor))
