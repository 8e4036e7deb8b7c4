"""The only module that reads a clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from sys import platform
from typing import Final, Protocol

from mypy_extensions import i64

_LOOK_NS: Final = 100_000_000

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


class LastingClock:
    """Read somebody's clock, which may break: where it raises or tells no number, its last reading is repeated.

    A check that was paid must not fail for a clock: its caller would ask again, and be charged twice.

    Args:
        clock: The clock.
    """

    __slots__ = ("_last_us", "_read_us")

    def __init__(self, clock: _TellsMicroseconds) -> None:
        self._read_us = clock.now_us
        self._last_us = 0

    def now_us(self) -> int:
        """Return the instant in whole microseconds."""
        try:
            now_us: object = self._read_us()
            if isinstance(now_us, int):
                self._last_us = now_us
        except Exception:  # noqa: BLE001 - whatever it is
            return self._last_us
        return self._last_us

    def __repr__(self) -> str:
        return f"LastingClock({self._last_us})"


class LastingWallClock:
    """Read somebody's wall clock, which may break: where it raises or tells no instant, its last reading is repeated.

    Args:
        read: Returns the instant, with a time zone.
    """

    __slots__ = ("_last", "_read")

    def __init__(self, read: Callable[[], datetime]) -> None:
        self._read = read
        self._last = read()

    def __call__(self) -> datetime:
        """Return the instant."""
        try:
            now: object = self._read()
            if isinstance(now, datetime) and now.utcoffset() is not None:
                self._last = now
        except Exception:  # noqa: BLE001 - whatever it is
            return self._last
        return self._last

    def __repr__(self) -> str:
        return f"LastingWallClock({self._last})"


class SuspendAwareClock:
    """Read a monotonic clock that goes on while the machine sleeps or its virtual machine is stopped, where there is one.

    What others will take back at an instant must not seem younger here because this machine slept. Linux has it as
    `CLOCK_BOOTTIME`, and macOS as `CLOCK_MONOTONIC`, which `time.monotonic` does not read there. On Windows
    `time.monotonic` is such a clock already.
    """

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        # The raw reading, with no call in between.
        here = "CLOCK_MONOTONIC" if platform == "darwin" else "CLOCK_BOOTTIME"
        clock_id: int | None = getattr(time, here, None)
        self.now_ns: Callable[[], int] = (
            time.monotonic_ns if clock_id is None else partial(time.clock_gettime_ns, clock_id)
        )
        """Returns the instant in nanoseconds."""

    def now_us(self) -> int:
        """Return the instant in whole microseconds. Only differences between two of them mean anything."""
        return self.now_ns() // 1000

    def __repr__(self) -> str:
        return "SuspendAwareClock()"


class ClockReader:
    """Read a clock in whole microseconds, in one step of compiled code."""

    __slots__ = ()

    def now_us(self) -> i64:
        """Return the instant. Only differences between two of them mean anything."""
        raise NotImplementedError


class GivenClockReader(ClockReader):
    """Read somebody's clock.

    Args:
        clock: The clock.
    """

    __slots__ = ("_read_us",)

    def __init__(self, clock: _TellsMicroseconds) -> None:
        self._read_us: Final[Callable[[], int]] = clock.now_us

    def now_us(self) -> i64:
        """Return the instant. Only differences between two of them mean anything."""
        return self._read_us()


class LocalClockReader(ClockReader):
    """Read a clock of this process that goes on while the machine sleeps, in the time that the process's monotonic clock takes.

    `SuspendAwareClock` takes much longer. It is read ten times a second, to see how long the machine has slept; after that long
    sleeping shows. The result is never ahead of it, so that no bucket fills too early, and never goes back.
    """

    __slots__ = ("_look_at_ns", "_now_ns", "_slept_ns")

    def __init__(self) -> None:
        self._now_ns: Final[Callable[[], int]] = SuspendAwareClock().now_ns
        self._slept_ns: i64 = 0
        self._look_at_ns: i64 = 0

    def now_us(self) -> i64:
        """Return the instant. Only differences between two of them mean anything."""
        now_ns: i64 = _monotonic_ns()
        if now_ns >= self._look_at_ns:
            now_ns = self._look()
        return (now_ns + self._slept_ns) // 1000

    def _look(self) -> i64:
        """See how long the machine has slept, and return the monotonic clock's instant."""
        gone_on_ns: i64 = self._now_ns()
        now_ns: i64 = _monotonic_ns()  # after the other one: what passes between the two does not count as sleep
        self._slept_ns = max(self._slept_ns, gone_on_ns - now_ns)
        self._look_at_ns = now_ns + _LOOK_NS
        return now_ns


utc_now: Callable[[], datetime] = partial(datetime.now, UTC)
"""Returns the wall clock's instant, for people: reports and dated settings, never a decision. A function costs twice as much."""

wall_ns: Callable[[], int] = time.time_ns
"""Returns the wall clock's instant in nanoseconds since 1970, for the spans of traces."""

monotonic_s: Callable[[], float] = time.monotonic
"""Returns an instant in seconds, for the bounds of waiting: differences of it, and never a decision."""
