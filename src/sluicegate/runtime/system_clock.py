"""The only module that reads a clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    """Read the process's monotonic clock, which no operator and no time server can set back."""

    __slots__ = ()

    read = staticmethod(time.monotonic_ns)
    """Reads the same clock in units of which `per_us` are a microsecond, for who divides in place: a call is half of the time."""
    per_us = 1000

    def now_us(self, _now_ns: Callable[[], int] = time.monotonic_ns) -> int:
        """Return the monotonic instant in whole microseconds. Only differences between two of them mean anything."""
        return _now_ns() // 1000

    def __repr__(self) -> str:
        return "SystemClock()"


class SuspendAwareClock:
    """Read a monotonic clock that goes on while the machine sleeps or its virtual machine is stopped, where there is one.

    What others will take back at an instant must not seem younger here because this machine slept.
    """

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        # The raw reading, with no call in between.
        clock_id: int | None = getattr(time, "CLOCK_BOOTTIME", None)
        self.now_ns: Callable[[], int] = (
            time.monotonic_ns if clock_id is None else partial(time.clock_gettime_ns, clock_id)
        )
        """Returns the instant in nanoseconds."""

    def now_us(self) -> int:
        """Return the instant in whole microseconds. Only differences between two of them mean anything."""
        return self.now_ns() // 1000

    def __repr__(self) -> str:
        return "SuspendAwareClock()"


def utc_now() -> datetime:
    """Return the wall clock's instant, for people: reports and dated settings, never a decision."""
    return datetime.now(UTC)
