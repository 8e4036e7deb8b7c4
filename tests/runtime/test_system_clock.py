"""The clock of buckets in memory: as quick to read as the monotonic one, and never ahead of the one that goes on in sleep."""

import time

import pytest

from sluicegate.runtime import system_clock
from sluicegate.runtime.system_clock import LocalClockReader, SuspendAwareClock
from support.trace_check import compiled


def test_it_is_between_two_readings_of_the_clock_that_it_follows() -> None:
    """It is never ahead, and never goes back."""
    reader, followed = LocalClockReader(), SuspendAwareClock()
    last_us = 0
    for _ in range(2_000):
        now_us = reader.now_us()
        assert last_us <= now_us <= followed.now_us()
        last_us = now_us


@pytest.mark.skipif(compiled(), reason="compiled code keeps its clock")
@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock that goes on while the machine sleeps")
def test_sleep_shows_once_the_followed_clock_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before a tenth of a second has passed, then at once, and exactly; a pause between two readings is no sleep."""
    awake_ns, slept_ns, pause_ns = [10**12], [0], [0]

    def clock_gettime_ns(_: int) -> int:
        told_ns = awake_ns[0] + slept_ns[0]
        awake_ns[0] += pause_ns[0]
        return told_ns

    monkeypatch.setattr(time, "clock_gettime_ns", clock_gettime_ns)
    monkeypatch.setattr(system_clock, "_monotonic_ns", lambda: awake_ns[0])
    reader = LocalClockReader()
    assert reader.now_us() == 10**9
    slept_ns[0] = 5 * 10**9
    awake_ns[0] += 99_999_999
    assert reader.now_us() == 10**9 + 99_999
    awake_ns[0] += 1
    assert reader.now_us() == 10**9 + 100_000 + 5_000_000
    pause_ns[0] = 10**9  # the thread was stopped between the two readings
    awake_ns[0] += 100_000_000
    assert reader.now_us() == 10**9 + 200_000 + 5_000_000 + 1_000_000
