"""The only module that reads a clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

_monotonic_ns: Final[Callable[[], int]] = time.monotonic_ns


class SystemClock:
    """Read the process's monotonic clock, which no operator and no time server can set back."""

    __slots__ = ()

    def now_us(self) -> int:
        """Return the monotonic instant in whole microseconds. Only differences between two of them mean anything."""
        return _monotonic_ns() // 1000

    def __repr__(self) -> str:
        return "SystemClock()"


class _TellsMicroseconds(Protocol):
    def now_us(self) -> int:
        """Return an instant in microseconds."""
        ...


def reader_ns(clock: _TellsMicroseconds | None) -> Callable[[], int]:
    """Return what reads a clock in nanoseconds: for None the system's own function, which saves two calls a reading.

    Args:
        clock: A clock; None: the one that `SystemClock` reads.
    """
    if clock is None:
        return _monotonic_ns
    read_us = clock.now_us
    return lambda: read_us() * 1000


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


utc_now: Callable[[], datetime] = partial(datetime.now, UTC)
"""Returns the wall clock's instant, for people: reports and dated settings, never a decision. A function costs twice as much."""

monotonic_s: Callable[[], float] = time.monotonic
"""Returns an instant in seconds, for the bounds of waiting: differences of it, and never a decision."""
