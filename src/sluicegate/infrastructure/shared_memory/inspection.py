"""What operators ask of the file: how full it is, and that it be emptied."""

from time import sleep

import msgspec

from sluicegate.infrastructure.shared_memory.layout import (
    CHAIN_SHIFT,
    GROUP_SLOTS,
    GROUP_STATES,
    TICK_MASK,
    WORD_REPAIRED,
)
from sluicegate.infrastructure.shared_memory.shared_buckets import Tries
from sluicegate.infrastructure.shared_memory.table import SharedTable


class SharedMemoryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the file.

    Args:
        path: The file.
        size_bytes: Its size.
        slots: How many buckets there is room for.
        buckets: How many there are.
        unfull: How many of them are not full; the others leave as soon as their room is needed.
        evicted_unfull: How many were forgotten before they were full, for want of room, since the file was made.
        claims: How many reservations and holds there are on buckets.
        claim_cells: How many there is room for.
        repairs: How often the work of a process that died in the middle of it was finished.
        stripes: How many locks there are.
        made_s: When the file was made, in Unix seconds.
    """

    path: str
    size_bytes: int
    slots: int
    buckets: int
    unfull: int
    evicted_unfull: int
    claims: int
    claim_cells: int
    repairs: int
    stripes: int
    made_s: int


def inspect(table: SharedTable) -> SharedMemoryInfo:
    """Count what is in the file. Takes no lock: a bucket that is being written may be counted wrong."""
    file, now_us = table.file, table.clock_us()
    layout = file.layout
    buckets = unfull = 0
    for group in range(layout.stripes * layout.groups_per_stripe):
        states = GROUP_STATES.unpack_from(file.memory, table.slots.state_at(group * GROUP_SLOTS))
        for at in range(0, len(states), 6):
            level, last, capacity, _, units_per_tick, word = states[at : at + 6]
            if capacity > 0 and units_per_tick > 0:
                buckets += 1
                chain = word >> CHAIN_SHIFT
                full_us = (last - (level - capacity) // units_per_tick) * (word & TICK_MASK)
                unfull += (table.cells.over_at_us(chain) if chain else full_us) > now_us
    _, free, used = table.cells.free_cells()
    return SharedMemoryInfo(
        path=str(file.path),
        size_bytes=layout.size_bytes,
        slots=layout.slots,
        buckets=buckets,
        unfull=unfull,
        evicted_unfull=table.evicted_unfull,
        claims=used - free,
        claim_cells=table.cells.count,
        repairs=table.journal.total(layout.stripes, WORD_REPAIRED),
        stripes=layout.stripes,
        made_s=file.made_s,
    )


def clear(table: SharedTable, deadline_s: float) -> None:
    """Make every bucket full, one stripe after the other.

    Raises:
        StorageError: If a lock was not free in time; the stripes before it are cleared.
    """
    for stripe in range(table.file.layout.stripes):
        tries = Tries(deadline_s)
        while not table.clear(stripe):
            sleep(tries.next_pause_s())
