"""The embedded storage as far as it is on the way of a check: a lock, a clock, and the table. Compiled."""

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Final

from mypy_extensions import mypyc_attr

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_store import SHARDS
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.collaborators import require_clock
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import Clock, StorageTraits
from sluicegate.infrastructure.table_calls import (
    ExtendCall,
    PeekCall,
    RefundCall,
    ReserveCall,
    ResetCall,
    ResetShardCall,
    SettleCall,
    TableCall,
)
from sluicegate.runtime.mutex import LockToken, wait_until_free
from sluicegate.runtime.system_clock import ClockReader, GivenClockReader, LocalClockReader

_get_ident: Final[Callable[[], int]] = get_ident  # compiled code finds it without a look-up in the module's names


@mypyc_attr(allow_interpreted_subclasses=True)
class LockedTable:
    """Let one thread after the other use a table of buckets. `MemoryStorage`, which users see, adds the async verbs.

    Args:
        clock: What time decides; the process's monotonic clock if None.
        max_keys: The greatest number of buckets held, at least 1.

    Raises:
        InvalidInputError: If `max_keys` is below 1.
        InvalidTypeError: If it is not a whole number, or the clock is none.
    """

    def __init__(self, clock: Clock | None, max_keys: object) -> None:
        if type(max_keys) is not int:
            raise InvalidTypeError(f"max_keys={max_keys!r}: expected a whole number")
        if max_keys < 1:
            raise InvalidInputError(f"max_keys={max_keys}: expected at least 1")
        self.max_keys: int = max_keys
        """The greatest number of buckets held."""
        if clock is not None:
            require_clock(clock)
        self._clock: ClockReader = LocalClockReader() if clock is None else GivenClockReader(clock)
        self._table = BucketTable(max_keys)
        self._lock = LockToken()
        self._free: list[None] = self._lock.free
        self._owner: list[int] = self._lock.owner
        self.traits = StorageTraits(never_waits=True)
        """It never waits, and keys need no hash tags."""

    def __copy__(self) -> "LockedTable":
        """Return the same storage: buckets that were copied would be two."""
        return self

    def __deepcopy__(self, _: object) -> "LockedTable":
        """Return the same storage, as `__copy__` does."""
        return self

    def take_nowait(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        several = requests if isinstance(requests, tuple) else tuple(requests)
        free = self._free
        me = _get_ident()
        while True:  # see `LockToken`
            try:
                del free[-1]
            except IndexError:
                if self._owner[0] == me:  # a signal handler or a finaliser, while this thread is below
                    return self._table.take_within(several, self._clock.now_us())
                wait_until_free(free)
            else:
                self._owner[0] = me
                break
        try:
            return self._table.take(several, self._clock.now_us())
        finally:
            free.append(None)

    def take_blocking(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        return self.take_nowait(requests)

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Pay all requests or none, and note their claims."""
        call = ReserveCall(requests if isinstance(requests, tuple) else tuple(requests), number, terms)
        _run(self._free, self._owner, self._table, self._clock, call)
        return call.verdict

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        call = SettleCall(requests, number, max_debts)
        _run(self._free, self._owner, self._table, self._clock, call)
        return call.settlements

    def extend_blocking(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        call = ExtendCall(requests, number, ttls_us)
        _run(self._free, self._owner, self._table, self._clock, call)
        return call.extended

    def peek_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels."""
        call = PeekCall(requests)
        _run(self._free, self._owner, self._table, self._clock, call)
        return call.levels

    def refund_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        call = RefundCall(requests)
        _run(self._free, self._owner, self._table, self._clock, call)
        return call.levels

    def reset_blocking(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        _run(self._free, self._owner, self._table, self._clock, ResetCall(requests))

    def reset_all_blocking(self, prefixes: Sequence[str], /) -> None:
        """Make each bucket full whose name begins with one of some prefixes, in steps of a few milliseconds at most.

        Raises:
            StorageError: If it is asked in the midst of another call of this thread.
        """
        for shard in range(SHARDS):
            self.reset_shard(shard, prefixes)

    def reset_shard(self, shard: int, prefixes: Sequence[str]) -> None:
        """Do one step of `reset_all_blocking`, of which there are `SHARDS`."""
        _run(self._free, self._owner, self._table, self._clock, ResetShardCall(shard, tuple(prefixes)))

    def forget_all(self, prefixes: Sequence[str], /) -> None:
        """Reset the buckets with these prefixes; they are in this process only."""
        self.reset_all_blocking(prefixes)

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were forgotten before they were full, for want of room."""
        return self._table.evicted_unfull

    @property
    def size_bytes(self) -> int:
        """About how much memory the buckets take, with keys and claims: at most 296 bytes times `max_keys`, or 1 MiB."""
        return self._table.size_bytes

    def __len__(self) -> int:
        return len(self._table)


def _run(free: list[None], owner: list[int], table: BucketTable, clock: ClockReader, call: TableCall) -> None:
    """Ask the table, at the clock's instant, while no other thread uses it.

    This is no method: those of a class that users may subclass are looked up by name, which takes as long as the rest.

    Args:
        free: The list of the table's `LockToken`.
        owner: The owner of it.
        table: The table.
        clock: The clock.
        call: What to ask.
    """
    me = _get_ident()
    while True:  # see `LockToken`, which says why this stands here twice
        try:
            del free[-1]
        except IndexError:
            if owner[0] == me:  # a signal handler or a finaliser, while this thread is below
                call.run_within(table, clock.now_us())
                return
            wait_until_free(free)
        else:
            owner[0] = me
            break
    try:
        call.run(table, clock.now_us())
    finally:
        free.append(None)
