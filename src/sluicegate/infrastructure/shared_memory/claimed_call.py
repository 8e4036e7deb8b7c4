"""A call that has to do with claims: its buckets are taken out of the file, changed as those in memory are, and put back.

So the rules of reservations and holds stand in one place, `domain/`, for both storages.
"""

from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket import RESET, Bucket
from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.infrastructure.shared_memory.claim_cells import CellPlan, ClaimCells
from sluicegate.infrastructure.shared_memory.journal import entry, removal
from sluicegate.infrastructure.shared_memory.slots import NO_SLOT, SharedBucket, Slots

_MANY: Final = 1_000_000


class ClaimedCall:
    """One such call.

    Args:
        requests: The buckets, with different keys.
        call: What to do: gets a table with these buckets, and the clock.
    """

    __slots__ = ("_call", "evicted", "requests", "result")

    def __init__(self, requests: tuple[BucketRequest, ...], call: Callable[[BucketTable, int], object]) -> None:
        self.requests: Final = requests
        self._call = call
        self.result: object = None
        """What it returned."""
        self.evicted: list[i64] = []
        """The stripe of each bucket that was lost for want of room."""

    def run(self, slots: Slots, cells: ClaimCells, buckets: list[SharedBucket], now_us: i64) -> list[bytes]:
        """Do it, and return the lines for the journal. All locks are held, that of the cells among them."""
        table = BucketTable(_MANY)
        before: list[object] = []
        for at, request in enumerate(self.requests):
            bucket = buckets[at]
            slots.look(bucket, request.spec, now_us)
            state: object = None
            if bucket.slot != NO_SLOT:
                loaded = slots.load(bucket.slot)
                state = _state(loaded)
                table.put(request.key, loaded)
            before.append(state)
        self.result = self._call(table, now_us)
        plan = CellPlan(cells)
        entries: list[bytes] = []
        free: list[i64] = []
        for at, request in enumerate(self.requests):
            bucket = buckets[at]
            after = table.get(request.key)
            if after is None or _state(after) == before[at]:
                continue
            if bucket.chain:
                free.append(bucket.chain)
            if after.last == RESET:
                entries.append(removal(bucket.slot))
                continue
            chain: i64 = 0
            if after.claims is not None:
                chain = plan.write(after.claims, after.claims.over_at_us(after.spec, after.level, after.last))
            if bucket.slot == NO_SLOT:
                self._give_slot(slots, bucket, now_us, buckets, free)
            bucket.level, bucket.anchor = after.level, after.last
            entries.append(entry(bucket, after.spec, chain))
        for chain in free:
            plan.give_back(chain)
        return [*entries, *plan.lines()] if entries else []

    def _give_slot(
        self, slots: Slots, bucket: SharedBucket, now_us: i64, buckets: list[SharedBucket], free: list[i64]
    ) -> None:
        bucket.slot, lost = slots.slot_for_new(bucket, now_us, buckets)
        chain = slots.chain_of(bucket.slot)
        if chain:
            free.append(chain)
        if lost:
            self.evicted.append(bucket.stripe)


def _state(bucket: Bucket) -> object:
    """Return all that is kept of a bucket, to be compared."""
    claims = bucket.claims
    if claims is None:
        return bucket.spec.text, bucket.level, bucket.last
    records = [
        (claim.number, claim.units, claim.ends_us, claim.cost_units, claim.kind, claim.ttl_us)
        for claim in [*claims.active, *claims.ended]
    ]
    return bucket.spec.text, bucket.level, bucket.last, claims.set_us, records
