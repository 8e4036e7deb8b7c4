"""Buckets that all processes of one host share, in a file that they map into memory: no server, and exact."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, cast

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import Clock, LoggerProtocol
from sluicegate.infrastructure.shared_memory.claimed_call import ClaimedCall
from sluicegate.infrastructure.shared_memory.eviction_notice import EvictionNotice
from sluicegate.infrastructure.shared_memory.file import open_file
from sluicegate.infrastructure.shared_memory.inspection import SharedMemoryInfo, clear, inspect
from sluicegate.infrastructure.shared_memory.layout import require_size
from sluicegate.infrastructure.shared_memory.location import location_of_url, path_of
from sluicegate.infrastructure.shared_memory.shared_buckets import (
    MappedTable,
    SharedBuckets,
    Tries,
    extending,
    reserving,
    settling,
)
from sluicegate.infrastructure.shared_memory.table import PEEK, REFUND, RESET, TAKE, SharedTable
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SuspendAwareClock, reader_ns

DEFAULT_DEADLINE_MS = 50


class SharedMemoryStorage(SharedBuckets):
    """Keep buckets in a file that all processes of one user on one host map into memory.

    For both kinds of limiter. Safe to share between threads, event loops and forked children. Whoever comes first makes the
    file; a reboot empties it.

    Args:
        name_or_path: A name, for a file in memory (`/dev/shm`) that belongs to the user, or an absolute path.
        size_bytes: The file's size, 1 MiB at least: about 75 bytes for a bucket that is not full. None: that of the file, or
            16 MiB if it is to be made.
        clock: What time decides, the same one in all processes; None: the host's clock, which goes on while it sleeps.
        deadline_ms: The longest that a call waits for locks, 1 to 60,000. They are held for microseconds, unless their holder is
            stopped.
        create: Whether to make the file if it is not there.
        logger: Is told, once a minute at most, of buckets that were lost for want of room; the standard library's logging if
            None.

    Raises:
        InvalidInputError: If an argument is wrong, or the file is one that this process cannot share: of another user, size or
            version, on a network file system, or open to others. The message says which.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        name_or_path: str | Path,
        *,
        size_bytes: int | None = None,
        clock: Clock | None = None,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
        create: bool = True,
        logger: LoggerProtocol | None = None,
    ) -> None:
        if type(deadline_ms) is not int:
            raise InvalidTypeError(f"deadline_ms={deadline_ms!r}: expected whole milliseconds")
        if not 1 <= deadline_ms <= 60_000:  # noqa: PLR2004 - the bound is stated in the message
            raise InvalidInputError(f"deadline_ms={deadline_ms}: expected 1 to 60000")
        self.path = path_of(name_or_path)
        """The file."""
        size_bytes = None if size_bytes is None else require_size(size_bytes)
        now_ns = SuspendAwareClock().now_ns if clock is None else reader_ns(clock)
        notice = EvictionNotice(str(self.path), logger or StdlibLogger())
        open_table = partial(_open_table, self.path, size_bytes, now_ns, create=create)
        super().__init__(MappedTable(open_table, notice.note), deadline_ms / 1000)

    def __copy__(self) -> Self:
        """Return the same storage: a copy would have locks of its own."""
        return self

    def __deepcopy__(self, _: object) -> Self:
        """Return the same storage: a copy would have locks of its own."""
        return self

    @classmethod
    def from_url(cls, url: str, *, deadline_ms: int = DEFAULT_DEADLINE_MS, create: bool = True) -> Self:
        """Build a storage from a URL.

        Args:
            url: `shm://NAME` or `shm:///path`, either with `?size=64MiB`.
            deadline_ms: The longest that a call may wait for locks, 1 to 60,000.
            create: Whether to make the file if it is not there.

        Raises:
            InvalidInputError: If the URL or the deadline is wrong, or the file is one that this process cannot share.
        """
        name_or_path, size_bytes = location_of_url(url)
        return cls(name_or_path, size_bytes=size_bytes, deadline_ms=deadline_ms, create=create)

    def with_deadline(self, deadline_s: float) -> Self:
        """Return this storage with a shorter deadline: calls through it use the same mapped file. Closing either closes both.

        Args:
            deadline_s: The longest that a call through it may wait, in seconds; above this storage's own, that one holds.
        """
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)  # of a compiled class it lacks what `__init__` sets
        SharedBuckets.__init__(other, self._mapped, min(deadline_s, self._deadline_s))
        return other

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        return await self._wait_async(TAKE, requests)

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels. Writes nothing."""
        return (await self._wait_async(PEEK, requests)).levels

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        return (await self._wait_async(REFUND, requests)).levels

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        await self._wait_async(RESET, requests)

    async def reset_all(self, prefixes: Sequence[str], /) -> None:
        """Make each bucket of the file full, if all of them have names that begin with the prefixes.

        Raises:
            StorageError: If limiters with other prefixes have used the file, or a lock was not free in time.
        """
        table = self._mapped.table()
        for stripe, part in self._parts(table, prefixes):
            tries = Tries(self._deadline_s)
            while not table.reset_part(stripe, part):  # noqa: ASYNC110 - of locks between processes there are no events
                await asyncio.sleep(tries.next_pause_s())
            await asyncio.sleep(0)

    def note_prefix(self, key_prefix: str, /) -> None:
        """Note by which prefix a limiter names its buckets: the file keeps hashes of the names, and `reset_all` must know."""
        self._mapped.note_prefix(key_prefix)

    async def reserve(self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /) -> Verdict:
        """Pay all requests or none, and note their claims."""
        return cast("Verdict", await self._wait_claimed_async(reserving(requests, number, terms)))

    async def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        call = settling(requests, number, max_debts)
        return cast("tuple[BucketSettlement, ...]", await self._wait_claimed_async(call))

    async def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        return cast("int", await self._wait_claimed_async(extending(requests, number, ttls_us)))

    async def aclose(self) -> None:
        """Let go of the file, which stays, with its buckets. Calling it twice is harmless."""
        self.close()

    def close(self) -> None:
        """Let go of the file, which stays, with its buckets. Calling it twice is harmless."""
        self._mapped.close()

    def info(self) -> SharedMemoryInfo:
        """Count what is in the file. Reads all of it, without a lock.

        Raises:
            StorageError: If the storage was closed.
        """
        return inspect(self._mapped.table())

    def clear(self) -> None:
        """Make every bucket full, one stripe after the other.

        Raises:
            StorageError: If a lock was not free in time; the stripes before it are cleared.
        """
        clear(self._mapped.table(), self._deadline_s)

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were forgotten before they were full, for want of room: by all processes since the file was made."""
        return self._mapped.table().evicted_unfull

    async def _wait_async(self, verb: int, requests: Sequence[BucketRequest]) -> Verdict:
        several = tuple(requests)
        tries = Tries(self._deadline_s)
        while True:
            verdict = self._attempt(verb, several)
            if verdict is not None:
                return verdict
            await asyncio.sleep(tries.next_pause_s())

    async def _wait_claimed_async(self, call: ClaimedCall) -> object:
        tries = Tries(self._deadline_s)
        while True:
            if self._attempt_claimed(call):
                return call.result
            await asyncio.sleep(tries.next_pause_s())

    def __repr__(self) -> str:
        return f"SharedMemoryStorage({str(self.path)!r})"


def _open_table(
    path: Path, size_bytes: int | None, now_ns: Callable[[], int], wait_s: float, *, create: bool
) -> SharedTable:
    return SharedTable(open_file(path, size_bytes, make=create, wait_s=wait_s), now_ns)
