"""Claims in the file: a cell for each, and a chain of cells for each bucket that has some.

The cells of a bucket never change. A call that changes its claims writes all of them into free cells and lets the journal put
the new chain in place of the old one, whose cells are free then: a process may die at any instant and leave the one or the
other. Only the journal changes what links free cells, and how many there are. One more lock, the last of all, guards them.
"""

import mmap
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.claims.claim import Claim
from sluicegate.domain.claims.claims import Claims
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.shared_memory.layout import (
    CELL,
    CHAIN_COUNT_BITS,
    DIGEST_BYTES,
    ENTRY,
    WORD_FREE,
    WORD_FREE_COUNT,
    WORD_USED,
    WORDS,
    Layout,
)

MAX_CHAIN: Final = (1 << CHAIN_COUNT_BITS) - 1
_CELL_BYTES: Final = CELL.size
_LINK_BYTES: Final = 8
_NO_CELL: Final = -1
_NO_DIGEST: Final = bytes(DIGEST_BYTES)


class ClaimCells:
    """The cells of a mapped file.

    Args:
        memory: The mapped file.
        layout: Where things lie in it.
    """

    __slots__ = ("_cells_at", "_memory", "_words", "_words_at", "count")

    def __init__(self, memory: mmap.mmap, layout: Layout) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("q")
        self._words_at: i64 = layout.words_at // 8 + layout.stripes * WORDS
        self._cells_at: i64 = layout.cells_at
        self.count: Final[i64] = layout.cells

    def read(self, chain: i64) -> Claims:
        """Return the claims of a chain."""
        claims = Claims()
        cell = (chain >> CHAIN_COUNT_BITS) - 1
        left = chain & MAX_CHAIN
        for nth in range(left):
            values = CELL.unpack_from(self._memory, self._cells_at + cell * _CELL_BYTES)
            if nth == 0:
                claims.set_us = values[7]
            claims.adopt(Claim(values[1], values[2], values[3], values[4], values[5], values[6]))
            cell = values[0] - 1
        return claims

    def over_at_us(self, chain: i64) -> i64:
        """Return when the bucket with a chain of claims will equal an absent one."""
        cell = (chain >> CHAIN_COUNT_BITS) - 1
        over_us: i64 = CELL.unpack_from(self._memory, self._cells_at + cell * _CELL_BYTES)[8]
        return over_us

    def next_of(self, cell: i64) -> i64:
        """Return the next cell of one, counted from 1; 0: there is none."""
        following: i64 = self._words[(self._cells_at + cell * _CELL_BYTES) // 8]
        return following

    def free_cells(self) -> tuple[i64, i64, i64]:
        """Return the first free cell, how many are linked from there, and how many cells were ever used."""
        words, at = self._words, self._words_at
        return words[at + WORD_FREE], words[at + WORD_FREE_COUNT], words[at + WORD_USED]

    def write(self, cell: i64, values: bytes, with_link: bool) -> None:
        """Write a free cell, without its link unless it was never used."""
        start = self._cells_at + cell * _CELL_BYTES
        skip: i64 = 0 if with_link else _LINK_BYTES
        self._memory[start + skip : start + _CELL_BYTES] = values[skip:]

    def write_free(self, line: bytes) -> None:
        """Write what a line of a journal says about free cells; see `CellPlan.lines`."""
        _, _, first, count, used, cell, following, _ = ENTRY.unpack(line)
        if cell != _NO_CELL:
            self._words[(self._cells_at + cell * _CELL_BYTES) // 8] = following
        at = self._words_at
        self._words[at + WORD_FREE] = first
        self._words[at + WORD_FREE_COUNT] = count
        self._words[at + WORD_USED] = used


class CellPlan:
    """The free cells during one call: what it takes from them, and then what it gives back. The journal carries it out.

    Args:
        cells: The cells. Their lock is held.
    """

    __slots__ = ("_cells", "_count", "_first", "_links", "_used", "_was_used")

    def __init__(self, cells: ClaimCells) -> None:
        self._cells = cells
        self._first, self._count, self._used = cells.free_cells()
        self._was_used: i64 = self._used
        self._links: dict[int, int] = {}

    def write(self, claims: Claims, over_at_us: i64) -> i64:
        """Write claims into free cells and return their chain. All of this comes before anything is given back.

        Raises:
            StorageError: If there are not as many free cells.
        """
        records = [*claims.active, *claims.ended]
        if len(records) > MAX_CHAIN:
            raise StorageError("overload", f"{len(records)} claims on one bucket: at most {MAX_CHAIN}.")
        taken = [self._take() for _ in records]
        for nth, claim in enumerate(records):
            cell = taken[nth]
            following: i64 = taken[nth + 1] + 1 if nth + 1 < len(taken) else 0
            is_new = cell >= self._was_used
            if not is_new and following and self._next_of(cell) != following:
                self._links[cell] = following
            values = CELL.pack(
                following,
                claim.number,
                claim.units,
                claim.ends_us,
                claim.cost_units,
                claim.kind,
                claim.ttl_us,
                claims.set_us,
                over_at_us,
            )
            self._cells.write(cell, values, is_new)
        return (taken[0] + 1) << CHAIN_COUNT_BITS | len(taken)

    def give_back(self, chain: i64) -> None:
        """Make the cells of a chain free."""
        cell = (chain >> CHAIN_COUNT_BITS) - 1
        count = chain & MAX_CHAIN
        last = cell
        for _ in range(count - 1):
            last = self._cells.next_of(last) - 1
        self._links[last] = self._first
        self._first = cell + 1
        self._count += count

    def lines(self) -> list[bytes]:
        """Return what the journal has to say about the free cells."""
        links = self._links or {_NO_CELL: 0}
        return [
            ENTRY.pack(-1, _NO_DIGEST, self._first, self._count, self._used, cell, following, 0)
            for cell, following in links.items()
        ]

    def _take(self) -> i64:
        if self._first:
            cell = self._first - 1
            self._first = self._next_of(cell)
            self._count -= 1
            return cell
        if self._used >= self._cells.count:
            raise StorageError("overload", "The shared memory has no room for more reservations and holds.")
        self._used += 1
        return self._used - 1

    def _next_of(self, cell: i64) -> i64:
        planned: i64 = self._links.get(cell, -1)
        return planned if planned >= 0 else self._cells.next_of(cell)
