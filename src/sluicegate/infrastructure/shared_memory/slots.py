"""The slots of the file: finding a bucket, reading it, and a slot for a new one. Nothing here writes to a slot that is in use.

A bucket lies in one of the 32 slots of its two groups, so each call looks at 32 slots at most, whatever the file holds. Two
keys are the same bucket only if their keyed 128-bit hashes are the same, which does not happen: among 10**12 keys the chance is
about 10**-15.
"""

import mmap
import struct
from hashlib import blake2b
from typing import Final

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.buckets.bucket import Bucket
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.token_bucket import convert, refill
from sluicegate.infrastructure.shared_memory.claim_cells import ClaimCells
from sluicegate.infrastructure.shared_memory.layout import (
    CHAIN_SHIFT,
    DIGEST_BYTES,
    GROUP_BYTES,
    GROUP_DIGESTS_BYTES,
    GROUP_SLOTS,
    GROUP_STATES,
    STATE,
    TICK_MASK,
    Layout,
)

NO_DIGEST: Final = bytes(DIGEST_BYTES)
NO_SLOT: Final = -1
ALL_PARTS: Final = -1
_GROUPS_A_PART: Final = 64
_STATE_BYTES: Final = STATE.size
_SLOT: Final = struct.Struct("@q")
_DIGEST_AT: Final = _SLOT.size
_STATE_AT: Final = _DIGEST_AT + DIGEST_BYTES


@mypyc_attr(acyclic=True, free_list_len=1)
class SharedBucket:
    """One bucket of a call: where it is, what the call finds there, and what it will be.

    Args:
        digest: The keyed hash of its key.
        stripe: The stripe of its lock.
        first: The group in which it is looked for first.
        second: The group in which it is looked for then.
    """

    __slots__ = ("anchor", "anew", "chain", "digest", "first", "level", "second", "slot", "stripe")

    def __init__(self, digest: bytes, stripe: i64, first: i64, second: i64) -> None:
        self.digest: Final = digest
        self.stripe: Final[i64] = stripe
        self.first: Final[i64] = first
        self.second: Final[i64] = second
        self.slot: i64 = NO_SLOT
        self.level: i64 = 0
        self.anchor: i64 = 0
        self.chain: i64 = 0
        """Its claims; 0: it has none."""
        self.anew = False
        """Whether its rule changed, or the clock stepped back by more than its time to full."""


class Slots:
    """The slots of a mapped file.

    Args:
        memory: The mapped file.
        layout: Where things lie in it.
        secret: The key of the hashes: who does not know it cannot choose keys that share a group.
        cells: The claims on the buckets.
    """

    __slots__ = ("_cells", "_groups_at", "_groups_per_stripe", "_hash", "_memory", "_stripes")

    def __init__(self, memory: mmap.mmap, layout: Layout, secret: bytes, cells: ClaimCells) -> None:
        self._memory = memory
        self._cells = cells
        self._groups_at: i64 = layout.groups_at
        self._groups_per_stripe: i64 = layout.groups_per_stripe
        self._stripes: i64 = layout.stripes
        self._hash = blake2b(digest_size=DIGEST_BYTES, key=secret)

    def locate(self, key: str) -> SharedBucket:
        """Return where a key's bucket may be. Reads nothing."""
        keyed = self._hash.copy()
        keyed.update(key.encode())
        digest = keyed.digest()
        number: i64 = int.from_bytes(digest[:7], "little")
        stripe = number % self._stripes
        groups = self._groups_per_stripe
        start = stripe * groups
        return SharedBucket(digest, stripe, start + (number >> 8) % groups, start + (number >> 32) % groups)

    def look(self, bucket: SharedBucket, spec: BucketSpec, now_us: i64) -> None:
        """Find a bucket and, if it has no claims, bring its level up to the present. Its lock is held, here and below."""
        slot = self._find(bucket.digest, bucket.first)
        if slot == NO_SLOT:
            slot = self._find(bucket.digest, bucket.second)
        bucket.slot = slot
        if slot == NO_SLOT:
            bucket.level = spec.capacity
            bucket.anchor = -(-now_us // spec.tick_us)
            return
        level: i64
        last: i64
        capacity: i64
        units_per_token: i64
        units_per_tick: i64
        tick_us: i64
        level, last, capacity, units_per_token, units_per_tick, tick_us = STATE.unpack_from(
            self._memory, self.state_at(slot)
        )
        if (
            capacity == spec.capacity
            and units_per_token == spec.units_per_token
            and units_per_tick == spec.units_per_tick
            and tick_us == spec.tick_us
        ):
            bucket.level, bucket.anchor = refill(spec, level, last, now_us)
            bucket.anew = bucket.anchor < last
            return
        bucket.chain = tick_us >> CHAIN_SHIFT
        if bucket.chain:
            return
        stored = BucketSpec(capacity, units_per_token, units_per_tick, tick_us, -(-capacity // units_per_tick))
        bucket.level, bucket.anchor = convert(stored, spec, level, last, now_us)
        bucket.anew = True

    def load(self, slot: i64) -> Bucket:
        """Return the bucket in a slot, with its claims."""
        level, last, capacity, units_per_token, units_per_tick, word = STATE.unpack_from(
            self._memory, self.state_at(slot)
        )
        spec = BucketSpec(capacity, units_per_token, units_per_tick, word & TICK_MASK, -(-capacity // units_per_tick))
        bucket = Bucket(spec, level, last)
        chain: i64 = word >> CHAIN_SHIFT
        if chain:
            bucket.claims = self._cells.read(chain)
        return bucket

    def chain_of(self, slot: i64) -> i64:
        """Return the claims of the bucket in a slot; 0: there are none, or the slot is empty."""
        word: i64 = STATE.unpack_from(self._memory, self.state_at(slot))[5]
        return word >> CHAIN_SHIFT

    def slot_for_new(self, bucket: SharedBucket, now_us: i64, others: list[SharedBucket]) -> tuple[i64, bool]:
        """Return a slot for a bucket that has none, and whether a bucket is lost by it that is not full.

        An empty slot, or that of a full bucket, which equals an absent one; else that of the bucket that will be full first.

        Args:
            bucket: The bucket.
            now_us: The present.
            others: All buckets of the call: what they have is not taken from them.
        """
        victim: i64 = NO_SLOT
        victim_full_us: i64 = 0
        for group in (bucket.first, bucket.second):
            start = group * GROUP_SLOTS
            empty = self._empty(group, others)
            if empty != NO_SLOT:
                return empty, False
            states = GROUP_STATES.unpack_from(self._memory, self.state_at(start))
            for nth in range(GROUP_SLOTS):
                slot: i64 = start + nth
                at = nth * 6
                level: i64 = states[at]
                last: i64 = states[at + 1]
                capacity: i64 = states[at + 2]
                units_per_tick: i64 = states[at + 4]
                tick_us: i64 = states[at + 5]
                if not capacity or _is_used(slot, others):
                    continue  # empty so far: it is the one that another bucket of this call will get
                full_us = (last - (level - capacity) // units_per_tick) * (tick_us & TICK_MASK)
                if tick_us > TICK_MASK:
                    full_us = self._cells.over_at_us(tick_us >> CHAIN_SHIFT)
                if full_us <= now_us:
                    return slot, False
                if victim == NO_SLOT or full_us < victim_full_us:
                    victim, victim_full_us = slot, full_us
        return (victim, True) if victim != NO_SLOT else (bucket.first * GROUP_SLOTS, True)

    def write(self, line: bytes) -> None:
        """Write a slot, or what the line says about free cells.

        Args:
            line: A line of a journal; see `layout.ENTRY`.
        """
        slot: i64 = _SLOT.unpack_from(line)[0]
        if slot < 0:
            self._cells.write_free(line)
            return
        group = slot // GROUP_SLOTS
        nth = slot - group * GROUP_SLOTS
        at = self._groups_at + group * GROUP_BYTES + nth * DIGEST_BYTES
        self._memory[at : at + DIGEST_BYTES] = line[_DIGEST_AT:_STATE_AT]
        at += GROUP_DIGESTS_BYTES + nth * (_STATE_BYTES - DIGEST_BYTES)
        self._memory[at : at + _STATE_BYTES] = line[_STATE_AT:]

    def claimed_in(self, stripe: i64, part: i64 = ALL_PARTS) -> list[i64]:
        """Return the slots of a stripe, or of one part of it, whose buckets have claims."""
        first, end = self._groups_of(stripe, part)
        return [slot for slot in range(first * GROUP_SLOTS, end * GROUP_SLOTS) if self.chain_of(slot)]

    def clear(self, stripe: i64, part: i64 = ALL_PARTS) -> None:
        """Remove all buckets of a stripe, or of one part of it, that have no claims.

        Each is removed as a whole: an empty digest comes before an empty state.
        """
        first, end = self._groups_of(stripe, part)
        for group in range(first, end):
            digests, states = bytearray(GROUP_DIGESTS_BYTES), bytearray(GROUP_STATES.size)
            for nth in range(GROUP_SLOTS):
                slot: i64 = group * GROUP_SLOTS + nth
                if self.chain_of(slot):
                    digests[nth * DIGEST_BYTES : (nth + 1) * DIGEST_BYTES] = self.digest_of(slot)
                    at = self.state_at(slot)
                    states[nth * _STATE_BYTES : (nth + 1) * _STATE_BYTES] = self._memory[at : at + _STATE_BYTES]
            at = self._groups_at + group * GROUP_BYTES
            self._memory[at : at + GROUP_DIGESTS_BYTES] = bytes(digests)
            at += GROUP_DIGESTS_BYTES
            self._memory[at : at + GROUP_STATES.size] = bytes(states)

    @property
    def parts(self) -> int:
        """In how many parts a stripe is reset, each of which keeps its lock for a short time."""
        return -(-self._groups_per_stripe // _GROUPS_A_PART)

    def _groups_of(self, stripe: i64, part: i64) -> tuple[i64, i64]:
        first = stripe * self._groups_per_stripe
        end = first + self._groups_per_stripe
        if part == ALL_PARTS:
            return first, end
        first += part * _GROUPS_A_PART
        return first, min(end, first + _GROUPS_A_PART)

    def digest_of(self, slot: i64) -> bytes:
        """Return the digest in a slot."""
        group = slot // GROUP_SLOTS
        at = self._groups_at + group * GROUP_BYTES + (slot - group * GROUP_SLOTS) * DIGEST_BYTES
        return self._memory[at : at + DIGEST_BYTES]

    def at(self, slot: i64) -> SharedBucket:
        """Return the bucket in a slot as a call finds it."""
        group = slot // GROUP_SLOTS
        return SharedBucket(self.digest_of(slot), group // self._groups_per_stripe, group, group)

    def state_at(self, slot: i64) -> i64:
        """Return the place of a slot's state."""
        group = slot // GROUP_SLOTS
        return self._groups_at + group * GROUP_BYTES + GROUP_DIGESTS_BYTES + (slot - group * GROUP_SLOTS) * _STATE_BYTES

    def _find(self, digest: bytes, group: i64) -> i64:
        at = self._groups_at + group * GROUP_BYTES
        found: i64 = self._memory[at : at + GROUP_DIGESTS_BYTES].find(digest)
        return NO_SLOT if found < 0 else group * GROUP_SLOTS + found // DIGEST_BYTES

    def _empty(self, group: i64, others: list[SharedBucket]) -> i64:
        """Return an empty slot of a group; NO_SLOT: there is none."""
        at = self._groups_at + group * GROUP_BYTES
        digests = self._memory[at : at + GROUP_DIGESTS_BYTES]
        found: i64 = digests.find(NO_DIGEST)
        while found >= 0:
            # The end of one digest and the beginning of the next may be zeros, too.
            nth = -(-found // DIGEST_BYTES)
            slot = group * GROUP_SLOTS + nth
            at = nth * DIGEST_BYTES
            if digests[at : at + DIGEST_BYTES] == NO_DIGEST and not _is_used(slot, others):
                return slot
            found = digests.find(NO_DIGEST, at + 1)
        return NO_SLOT


def _is_used(slot: i64, buckets: list[SharedBucket]) -> bool:
    return any(bucket.slot == slot for bucket in buckets)
