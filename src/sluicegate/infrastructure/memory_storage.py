"""The embedded storage: buckets in this process, for one process, with no server at all."""

from collections.abc import Sequence

from sluicegate.domain.bucket_at_hand import Bucket, Timekeeping
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_table import BucketTable
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import Clock
from sluicegate.runtime.system_clock import SystemClock
from sluicegate.runtime.turn import Turn

DEFAULT_MAX_KEYS = 1_000_000


class MemoryStorage:
    """Keep buckets in memory. Safe to share between threads and event loops; each process has its own buckets.

    Args:
        clock: What time decides; the process's monotonic clock if None.
        max_keys: The greatest number of buckets held, at least 1; about 200 bytes each. Full buckets leave first.

    Raises:
        InvalidInputError: If `max_keys` is not a whole number of at least 1.
    """

    immediate = True

    def __init__(self, *, clock: Clock | None = None, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        if type(max_keys) is not int:
            raise InvalidTypeError(f"max_keys={max_keys!r}: expected a whole number")
        if max_keys < 1:
            raise InvalidInputError(f"max_keys={max_keys}: expected at least 1")
        clock = clock or SystemClock()
        self._now_us = clock.now_us
        self._table = BucketTable(max_keys)
        self._max_keys = max_keys
        self._turn = Turn()
        read, per_us = (clock.read, clock.per_us) if type(clock) is SystemClock else (clock.now_us, 1)
        self.timekeeping = Timekeeping(self._turn, read, per_us)
        """When the buckets that `hold_now` returned may be used."""
        self.take_one_now = self._table.build_take_one(self.timekeeping)
        """Does what `take_now` does for a single bucket, with no objects in between: key, shape and cost in units go in,
        verdict, level in units and lead in microseconds come out."""

    def take_now(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        if len(requests) == 1:
            request = requests[0]
            allowed, level, effective_in_us = self.take_one_now(request.key, request.spec, request.cost_units)
            return Verdict(allowed, (BucketLevel(level, effective_in_us),))
        return self._turn.during(lambda: self._table.take(requests, self._now_us()))

    def hold_now(self, requests: Sequence[BucketRequest], /) -> tuple[Bucket, ...] | None:
        """Return the requests' buckets to be kept at hand, if all of them are there; see `BucketTable.hold`."""
        return self._turn.during(self._table.hold, requests)

    def peek_now(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels."""
        return self._turn.during(lambda: self._table.peek(requests, self._now_us()))

    def refund_now(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        return self._turn.during(lambda: self._table.refund(requests, self._now_us()))

    def reset_now(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        self._turn.during(self._table.reset, requests)

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        return self.take_now(requests)

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels."""
        return self.peek_now(requests)

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        return self.refund_now(requests)

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        self.reset_now(requests)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were forgotten before they were full, for want of room."""
        return self._table.evicted_unfull

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"MemoryStorage(keys={len(self._table)}, max_keys={self._max_keys})"
