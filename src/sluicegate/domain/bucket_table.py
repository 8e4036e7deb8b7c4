"""Buckets in this process's memory: bounded, exact, and without a clock or a lock of its own."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from sluicegate.domain.fullness_calendar import FullnessCalendar
from sluicegate.domain.token_bucket import BucketShape, Demand, Reading, Verdict, accrue, carry_over, full_at_us

# A state is one integer, `shape number << 113 | last << 53 | level`, which takes 40 bytes where a tuple of three numbers
# takes 150. The level is below 2**53 by the shape's bounds, `last` below 2**60 by the clock's.
_LEVEL_BITS = 53
_LAST_BITS = 60
_LEVEL_MASK = (1 << _LEVEL_BITS) - 1
_LAST_MASK = (1 << _LAST_BITS) - 1
_SHAPE_SHIFT = _LEVEL_BITS + _LAST_BITS
_FEW = 10_000
_FULL = -1  # a bucket that was reset; its key leaves when the calendar comes to it

TakeOne: TypeAlias = Callable[[str, BucketShape, int], tuple[bool, int, int]]
"""Pay for one bucket: key, shape, cost in units; verdict, level in units, lead in microseconds."""


class LockLike(Protocol):
    """What is used of `threading.Lock`."""

    def acquire(self) -> bool:
        """Wait for the lock and hold it."""
        ...

    def release(self) -> None:
        """Let it go."""
        ...


class BucketTable:
    """Keep at most `max_keys` buckets; full ones, which equal absent ones, leave first.

    Not safe to share between threads without a lock.

    Args:
        max_keys: The greatest number of buckets held, at least 1. Beyond it the bucket that would be full first is
            forgotten, which refills it: only where so many clients are limited at once that none of them is full.
    """

    __slots__ = ("_calendar", "_max_keys", "_shapes", "_states", "evicted_unfull")

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._states: dict[str, int] = {}
        self._shapes: dict[int, BucketShape] = {}
        self._calendar = FullnessCalendar(self._full_at_us)
        self.evicted_unfull = 0
        """How many buckets were forgotten before they were full."""

    def __len__(self) -> int:
        return len(self._states)

    def take(self, demands: Sequence[Demand], now_us: int) -> Verdict:
        """Pay all demands at `now_us`, or none."""
        states = self._states
        allowed = True
        found: list[tuple[int, int, int, bool]] = []
        for demand in demands:
            shape = demand.shape
            state = states.get(demand.key, _FULL)
            if state >> _SHAPE_SHIFT == shape.number:  # as in _level, without the call
                last = state >> _LEVEL_BITS & _LAST_MASK
                level, anchor = accrue(shape, state & _LEVEL_MASK, last, now_us)
                moved = anchor < last
            else:
                level, anchor, moved = self._level(demand.key, shape, now_us)
                last = -1
            if level < demand.cost_units:
                allowed = False
            found.append((level, anchor, last, moved))
        readings: list[Reading] = []
        for at, (level, anchor, last, moved) in enumerate(found):
            demand = demands[at]
            shape = demand.shape
            left = level - demand.cost_units if allowed else level
            if last < 0:
                if allowed or moved:
                    self._write(demand.key, shape, left, anchor, now_us)
            elif allowed or moved:
                states[demand.key] = (shape.number << _LAST_BITS | anchor) << _LEVEL_BITS | left
            readings.append(Reading(left, anchor * shape.tick_us - now_us))
        return Verdict(allowed, tuple(readings))

    def build_take_one(self, lock: LockLike, clock: Callable[[], int]) -> TakeOne:
        """Build what `take` does for a single bucket, under a lock and without objects in between.

        It is the hottest call of the library, hence a closure, which finds its variables faster than a method its
        attributes, and two calls for the lock, which cost half of a `with`.

        Args:
            lock: Held from the reading to the writing.
            clock: Tells the time in between.
        """
        states, find, acquire, release = self._states, self._states.get, lock.acquire, lock.release
        # No globals either.
        full, level_bits, last_bits, shape_shift = _FULL, _LEVEL_BITS, _LAST_BITS, _SHAPE_SHIFT
        level_mask, last_mask = _LEVEL_MASK, _LAST_MASK
        take_new = self._take_new

        def take_one(key: str, shape: BucketShape, cost_units: int) -> tuple[bool, int, int]:
            acquire()
            try:
                now_us = clock()
                state = find(key, full)
                number = shape.number
                if state >> shape_shift != number:
                    return take_new(key, shape, cost_units, now_us)
                last = state >> level_bits & last_mask
                level, anchor = accrue(shape, state & level_mask, last, now_us)
                allowed = level >= cost_units
                if allowed:
                    level -= cost_units
                    states[key] = (number << last_bits | anchor) << level_bits | level
                elif anchor < last:
                    states[key] = (number << last_bits | anchor) << level_bits | level
            finally:
                release()
            if anchor == now_us and shape.tick_us == 1:
                return allowed, level, 0
            return allowed, level, anchor * shape.tick_us - now_us

        return take_one

    def peek(self, demands: Sequence[Demand], now_us: int) -> tuple[Reading, ...]:
        """Return the levels at `now_us`; change nothing."""
        readings: list[Reading] = []
        for demand in demands:
            level, anchor, _ = self._level(demand.key, demand.shape, now_us)
            readings.append(Reading(level, anchor * demand.shape.tick_us - now_us))
        return tuple(readings)

    def refund(self, demands: Sequence[Demand], now_us: int) -> tuple[Reading, ...]:
        """Put `cost_units` back into each bucket, never above its capacity."""
        readings: list[Reading] = []
        for demand in demands:
            shape = demand.shape
            level, anchor, _ = self._level(demand.key, shape, now_us)
            if self._states.get(demand.key, _FULL) != _FULL:
                level = min(shape.capacity, level + demand.cost_units)
                self._write(demand.key, shape, level, anchor, now_us)
            readings.append(Reading(level, anchor * shape.tick_us - now_us))
        return tuple(readings)

    def reset(self, demands: Sequence[Demand]) -> None:
        """Make each bucket full."""
        for demand in demands:
            if demand.key in self._states:
                self._states[demand.key] = _FULL

    def _level(self, key: str, shape: BucketShape, now_us: int) -> tuple[int, int, bool]:
        """Return a bucket's level, the tick it counts on from, and whether even a denial must write them.

        It must where a clock that stepped back, or a changed rule, made the bucket begin anew: what a client was told to
        wait counts from there.
        """
        state = self._states.get(key, _FULL)
        number = state >> _SHAPE_SHIFT
        last = state >> _LEVEL_BITS & _LAST_MASK
        if number == shape.number:
            level, anchor = accrue(shape, state & _LEVEL_MASK, last, now_us)
            return level, anchor, anchor < last
        if state == _FULL:
            return shape.capacity, -(-now_us // shape.tick_us), False
        level, anchor = carry_over(self._shapes[number], shape, state & _LEVEL_MASK, last, now_us)
        return level, anchor, True

    def _take_new(self, key: str, shape: BucketShape, cost_units: int, now_us: int) -> tuple[bool, int, int]:
        """Take from a bucket that is absent, or was written under another shape."""
        level, anchor, moved = self._level(key, shape, now_us)
        allowed = level >= cost_units
        if allowed:
            level -= cost_units
        if allowed or moved:
            self._write(key, shape, level, anchor, now_us)
        return allowed, level, anchor * shape.tick_us - now_us

    def _write(self, key: str, shape: BucketShape, level: int, last: int, now_us: int) -> None:
        states = self._states
        number = shape.number
        if key not in states:
            self._make_room(now_us)
            self._calendar.file(key, full_at_us(shape, level, last))
        if number not in self._shapes:
            self._shapes[number] = shape
        states[key] = (number << _LAST_BITS | last) << _LEVEL_BITS | level

    def _make_room(self, now_us: int) -> None:
        """Forget up to two full buckets for each new one, so that memory shrinks after a flood; then any, at the limit.

        A few may stay where there is room for many: to forget clients who come again, and to file them anew, costs more than
        the two megabytes that they take.
        """
        states = self._states
        if len(states) < _FEW < self._max_keys:
            return
        for _ in range(2):
            full = self._calendar.pop_full(now_us)
            if full is None:
                break
            del states[full]
        if len(states) >= self._max_keys:
            del states[self._calendar.pop_first()]
            self.evicted_unfull += 1

    def _full_at_us(self, key: str) -> int:
        state = self._states[key]
        if state == _FULL:
            return 0
        return full_at_us(self._shapes[state >> _SHAPE_SHIFT], state & _LEVEL_MASK, state >> _LEVEL_BITS & _LAST_MASK)
