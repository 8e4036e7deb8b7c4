"""The storage in shared memory as far as it is on the way of a check: tries, pauses and the deadline. Compiled."""

import os
from collections.abc import Callable, Sequence
from time import sleep
from typing import Final, cast

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.errors import InvalidInputError, StorageError
from sluicegate.domain.protocols import StorageTraits
from sluicegate.infrastructure.shared_memory.claimed_call import ClaimedCall
from sluicegate.infrastructure.shared_memory.prefixes import is_only_prefix, note_prefix
from sluicegate.infrastructure.shared_memory.table import PEEK, REFUND, RESET, TAKE, SharedTable
from sluicegate.runtime.system_clock import reader_ns

_YIELDS: Final = 4
"""Tries that follow each other at once: a lock is held for microseconds."""
_PAUSE_S: Final = 0.000_05
_LONGEST_PAUSE_S: Final = 0.002
_FIRST_WAIT_S: Final = 5.0
_WAIT_S: Final = 0.02  # in a check
_OF_OTHERS: Final = (
    "A file in shared memory keeps no names of buckets, and limiters with other key prefixes have used this one, whose"
    " buckets would be reset too: give each prefix a file of its own, or empty it with `sluicegate storage clear`."
)
_LOOK_US: Final = 1_000_000
"""How often it is looked whether the path still leads to the mapped file."""


class MappedTable:
    """The table that a storage uses now, and all copies of the storage with it.

    Args:
        open_table: Maps the file that the path leads to, and waits so many seconds if another process is opening it. It is
            called again if that becomes another file.
        note_evictions: Gets, about once a second, how many buckets were lost for want of room, and the clock.

    Raises:
        InvalidInputError: If the file cannot be shared.
    """

    def __init__(self, open_table: Callable[[float], SharedTable], note_evictions: Callable[[int, int], None]) -> None:
        self._note_evictions = note_evictions
        self._open_table = open_table
        self._table: SharedTable | None = open_table(_FIRST_WAIT_S)
        self._prefixes: list[str] = []
        self.look_at_us: i64 = 0
        """When to look whether the path still leads to the mapped file."""

    def table(self) -> SharedTable:
        """Return the table.

        Raises:
            StorageError: If the storage was closed.
        """
        table = self._table
        if table is None:
            raise StorageError("connection", "The storage was closed.")
        return table

    def note_prefix(self, prefix: str) -> None:
        """Note by which prefix a limiter names its buckets, in this file and in the next one."""
        if prefix not in self._prefixes:
            self._prefixes.append(prefix)
        note_prefix(self.table().file.memory, prefix)

    def belongs_to(self, prefixes: Sequence[str]) -> bool:
        """Return whether the names of all buckets in the file begin with some prefixes, as far as limiters have told."""
        memory = self.table().file.memory
        for prefix in self._prefixes:
            if is_only_prefix(memory, prefix):
                return not [one for one in prefixes if not one.startswith(f"{prefix}:")]
        return False

    def look(self, table: SharedTable) -> None:
        """Map another file if the path leads to one: somebody has removed or replaced the one that is mapped.

        Note losses, too. This is called about once a second.

        Raises:
            StorageError: If the file that is there now cannot be shared.
        """
        if self._table is table and not table.file.is_current():
            try:
                self._table = self._open_table(_WAIT_S)
                for prefix in self._prefixes:
                    note_prefix(self._table.file.memory, prefix)
            except InvalidInputError as error:
                raise StorageError("connection", str(error)) from None
        self._note_evictions(table.evicted_unfull, table.now_us)
        self.look_at_us = table.now_us + _LOOK_US

    def close(self) -> None:
        """Use it no more. The file is closed when the last call that is under way has ended."""
        self._table = None


@mypyc_attr(allow_interpreted_subclasses=True)
class SharedBuckets:
    """Decide by a mapped file. `SharedMemoryStorage`, which users see, adds the async verbs.

    Args:
        mapped: The table.
        deadline_s: The longest that a call may wait for locks.
    """

    def __init__(self, mapped: MappedTable, deadline_s: float) -> None:
        self._mapped = mapped
        self._deadline_s = deadline_s
        self.traits = StorageTraits(deadline_s=deadline_s)
        """It keeps its deadline by itself, and keys need no hash tags."""

    def take_nowait(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Pay all requests or none; None if a lock is not free after a few tries."""
        several = requests if isinstance(requests, tuple) else tuple(requests)
        verdict = self._attempt(TAKE, several)
        if verdict is not None:
            return verdict
        for _ in range(_YIELDS):
            os.sched_yield()
            verdict = self._attempt(TAKE, several)
            if verdict is not None:
                return verdict
        return None

    def take_blocking(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        verdict = self.take_nowait(requests)
        return verdict if verdict is not None else self._wait(TAKE, requests)

    def peek_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels."""
        return self._wait(PEEK, requests).levels

    def refund_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        return self._wait(REFUND, requests).levels

    def reset_blocking(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        self._wait(RESET, requests)

    def reset_all_blocking(self, prefixes: Sequence[str], /) -> None:
        """Make each bucket of the file full, if all of them have names that begin with the prefixes.

        Raises:
            StorageError: If limiters with other prefixes have used the file, or a lock was not free in time.
        """
        table = self._mapped.table()
        for stripe, part in self._parts(table, prefixes):
            tries = Tries(self._deadline_s)
            while not table.reset_part(stripe, part):
                sleep(tries.next_pause_s())

    def forget_all(self, prefixes: Sequence[str], /) -> None:
        """Do nothing: all processes have the same buckets."""

    def _parts(self, table: SharedTable, prefixes: Sequence[str]) -> list[tuple[int, int]]:
        """Return the stripes and their parts.

        Raises:
            StorageError: If the file has buckets of other prefixes.
        """
        if not self._mapped.belongs_to(prefixes):
            raise StorageError("unsupported", _OF_OTHERS)
        return [(stripe, part) for stripe in range(table.file.layout.stripes) for part in range(table.slots.parts)]

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Pay all requests or none, and note their claims."""
        return cast("Verdict", self._wait_claimed(reserving(requests, number, terms)))

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        return cast("tuple[BucketSettlement, ...]", self._wait_claimed(settling(requests, number, max_debts)))

    def extend_blocking(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        return cast("int", self._wait_claimed(extending(requests, number, ttls_us)))

    def _wait_claimed(self, call: ClaimedCall) -> object:
        tries = Tries(self._deadline_s)
        while not self._attempt_claimed(call):
            sleep(tries.next_pause_s())
        return call.result

    def _attempt_claimed(self, call: ClaimedCall) -> bool:
        mapped = self._mapped
        table = mapped.table()
        done = table.attempt_claimed(call)
        if table.now_us >= mapped.look_at_us:
            mapped.look(table)
        return done

    def _attempt(self, verb: i64, requests: tuple[BucketRequest, ...]) -> Verdict | None:
        mapped = self._mapped
        table = mapped.table()
        verdict = table.attempt(verb, requests)
        if table.now_us >= mapped.look_at_us:
            mapped.look(table)
        return verdict

    def _wait(self, verb: i64, requests: Sequence[BucketRequest]) -> Verdict:
        several = requests if isinstance(requests, tuple) else tuple(requests)
        tries = Tries(self._deadline_s)
        while True:
            verdict = self._attempt(verb, several)
            if verdict is not None:
                return verdict
            sleep(tries.next_pause_s())


_monotonic_ns: Final = reader_ns(None)


def reserving(requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms]) -> ClaimedCall:
    """Return the call that pays and leaves claims."""
    several = tuple(requests)
    return ClaimedCall(several, lambda table, now_us: table.reserve(several, number, terms, now_us))


def settling(requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int]) -> ClaimedCall:
    """Return the call that settles claims."""
    several = tuple(requests)
    return ClaimedCall(several, lambda table, now_us: table.settle(several, number, max_debts, now_us))


def extending(requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int]) -> ClaimedCall:
    """Return the call that lets claims end later."""
    several = tuple(requests)
    return ClaimedCall(several, lambda table, now_us: table.extend(several, number, ttls_us, now_us))


class Tries:
    """The pauses between the tries of one call, from short to longer ones, and their end.

    Args:
        deadline_s: The longest that they take together.
    """

    def __init__(self, deadline_s: float) -> None:
        self._end_ns: int = _monotonic_ns() + int(deadline_s * 1e9)
        self._pause_s = _PAUSE_S

    def next_pause_s(self) -> float:
        """Return how long to pause before the next try.

        Raises:
            StorageError: If the deadline has come.
        """
        left_s = (self._end_ns - _monotonic_ns()) / 1e9
        if left_s <= 0:
            raise StorageError("timeout", "A lock was not free in time: a process that holds it may be stopped.")
        pause_s = min(self._pause_s, left_s)
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)
        return pause_s
