"""Buckets in this process's memory: bounded, exact, and without a clock or a lock of its own."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from sluicegate.domain.bucket_at_hand import GONE, Bucket, Timekeeping
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.expiry_queue import ExpiryQueue
from sluicegate.domain.token_bucket import anchor_after_payment, convert, full_at_us, refill

# A state is a `Bucket` where a check has it at hand. Else it is one integer, `spec number << 113 | last << 53 | level`, which
# takes 40 bytes where a tuple of three numbers takes 150. The level is below 2**53 by the shape's bounds, `last` below
# 2**60 by the clock's.
_LEVEL_BITS = 53
_LAST_BITS = 60
_LEVEL_MASK = (1 << _LEVEL_BITS) - 1
_LAST_MASK = (1 << _LAST_BITS) - 1
_SHAPE_SHIFT = _LEVEL_BITS + _LAST_BITS
_FEW = 10_000
_FULL = -1  # a bucket that was reset; its key leaves when the calendar comes to it

MAX_AT_HAND = 32_768
"""Most buckets that are at hand: some ten megabytes, with what finds them."""

TakeOne: TypeAlias = Callable[[str, BucketSpec, int], tuple[bool, int, int]]
"""Pay for one bucket: key, shape, cost in units; verdict, level in units, lead in microseconds."""


class BucketTable:
    """Keep at most `max_keys` buckets; full ones, which equal absent ones, leave first.

    Not safe to share between threads without a lock.

    Args:
        max_keys: The greatest number of buckets held, at least 1. Beyond it the bucket that would be full first is
            forgotten, which refills it: only where so many clients are limited at once that none of them is full.
    """

    __slots__ = ("_at_hand", "_calendar", "_max_keys", "_oldest", "_shapes", "_states", "evicted_unfull")

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._states: dict[str, int | Bucket] = {}
        self._at_hand: list[Bucket] = []  # a ring, once it is full; those that are gone stay until their turn comes
        self._oldest = 0
        self._shapes: dict[int, BucketSpec] = {}
        self._calendar = ExpiryQueue(self._full_at_us)
        self.evicted_unfull = 0
        """How many buckets were forgotten before they were full."""

    def __len__(self) -> int:
        return len(self._states)

    def take(self, requests: Sequence[BucketRequest], now_us: int) -> Verdict:
        """Pay all requests at `now_us`, or none."""
        states = self._states
        allowed = True
        found: list[tuple[int, int, int, bool]] = []
        for request in requests:
            spec = request.spec
            state = states.get(request.key, _FULL)
            if type(state) is int and state >> _SHAPE_SHIFT == spec.number:  # as in _level, without the call
                last = state >> _LEVEL_BITS & _LAST_MASK
                level, anchor = refill(spec, state & _LEVEL_MASK, last, now_us)
                moved = anchor < last
            else:
                level, anchor, moved = self._level(request.key, spec, now_us)
                last = -1
            if level < request.cost_units:
                allowed = False
            found.append((level, anchor, last, moved))
        levels: list[BucketLevel] = []
        for at, (level, tick, last, moved) in enumerate(found):
            request, anchor = requests[at], tick
            spec = request.spec
            left = level
            if allowed:
                left = level - request.cost_units
                if spec.tick_us != 1:
                    anchor = anchor_after_payment(spec, level, anchor, now_us)
            if allowed or moved:
                if last < 0 or request.key not in states:  # it may just have made room for another of these
                    self._write(request.key, spec, left, anchor, now_us)
                else:
                    states[request.key] = (spec.number << _LAST_BITS | anchor) << _LEVEL_BITS | left
            levels.append(BucketLevel(left, anchor * spec.tick_us - now_us))
        return Verdict(allowed, tuple(levels))

    def build_take_one(self, time: Timekeeping) -> TakeOne:
        """Build what `take` does for a single bucket, in its turn and without objects in between.

        It is called for each client that is not among those who ask often, hence a closure, which finds its variables
        faster than a method its attributes.

        Args:
            time: When to read and write.
        """
        states, find = self._states, self._states.get
        take, give, wait, read, per_us = time.turn.take, time.turn.give, time.turn.wait, time.read, time.per_us
        # No globals either.
        full, level_bits, last_bits, shape_shift = _FULL, _LEVEL_BITS, _LAST_BITS, _SHAPE_SHIFT
        level_mask, last_mask = _LEVEL_MASK, _LAST_MASK
        take_new = self._take_new

        def take_one(key: str, spec: BucketSpec, cost_units: int) -> tuple[bool, int, int]:
            try:
                take()
            except IndexError:
                wait()
            except BaseException:  # a signal's handler, just after
                give(None)
                raise
            try:
                now_us = read() // per_us
                state = find(key, full)
                number = spec.number
                if type(state) is not int or state >> shape_shift != number:
                    return take_new(key, spec, cost_units, now_us)
                last = state >> level_bits & last_mask
                level, anchor = refill(spec, state & level_mask, last, now_us)
                allowed = level >= cost_units
                if allowed:
                    if spec.tick_us != 1:
                        anchor = anchor_after_payment(spec, level, anchor, now_us)
                    level -= cost_units
                    states[key] = (number << last_bits | anchor) << level_bits | level
                elif anchor < last:
                    states[key] = (number << last_bits | anchor) << level_bits | level
            finally:
                give(None)
            if anchor == now_us and spec.tick_us == 1:
                return allowed, level, 0
            return allowed, level, anchor * spec.tick_us - now_us

        return take_one

    def peek(self, requests: Sequence[BucketRequest], now_us: int) -> tuple[BucketLevel, ...]:
        """Return the levels at `now_us`; change nothing."""
        levels: list[BucketLevel] = []
        for request in requests:
            level, anchor, _ = self._level(request.key, request.spec, now_us)
            levels.append(BucketLevel(level, anchor * request.spec.tick_us - now_us))
        return tuple(levels)

    def refund(self, requests: Sequence[BucketRequest], now_us: int) -> tuple[BucketLevel, ...]:
        """Put `cost_units` back into each bucket, never above its capacity."""
        levels: list[BucketLevel] = []
        for request in requests:
            spec = request.spec
            level, anchor, _ = self._level(request.key, spec, now_us)
            if self._states.get(request.key, _FULL) != _FULL:
                level = min(spec.capacity, level + request.cost_units)
                self._write(request.key, spec, level, anchor, now_us)
            levels.append(BucketLevel(level, anchor * spec.tick_us - now_us))
        return tuple(levels)

    def reset(self, requests: Sequence[BucketRequest]) -> None:
        """Make each bucket full."""
        for request in requests:
            state = self._states.get(request.key)
            if state is not None:
                if isinstance(state, Bucket):
                    state.last = GONE
                self._states[request.key] = _FULL

    def hold(self, requests: Sequence[BucketRequest]) -> tuple[Bucket, ...] | None:
        """Return the requests' buckets to be kept at hand; None if one is absent, or of another rule, or has long ticks.

        Where there are too many, the one that has been at hand for longest no longer is. Those that were asked for at
        another cost no longer are at hand for who asks that.
        """
        states = self._states
        held: list[Bucket] = []
        for request in requests:
            key, spec, cost_units = request.key, request.spec, request.cost_units
            state = states.get(key, _FULL)
            if isinstance(state, Bucket):
                if state.spec.number != spec.number:
                    return None
                if state.cost_units != cost_units:
                    self._put_back(state)
                    state = states[key]
            if not isinstance(state, Bucket):
                if state >> _SHAPE_SHIFT != spec.number or spec.tick_us != 1:
                    return None
                last = state >> _LEVEL_BITS & _LAST_MASK
                states[key] = state = Bucket(key, spec, cost_units, state & _LEVEL_MASK, last)
                self._line_up(state)
            held.append(state)
        return tuple(held)

    def _line_up(self, bucket: Bucket) -> None:
        ring = self._at_hand
        if len(ring) < MAX_AT_HAND:
            ring.append(bucket)
            return
        self._put_back(ring[self._oldest])
        ring[self._oldest] = bucket
        self._oldest = (self._oldest + 1) % MAX_AT_HAND

    def _put_back(self, bucket: Bucket) -> None:
        """Let a bucket no longer be at hand, if it is."""
        if bucket.last != GONE:
            self._states[bucket.key] = (bucket.spec.number << _LAST_BITS | bucket.last) << _LEVEL_BITS | bucket.level
            bucket.last = GONE

    def _level(self, key: str, spec: BucketSpec, now_us: int) -> tuple[int, int, bool]:
        """Return a bucket's level, the tick it counts on from, and whether even a denial must write them.

        It must where a clock that stepped back, or a changed rule, made the bucket begin anew: what a client was told to
        wait counts from there.
        """
        state = self._states.get(key, _FULL)
        if state == _FULL:
            return spec.capacity, -(-now_us // spec.tick_us), False
        written, level, last = self._read(state)
        if written.number == spec.number:
            level, anchor = refill(spec, level, last, now_us)
            return level, anchor, anchor < last
        level, anchor = convert(written, spec, level, last, now_us)
        return level, anchor, True

    def _read(self, state: int | Bucket) -> tuple[BucketSpec, int, int]:
        """Return a state's shape, level and instant; not of a bucket that was reset."""
        if isinstance(state, Bucket):
            return state.spec, state.level, state.last
        return self._shapes[state >> _SHAPE_SHIFT], state & _LEVEL_MASK, state >> _LEVEL_BITS & _LAST_MASK

    def _take_new(self, key: str, spec: BucketSpec, cost_units: int, now_us: int) -> tuple[bool, int, int]:
        """Take from a bucket that is absent, or was written under another shape."""
        level, anchor, moved = self._level(key, spec, now_us)
        allowed = level >= cost_units
        if allowed:
            anchor = anchor_after_payment(spec, level, anchor, now_us)
            level -= cost_units
        if allowed or moved:
            self._write(key, spec, level, anchor, now_us)
        return allowed, level, anchor * spec.tick_us - now_us

    def _write(self, key: str, spec: BucketSpec, level: int, last: int, now_us: int) -> None:
        states = self._states
        number = spec.number
        state = states.get(key)
        if state is None:
            self._make_room(now_us)
            self._calendar.file(key, full_at_us(spec, level, last))
        elif isinstance(state, Bucket):
            if state.spec.number == number:
                state.level = level
                state.last = last
                return
            state.last = GONE
        if number not in self._shapes:
            self._shapes[number] = spec
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
            self._forget(full)
        if len(states) >= self._max_keys:
            self._forget(self._calendar.pop_first())
            self.evicted_unfull += 1

    def _forget(self, key: str) -> None:
        state = self._states.pop(key)
        if isinstance(state, Bucket):
            state.last = GONE

    def _full_at_us(self, key: str) -> int:
        state = self._states[key]
        return 0 if state == _FULL else full_at_us(*self._read(state))
