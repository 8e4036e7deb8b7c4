"""The only module that reads a clock."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Read the process's monotonic clock, which no operator and no time server can set back."""

    __slots__ = ()

    def now_us(self) -> int:
        """Return the monotonic instant in whole microseconds. Only differences between two of them mean anything."""
        return time.monotonic_ns() // 1000

    def __repr__(self) -> str:
        return "SystemClock()"


def utc_now() -> datetime:
    """Return the wall clock's instant, for people: reports and dated settings, never a decision."""
    return datetime.now(UTC)
