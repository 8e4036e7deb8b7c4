"""The only module that reads a clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime


class SystemClock:
    """Read the process's monotonic clock, which no operator and no time server can set back."""

    __slots__ = ()

    def now_us(self, _now_ns: Callable[[], int] = time.monotonic_ns) -> int:
        """Return the monotonic instant in whole microseconds. Only differences between two of them mean anything."""
        return _now_ns() // 1000

    def __repr__(self) -> str:
        return "SystemClock()"


def utc_now() -> datetime:
    """Return the wall clock's instant, for people: reports and dated settings, never a decision."""
    return datetime.now(UTC)
