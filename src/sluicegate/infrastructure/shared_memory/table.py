"""The verbs on buckets in the file, each under the locks of its stripes.

A call takes the locks of its stripes in ascending order, all of them or none, and waits for nothing while it holds one: `attempt`
returns None where a lock is not free. So there is no deadlock, and a process that was stopped with a lock delays only those that
need the same stripe.
"""

from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import anchor_after_payment
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.shared_memory.claim_cells import CellPlan, ClaimCells
from sluicegate.infrastructure.shared_memory.claimed_call import ClaimedCall
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
_CLAIM: Final = 5
_RESET_PART: Final = 16
"""The reset of the first part of a stripe; the next number is that of its second part, and so on."""


class SharedTable:
    """Buckets in mapped memory.

    Args:
        file: The mapped file. It stays open for as long as a call uses the table.
        now_ns: The clock, the same one in all processes.
    """

    __slots__ = (
        "_cells_stripe",
        "_free",
        "_locks",
        "_now_ns",
        "_owners",
        "_tokens",
        "cells",
        "file",
        "journal",
        "now_us",
        "slots",
    )

    def __init__(self, file: SharedFile, now_ns: Callable[[], int]) -> None:
        self.file: Final = file
        self.cells: Final = ClaimCells(file.memory, file.layout)
        self.slots: Final = Slots(file.memory, file.layout, file.secret, self.cells)
        self.journal: Final = Journal(file.memory, file.layout, self.slots)
        self._locks = file.locks
        self._now_ns = now_ns
        # A lock between processes does not keep this process's threads apart; see `LockToken`.
        self._cells_stripe: i64 = file.layout.stripes
        self._tokens = [LockToken() for _ in range(file.layout.stripes + 1)]
        self._free = [token.free for token in self._tokens]
        self._owners = [token.owner for token in self._tokens]
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
            verdict = self._locked(verb, requests, [bucket], [bucket.stripe], 0, None)
        else:
            buckets = self._locate(requests)
            stripes: list[i64] = sorted({bucket.stripe for bucket in buckets})
            verdict = self._locked(verb, requests, buckets, stripes, 0, None)
        if verdict is not _CLAIMED:
            return verdict
        call = ClaimedCall(requests, partial(_in_table, verb, requests))
        if not self.attempt_claimed(call):
            return None
        result = call.result
        assert isinstance(result, Verdict)  # noqa: S101 - `_in_table` says so
        return result

    def attempt_claimed(self, call: ClaimedCall) -> bool:
        """Carry out a call that has to do with claims; return whether all locks that it needs were free.

        Raises:
            StorageError: If these are more buckets than a journal can hold, or there is no room for the claims.
            OSError: If the kernel cannot lock.
        """
        buckets = self._locate(call.requests)
        stripes: list[i64] = sorted({bucket.stripe for bucket in buckets})
        stripes.append(self._cells_stripe)
        return self._locked(_CLAIM, call.requests, buckets, stripes, 0, call) is not None

    def _locate(self, requests: tuple[BucketRequest, ...]) -> list[SharedBucket]:
        if len(requests) > MAX_REQUESTS:
            raise StorageError("too_many_rules", f"{len(requests)} rules in one check: at most {MAX_REQUESTS}.")
        return [self.slots.locate(request.key) for request in requests]

    def clock_us(self) -> int:
        """Return what the clock says."""
        return self._now_ns() // 1000

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were forgotten before they were full, for want of room, since the file was made."""
        return self.journal.total(self.file.layout.stripes, WORD_EVICTED)

    def clear(self, stripe: int) -> bool:
        """Remove all buckets of a stripe; return whether its lock and that of the cells were free."""
        return self._locked(_CLEAR, (), [], [stripe, self._cells_stripe], 0, None) is not None

    def reset_part(self, stripe: int, part: int) -> bool:
        """Reset all buckets of one part of a stripe; return whether its lock and that of the cells were free."""
        stripes: list[i64] = [stripe, self._cells_stripe]
        return self._locked(_RESET_PART + part, (), [], stripes, 0, None) is not None

    def _locked(  # noqa: PLR0913, PLR0917 - a call, and the lock that is to be taken next
        self,
        verb: i64,
        requests: tuple[BucketRequest, ...],
        buckets: list[SharedBucket],
        stripes: list[i64],
        nth: i64,
        call: ClaimedCall | None,
    ) -> Verdict | None:
        """Take the locks from the one at `nth` on, each in a call of its own, and do the work when there is none left.

        Whatever raises, a signal's handler among it, each lock and token that was taken is given back: there is no call between
        taking one and the `try` that gives it back.
        """
        stripe = stripes[nth]
        free, owner, me = self._free[stripe], self._owners[stripe], get_ident()
        try:
            del free[-1]
        except IndexError:
            if owner[0] == me:
                raise StorageError("interrupted", "Asked in the midst of another check of this thread.") from None
            return None
        owner[0] = me
        try:
            try:
                if not self._locks.try_lock(FIRST_STRIPE + stripe):
                    return None
                if nth + 1 < len(stripes):
                    return self._locked(verb, requests, buckets, stripes, nth + 1, call)
                for held in stripes:
                    if self.journal.guard(held) and not self._settle(held, stripes):
                        return None
                if call is not None:
                    return self._run_claimed(call, buckets, stripes)
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
        free, owner, me = self._free[lowest], self._owners[lowest], get_ident()
        try:
            del free[-1]
        except IndexError:
            if owner[0] == me:
                raise StorageError("interrupted", "Asked in the midst of another check of this thread.") from None
            return False
        owner[0] = me
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
            self._clear(stripes)
            return Verdict(allowed=True, levels=())
        if verb >= _RESET_PART:
            self._reset_part(stripes, verb - _RESET_PART, now_us)
            return Verdict(allowed=True, levels=())
        paid = verb == TAKE
        for at, request in enumerate(requests):
            bucket = buckets[at]
            self.slots.look(bucket, request.spec, now_us)
            if bucket.chain:
                return _CLAIMED
            if bucket.level < request.cost_units:
                paid = False
        if paid and not self._give_slots(buckets, now_us):
            return _CLAIMED
        entries: list[bytes] = []
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            bucket = buckets[at]
            line = _change(verb, paid, bucket, request, now_us)
            if line is not None:
                entries.append(line)
            levels.append(BucketLevel(bucket.level, bucket.anchor * request.spec.tick_us - now_us))
        if entries:
            self.journal.commit(stripes, entries)
        return Verdict(paid, tuple(levels))

    def _give_slots(self, buckets: list[SharedBucket], now_us: i64) -> bool:
        """Give each bucket a slot that has none; return whether they do without those of buckets that have claims."""
        for bucket in buckets:
            if bucket.slot == NO_SLOT:
                slot, lost = self.slots.slot_for_new(bucket, now_us, buckets)
                if self.slots.chain_of(slot):
                    return False
                bucket.slot = slot
                if lost:
                    self.journal.count(bucket.stripe, WORD_EVICTED)
        return True

    def _run_claimed(self, call: ClaimedCall, buckets: list[SharedBucket], stripes: list[i64]) -> Verdict:
        """Do what `_run` does for a call that has to do with claims."""
        now_us: i64 = self._now_ns() // 1000
        self.now_us = now_us
        entries = call.run(self.slots, self.cells, buckets, now_us)
        for stripe in call.evicted:
            self.journal.count(stripe, WORD_EVICTED)
        if entries:
            self.journal.commit(stripes, entries)
        return _CLAIMED

    def _clear(self, stripes: list[i64]) -> None:
        """Remove all buckets of the first of two stripes; the other one is that of the cells."""
        for slot in self.slots.claimed_in(stripes[0]):
            plan = CellPlan(self.cells)
            plan.give_back(self.slots.chain_of(slot))
            self.journal.commit(stripes, [removal(slot), *plan.lines()])
        self.slots.clear(stripes[0])

    def _reset_part(self, stripes: list[i64], part: i64, now_us: i64) -> None:
        """Reset the buckets of one part of the first of two stripes; the other one is that of the cells."""
        for slot in self.slots.claimed_in(stripes[0], part):
            requests = (BucketRequest(str(slot), self.slots.load(slot).spec, 0),)
            call = ClaimedCall(requests, partial(_in_table, RESET, requests))
            entries = call.run(self.slots, self.cells, [self.slots.at(slot)], now_us)
            if entries:
                self.journal.commit(stripes, entries)
        self.slots.clear(stripes[0], part)


def _change(verb: i64, paid: bool, bucket: SharedBucket, request: BucketRequest, now_us: i64) -> bytes | None:
    """Change a bucket as a verb has it; return the change of its slot, or None."""
    spec = request.spec
    if verb == TAKE:
        if paid:
            bucket.anchor = anchor_after_payment(spec, bucket.level, bucket.anchor, now_us)
            bucket.level -= request.cost_units
        elif not bucket.anew:  # else it is written by a denial too: what the client is told to wait counts from here
            return None
        return entry(bucket, spec)
    if verb == PEEK or bucket.slot == NO_SLOT:
        return None
    if verb == REFUND:
        bucket.level = min(spec.capacity, bucket.level + request.cost_units)
        return entry(bucket, spec)
    bucket.level, bucket.anchor = spec.capacity, -(-now_us // spec.tick_us)
    return removal(bucket.slot)


def _in_table(verb: i64, requests: tuple[BucketRequest, ...], table: BucketTable, now_us: int) -> Verdict:
    """Carry a verb out on buckets that were taken out of the file."""
    if verb == TAKE:
        return table.take(requests, now_us)
    if verb == PEEK:
        return Verdict(allowed=False, levels=table.peek(requests, now_us))
    if verb == REFUND:
        return Verdict(allowed=False, levels=table.refund(requests, now_us))
    return Verdict(allowed=False, levels=table.reset(requests, now_us))


_CLAIMED: Final = Verdict(allowed=False, levels=())
"""What a call returns that found claims without having the lock of the cells; nothing has happened."""
