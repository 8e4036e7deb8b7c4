"""Read the instants of logs: Common Log Format, ISO 8601, and numbers since 1970."""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

LAST_YEAR = 2099
"""The limiter's clocks end at 2**52 microseconds, in the year 2112."""

_LAST_US = int(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_MAX_NUMBER = 10**19  # nanoseconds until the year 2286; beyond some hundred digits not even a float could hold it
_CLF = re.compile(
    r"\[?([0-9]{2}/[A-Za-z]{3}/[0-9]{4}):([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?(?: ([+-][0-9]{4}))?\]?"
)
_NUMBER = re.compile(r"[0-9]{1,19}(?:\.[0-9]{0,19})?")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


def clf_time_us(day: str, hour: str, minute: str, second: str, offset: str) -> int | None:
    """Return an instant of Common Log Format in microseconds since 1970; None if there is no such instant until 2099.

    Args:
        day: As in `17/May/2015`.
        hour: Two digits.
        minute: Two digits.
        second: Two digits; 60 is a leap second.
        offset: As in `+0200`.
    """
    midnight_s = _midnight_s(day, offset)
    if midnight_s is None or hour > "23" or minute > "59" or second > "60":
        return None
    return (midnight_s + int(hour) * 3600 + int(minute) * 60 + int(second)) * 1_000_000


def any_time_us(value: object) -> int | None:
    """Return an instant in microseconds since 1970; None if it is none from 1970 to 2099.

    Args:
        value: A number of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size, or its
            text; an ISO 8601 text, in UTC unless it names a zone; or a time of Common Log Format.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_us(value) if abs(value) < _MAX_NUMBER else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _number_us(float(text) if "." in text else int(text))
    clf = _CLF.fullmatch(text)
    if clf is not None:
        time_us = clf_time_us(clf[1], clf[2], clf[3], clf[4], clf[6] or "+0000")
        return None if time_us is None else time_us + int((clf[5] or "0").ljust(6, "0"))
    return _iso_us(text)


def _number_us(number: float) -> int | None:
    if number < 0:
        return None
    for unit_us in (1_000_000, 1_000, 1):
        time_us = round(number * unit_us)
        if number < 10**11 * (1_000_000 // unit_us):
            return time_us if time_us < _LAST_US else None
    time_us = int(number) // 1000
    return time_us if time_us < _LAST_US else None


def _iso_us(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    time_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return time_us if 0 <= time_us < _LAST_US else None


@lru_cache(maxsize=256)
def _midnight_s(day: str, offset: str) -> int | None:
    """Return the start of a day in seconds since 1970; None if there is no such day."""
    month = _MONTHS.get(day[3:6].capitalize())
    year = int(day[7:])
    if month is None or not 1970 <= year <= LAST_YEAR:  # noqa: PLR2004 - where the epoch begins
        return None
    try:
        zone = timezone(timedelta(hours=int(offset[:3]), minutes=int(offset[0] + offset[3:])))
        midnight = datetime(year, month, int(day[:2]), tzinfo=zone)
    except ValueError:
        return None
    since_epoch_s = int((midnight - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return since_epoch_s if since_epoch_s >= 0 else None
