"""The verbs on buckets in the file, each under the locks of its stripes.

A call takes the locks of its stripes in ascending order, all of them or none, and waits for nothing while it holds one: `attempt`
returns None where a lock is not free. So there is no deadlock, and a process that was stopped with a lock delays only those that
need the same stripe.
"""

from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.domain.token_bucket import anchor_after_payment
from sluicegate.infrastructure.shared_memory.file import SharedFile
from sluicegate.infrastructure.shared_memory.journal import Journal, entry, removal
from sluicegate.infrastructure.shared_memory.layout import MAX_REQUESTS, WORD_EVICTED
from sluicegate.infrastructure.shared_memory.locks import FIRST_STRIPE
from sluicegate.infrastructure.shared_memory.slots import NO_SLOT, SharedBucket, Slots
from sluicegate.runtime.mutex import LockToken

TAKE: Final = 0
PEEK: Final = 1
REFUND: Final = 2
RESET: Final = 3
_CLEAR: Final = 4  # of a whole stripe


class SharedTable:
    """Buckets in mapped memory.

    Args:
        file: The mapped file. It stays open for as long as a call uses the table.
        now_ns: The clock, the same one in all processes.
    """

    __slots__ = ("_free", "_locks", "_now_ns", "_tokens", "file", "journal", "now_us", "slots")

    def __init__(self, file: SharedFile, now_ns: Callable[[], int]) -> None:
        self.file: Final = file
        self.slots: Final = Slots(file.memory, file.layout, file.secret)
        self.journal: Final = Journal(file.memory, file.layout, self.slots)
        self._locks = file.locks
        self._now_ns = now_ns
        # A lock between processes does not keep this process's threads apart; see `LockToken`.
        self._tokens = [LockToken() for _ in range(file.layout.stripes)]
        self._free = [token.free for token in self._tokens]
        self.now_us: i64 = 0
        """What the clock said in the latest call."""

    def attempt(self, verb: i64, requests: tuple[BucketRequest, ...]) -> Verdict | None:
        """Carry a verb out now; None if a lock that it needs is not free, and nothing has happened.

        Args:
            verb: `TAKE`, `PEEK`, `REFUND` or `RESET`.
            requests: The buckets, with different keys.

        Returns:
            The levels; and whether they were paid, where it was a `TAKE`.

        Raises:
            StorageError: If these are more buckets than a journal can hold.
            OSError: If the kernel cannot lock.
        """
        if len(requests) == 1:
            bucket = self.slots.locate(requests[0].key)
            return self._locked(verb, requests, [bucket], [bucket.stripe], 0)
        if len(requests) > MAX_REQUESTS:
            raise StorageError("too_many_rules", f"{len(requests)} rules in one check: at most {MAX_REQUESTS}.")
        buckets = [self.slots.locate(request.key) for request in requests]
        return self._locked(verb, requests, buckets, sorted({bucket.stripe for bucket in buckets}), 0)

    def clock_us(self) -> int:
        """Return what the clock says."""
        return self._now_ns() // 1000

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were forgotten before they were full, for want of room, since the file was made."""
        return self.journal.total(self.file.layout.stripes, WORD_EVICTED)

    def clear(self, stripe: int) -> bool:
        """Remove all buckets of a stripe; return whether its lock was free."""
        return self._locked(_CLEAR, (), [], [stripe], 0) is not None

    def _locked(
        self,
        verb: i64,
        requests: tuple[BucketRequest, ...],
        buckets: list[SharedBucket],
        stripes: list[i64],
        nth: i64,
    ) -> Verdict | None:
        """Take the locks from the one at `nth` on, each in a call of its own, and do the work when there is none left.

        Whatever raises, a signal's handler among it, each lock and token that was taken is given back: there is no call between
        taking one and the `try` that gives it back.
        """
        stripe = stripes[nth]
        free = self._free[stripe]
        try:
            del free[-1]
        except IndexError:
            return None
        try:
            try:
                if not self._locks.try_lock(FIRST_STRIPE + stripe):
                    return None
                if nth + 1 < len(stripes):
                    return self._locked(verb, requests, buckets, stripes, nth + 1)
                for held in stripes:
                    if self.journal.guard(held) and not self._settle(held, stripes):
                        return None
                return self._run(verb, requests, buckets, stripes)
            finally:
                try:
                    self._locks.unlock(FIRST_STRIPE + stripe)
                except BaseException:  # a signal's handler, before it was done
                    self._locks.unlock(FIRST_STRIPE + stripe)
                    raise
        finally:
            free.append(None)

    def _settle(self, stripe: i64, held: list[i64]) -> bool:
        """Finish what a process that died left behind in a stripe; return whether that could be done now."""
        guard = self.journal.guard(stripe)
        if guard > 0:
            self.journal.settle(stripe)
            return True
        lowest: i64 = -1 - guard
        if lowest in held:
            self.journal.settle(lowest)
            self.journal.release(stripe)
            return True
        free = self._free[lowest]
        try:
            del free[-1]
        except IndexError:
            return False
        try:
            try:
                if not self._locks.try_lock(FIRST_STRIPE + lowest):
                    return False
                self.journal.settle(lowest)
                self.journal.release(stripe)
                return True
            finally:
                try:
                    self._locks.unlock(FIRST_STRIPE + lowest)
                except BaseException:  # a signal's handler, before it was done
                    self._locks.unlock(FIRST_STRIPE + lowest)
                    raise
        finally:
            free.append(None)

    def _run(
        self, verb: i64, requests: tuple[BucketRequest, ...], buckets: list[SharedBucket], stripes: list[i64]
    ) -> Verdict:
        """Do the work, with all locks held."""
        now_us: i64 = self._now_ns() // 1000
        self.now_us = now_us
        if verb == _CLEAR:
            self.slots.clear(stripes[0])
            return Verdict(allowed=True, levels=())
        paid = verb == TAKE
        for at, request in enumerate(requests):
            bucket = buckets[at]
            self.slots.look(bucket, request.spec, now_us)
            if bucket.level < request.cost_units:
                paid = False
        entries: list[bytes] = []
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            bucket = buckets[at]
            if paid:
                self._pay(bucket, request, now_us, buckets)
                entries.append(entry(bucket, request.spec))
            elif verb == TAKE:
                if bucket.anew:  # written by a denial too: what the client is told to wait counts from here
                    entries.append(entry(bucket, request.spec))
            elif verb != PEEK and bucket.slot != NO_SLOT:
                entries.append(_filled(bucket, request, now_us, verb))
            levels.append(BucketLevel(bucket.level, bucket.anchor * request.spec.tick_us - now_us))
        if entries:
            self.journal.commit(stripes, entries)
        return Verdict(paid, tuple(levels))

    def _pay(self, bucket: SharedBucket, request: BucketRequest, now_us: i64, buckets: list[SharedBucket]) -> None:
        """Take a bucket's tokens, and give it a slot if it has none."""
        bucket.anchor = anchor_after_payment(request.spec, bucket.level, bucket.anchor, now_us)
        bucket.level -= request.cost_units
        if bucket.slot == NO_SLOT:
            bucket.slot, lost = self.slots.slot_for_new(bucket, now_us, buckets)
            if lost:
                self.journal.count(bucket.stripe, WORD_EVICTED)


def _filled(bucket: SharedBucket, request: BucketRequest, now_us: i64, verb: i64) -> bytes:
    """Give tokens back to a bucket, or all of them, which removes it; return the change of its slot."""
    spec = request.spec
    if verb == REFUND:
        bucket.level = min(spec.capacity, bucket.level + request.cost_units)
        return entry(bucket, spec)
    bucket.level, bucket.anchor = spec.capacity, -(-now_us // spec.tick_us)
    return removal(bucket)
