"""`CL.THROTTLE key max_burst count period [quantity]`, with the answer of redis-cell: five whole numbers."""

import math
from functools import lru_cache
from typing import Final

from sluicegate.application.joint_check import JointCheck, Part
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.rule import RateLimitRule

ENDPOINT: Final = "CL.THROTTLE"
SCOPE: Final = "key"
_NAMES: Final = ("max_burst", "count per period", "period", "quantity")
_MAX_NUMBER: Final = 10**12


def throttle_part(arguments: list[bytes]) -> Part:
    """Return what a command asks the limiter.

    Args:
        arguments: The command's arguments, without its name: four or five.

    Raises:
        InvalidInputError: If an argument is wrong, or the bucket could not be counted exactly.
    """
    if len(arguments) not in {4, 5}:
        raise InvalidInputError("wrong number of arguments for 'cl.throttle' command")
    key = arguments[0].decode("utf-8", "surrogateescape")
    quantity = _number(arguments[4], 3) if len(arguments) > 4 else 1  # noqa: PLR2004 - the fifth
    rule = _rule(arguments[1], arguments[2], arguments[3])
    return Part(ENDPOINT, key, quantity, "take" if quantity else "peek", rule)


def throttle_reply(joint: JointCheck) -> bytes:
    """Return the answer: limited, limit, remaining, seconds until it would pass (-1: it does, or never), seconds until full."""
    result = joint.checks[0].result
    assert result is not None  # noqa: S101 - the check is done
    return _encode(result)


def _encode(result: RateLimitResult) -> bytes:
    limited, retry_after = 0, -1
    if not result.allowed:
        limited = 1
        if not math.isinf(result.retry_after):
            retry_after = max(1, math.ceil(result.retry_after))
    return b"*5\r\n:%d\r\n:%d\r\n:%d\r\n:%d\r\n:%d\r\n" % (
        limited,
        result.limit,
        result.remaining,
        retry_after,
        result.reset_seconds,
    )


@lru_cache(4096)
def _rule(max_burst: bytes, count: bytes, period: bytes) -> RateLimitRule:
    burst, per_period, seconds = (_number(text, at) for at, text in enumerate((max_burst, count, period)))
    for name, number in (("count per period", per_period), ("period", seconds)):
        if number == 0:
            raise InvalidInputError(f"{name}: expected at least 1")
    per_minute, rest = divmod(per_period * 60, seconds)
    return RateLimitRule(
        max_tokens=burst + 1,
        refill_rate=per_period * 60 / seconds if rest else per_minute,
        scope=SCOPE,
    )


def _number(text: bytes, place: int) -> int:
    if not text.isdigit() or len(text) > 13 or (number := int(text)) > _MAX_NUMBER:  # noqa: PLR2004 - digits of the highest number
        raise InvalidInputError(f"{_NAMES[place]}: expected a whole number from 0 to {_MAX_NUMBER}")
    return number
