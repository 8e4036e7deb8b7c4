"""Buckets in this process's memory: bounded, exact, and without a clock or a lock of its own."""

from collections.abc import Sequence

from sluicegate.domain.fullness_calendar import FullnessCalendar
from sluicegate.domain.token_bucket import BucketShape, Demand, Reading, Verdict, accrue, carry_over, full_at_us

# A state is one integer, `shape number << 113 | last << 53 | level`, which takes 40 bytes where a tuple of three numbers
# takes 150. The level is below 2**53 by the shape's bounds, `last` below 2**60 by the clock's.
_LEVEL_BITS = 53
_LAST_BITS = 60
_LEVEL_MASK = (1 << _LEVEL_BITS) - 1
_LAST_MASK = (1 << _LAST_BITS) - 1
_SHAPE_SHIFT = _LEVEL_BITS + _LAST_BITS
_FULL = -1  # a bucket that was reset; its key leaves when the calendar comes to it


class BucketTable:
    """Keep at most `max_keys` buckets; full ones, which equal absent ones, leave first.

    Not safe to share between threads without a lock.

    Args:
        max_keys: The greatest number of buckets held, at least 1. Beyond it the bucket that would be full first is
            forgotten, which refills it: only where so many clients are limited at once that none of them is full.
    """

    __slots__ = (
        "_aliases",
        "_calendar",
        "_max_keys",
        "_number_of",
        "_shape_numbers",
        "_shapes",
        "_states",
        "evicted_unfull",
    )

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._states: dict[str, int] = {}
        self._shapes: list[BucketShape] = []
        self._number_of: dict[BucketShape, int] = {}
        self._shape_numbers: dict[int, int] = {}  # by identity: hashing a shape costs as much as the arithmetic
        self._aliases: list[BucketShape] = []  # what `_shape_numbers` knows, kept so that no identity is used again
        self._calendar = FullnessCalendar(self._full_at_us)
        self.evicted_unfull = 0
        """How many buckets were forgotten before they were full."""

    def __len__(self) -> int:
        return len(self._states)

    def take(self, demands: Sequence[Demand], now_us: int) -> Verdict:
        """Pay all demands at `now_us`, or none."""
        if len(demands) == 1:
            # One demand is nearly every check: nothing stands here between the lookup and the answer.
            demand = demands[0]
            key = demand.key
            shape = demand.shape
            state = self._states.get(key, _FULL)
            number = state >> _SHAPE_SHIFT
            if number == self._shape_numbers.get(id(shape)):
                last = state >> _LEVEL_BITS & _LAST_MASK
                level, anchor = accrue(shape, state & _LEVEL_MASK, last, now_us)
                allowed = level >= demand.cost_units
                if allowed:
                    level -= demand.cost_units
                if allowed or anchor < last:
                    self._states[key] = (number << _LAST_BITS | anchor) << _LEVEL_BITS | level
                return Verdict(allowed, (Reading(level, anchor * shape.tick_us - now_us),))
        found = [(demand, *self._level(demand.key, demand.shape, now_us)) for demand in demands]
        allowed = all(level >= demand.cost_units for demand, level, _, _ in found)
        readings: list[Reading] = []
        for demand, level, anchor, moved in found:
            left = level - demand.cost_units if allowed else level
            if allowed or moved:
                self._write(demand.key, demand.shape, left, anchor, now_us)
            readings.append(Reading(left, anchor * demand.shape.tick_us - now_us))
        return Verdict(allowed, tuple(readings))

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
            if demand.key in self._states:
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
        """Return a bucket's level, the tick it counts on from, and whether a stepped-back clock moved that tick back."""
        state = self._states.get(key, _FULL)
        if state == _FULL:
            return shape.capacity, -(-now_us // shape.tick_us), False
        last = state >> _LEVEL_BITS & _LAST_MASK
        number = state >> _SHAPE_SHIFT
        known = self._shape_numbers.get(id(shape))
        if known is None:
            known = self._number(shape)
        if number == known:
            level, anchor = accrue(shape, state & _LEVEL_MASK, last, now_us)
            return level, anchor, anchor < last
        level, anchor = carry_over(self._shapes[number], shape, state & _LEVEL_MASK, last, now_us)
        return level, anchor, False

    def _write(self, key: str, shape: BucketShape, level: int, last: int, now_us: int) -> None:
        states = self._states
        if key not in states:
            self._make_room(now_us)
            self._calendar.file(key, full_at_us(shape, level, last))
        number = self._shape_numbers.get(id(shape))
        if number is None:
            number = self._number(shape)
        states[key] = (number << _LAST_BITS | last) << _LEVEL_BITS | level

    def _make_room(self, now_us: int) -> None:
        """Forget up to two full buckets for each new one, so that memory shrinks after a flood; then any, at the limit."""
        states = self._states
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

    def _number(self, shape: BucketShape) -> int:
        """Number a shape object that was not seen before; equal shapes share a number."""
        number = self._number_of.setdefault(shape, len(self._shapes))
        if number == len(self._shapes):
            self._shapes.append(shape)
        self._aliases.append(shape)
        self._shape_numbers[id(shape)] = number
        return number
