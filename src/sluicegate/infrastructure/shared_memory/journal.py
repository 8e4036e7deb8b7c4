"""All changes of a call, or none, whenever its process dies.

What a call changes is first written to the journal of its lowest stripe. Then one word, eight bytes that a processor writes in
one step, says how many lines count; from there on the call has happened. Then the slots are written, and the word becomes zero.
A process that dies before the word leaves everything as it was. One that dies after it leaves the lines, and whoever gets the
lock next writes the slots again: the result is the same, however far the dead one came.

Slots of other stripes are guarded by the word of their own stripe, which names the lowest one beforehand: who gets such a stripe
needs the lowest one as well, and writes its lines first.
"""

import mmap
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.infrastructure.shared_memory.layout import (
    CHAIN_SHIFT,
    ENTRY,
    JOURNAL_BYTES,
    WORD_REPAIRED,
    WORDS,
    Layout,
)
from sluicegate.infrastructure.shared_memory.slots import NO_DIGEST, SharedBucket, Slots

_ENTRY_BYTES: Final = ENTRY.size


class Journal:
    """The journals of a mapped file, and the words of its stripes. Each is used only by who has the stripe's lock.

    Args:
        memory: The mapped file.
        layout: Where things lie in it.
        slots: The slots that are written.
    """

    __slots__ = ("_journals_at", "_memory", "_slots", "_words", "_words_at")

    def __init__(self, memory: mmap.mmap, layout: Layout, slots: Slots) -> None:
        self._memory = memory
        self._slots = slots
        self._words = memoryview(memory).cast("q")
        self._words_at: i64 = layout.words_at // 8
        self._journals_at: i64 = layout.journals_at

    def guard(self, stripe: i64) -> i64:
        """Return what a stripe's word says: 0, the number of lines that count, or -1 - the stripe that must be settled first."""
        word: i64 = self._words[self._words_at + stripe * WORDS]
        return word

    def commit(self, stripes: list[i64], entries: list[bytes]) -> None:
        """Make changes: all of them, or none.

        Args:
            stripes: The stripes of the changed slots in ascending order, or more than these; the caller has all their locks.
            entries: What `entry` and `removal` returned.
        """
        words, words_at = self._words, self._words_at
        lowest = stripes[0]
        guard = words_at + lowest * WORDS
        if len(stripes) > 1:
            for stripe in stripes[1:]:
                words[words_at + stripe * WORDS] = -1 - lowest
        at = self._journals_at + lowest * JOURNAL_BYTES
        for line in entries:
            self._memory[at : at + _ENTRY_BYTES] = line
            at += _ENTRY_BYTES
        words[guard] = len(entries)  # now it has happened
        for line in entries:
            self._slots.write(line)
        words[guard] = 0  # first this one, so that what is written again is never older than what is there
        if len(stripes) > 1:
            for stripe in stripes[1:]:
                words[words_at + stripe * WORDS] = 0

    def settle(self, stripe: i64) -> None:
        """Finish what a process left behind that died after its changes had happened. The caller has the stripe's lock."""
        lines = self.guard(stripe)
        if lines > 0:
            at = self._journals_at + stripe * JOURNAL_BYTES
            for _ in range(lines):
                self._slots.write(self._memory[at : at + _ENTRY_BYTES])
                at += _ENTRY_BYTES
            self.count(stripe, WORD_REPAIRED)
            self._words[self._words_at + stripe * WORDS] = 0

    def release(self, stripe: i64) -> None:
        """Let a stripe be used that another one guarded, which is settled."""
        self._words[self._words_at + stripe * WORDS] = 0

    def count(self, stripe: i64, word: i64) -> None:
        """Add one to a counter of a stripe."""
        self._words[self._words_at + stripe * WORDS + word] += 1

    def total(self, stripes: int, word: int) -> int:
        """Return the sum of the stripes' counters."""
        return sum(self._words[self._words_at + stripe * WORDS + word] for stripe in range(stripes))


def entry(bucket: SharedBucket, spec: BucketSpec, chain: i64 = 0) -> bytes:
    """Return the change of a bucket's slot to its level, its anchor and a chain of claims."""
    return ENTRY.pack(
        bucket.slot,
        bucket.digest,
        bucket.level,
        bucket.anchor,
        spec.capacity,
        spec.units_per_token,
        spec.units_per_tick,
        spec.tick_us | chain << CHAIN_SHIFT,
    )


def removal(slot: i64) -> bytes:
    """Return the change of a slot to an empty one."""
    return ENTRY.pack(slot, NO_DIGEST, 0, 0, 0, 0, 0, 0)
