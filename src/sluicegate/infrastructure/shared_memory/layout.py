"""Where things lie in the file.

The first page is the header. Then come, for each stripe of locks, a few words and a journal, and behind them the slots in groups
of sixteen: sixteen digests, then sixteen states. A group belongs to one stripe, and so does every key: both of the groups in
which its bucket may lie are groups of its stripe, so one lock covers them.
"""

import struct
from typing import Final

from sluicegate.domain.errors import InvalidInputError

MAGIC: Final = b"SLUICEGT"
VERSION: Final = 1
BYTE_ORDER_MARK: Final = 0x01020304

MIN_SIZE_BYTES: Final = 1 << 20
MAX_SIZE_BYTES: Final = 1 << 40
DEFAULT_SIZE_BYTES: Final = 16 << 20  # /dev/shm of a container has 64 MiB if nobody asked for more

HEADER_BYTES: Final = 4096
HEADER: Final = struct.Struct("=8sIIQ16sII16sQQ")
"""Magic, version, byte order, size, boot, stripes, lines of a journal, secret of the digests, clock, when it was made (Unix).

The first five fields have this place and form in every version.
"""

PREFIX_MARKS_AT: Final = 2048
PREFIX_MARKS: Final = 2048
"""Behind the header, bytes that tell by which prefixes limiters name their buckets: see `prefixes.py`."""

DIGEST_BYTES: Final = 16
STATE: Final = struct.Struct("@6q")
"""Level, last tick; then the arithmetic: capacity, units a token, units a tick, length of the tick. All zero: no bucket.

The last word has the bucket's claims beside the length of the tick: see `CHAIN_SHIFT`.
"""

CHAIN_SHIFT: Final = 20  # a tick is a second at most
"""How many bits of a state's last word are the tick. The others name the bucket's chain of claims; 0: it has none."""

TICK_MASK: Final = (1 << CHAIN_SHIFT) - 1
CHAIN_COUNT_BITS: Final = 14
"""How many bits of a chain are its length. The others are the number of its first cell, counted from 1."""

CELL: Final = struct.Struct("@9q")
"""One claim: the next cell, counted from 1; number, units, end, cost, kind, duration; and in the first cell of a chain the latest
instant from which an end was counted, and when the bucket will equal an absent one."""

GROUP_SLOTS: Final = 16
GROUP_DIGESTS_BYTES: Final = GROUP_SLOTS * DIGEST_BYTES
GROUP_STATES: Final = struct.Struct(f"@{GROUP_SLOTS * 6}q")
"""All states of a group."""

GROUP_BYTES: Final = GROUP_DIGESTS_BYTES + GROUP_STATES.size

ENTRY: Final = struct.Struct("@q16s6q")
"""One line of a journal: a slot, and what it is to contain, a digest and a state. With -1 for the slot it is about free cells."""

MAX_REQUESTS: Final = 32
"""The most buckets of one check."""

JOURNAL_LINES: Final = 4 * MAX_REQUESTS
"""Each bucket may change its slot, take cells, give cells back, and make those of another bucket free."""

JOURNAL_BYTES: Final = JOURNAL_LINES * ENTRY.size

# The words of a stripe, eight bytes each, on a cache line of their own.
WORDS: Final = 8
WORD_STATE: Final = 0
"""0: nothing is under way. n > 0: the journal has n lines that count. -1 - s: the stripe s may have some for this one."""
WORD_EVICTED: Final = 1
"""How many buckets were forgotten before they were full."""
WORD_REPAIRED: Final = 2
"""How often the work of a process that died was finished."""

# Of one more stripe, which has no groups: its lock guards the cells.
WORD_FREE: Final = 3
"""The first free cell, counted from 1; 0: none."""
WORD_FREE_COUNT: Final = 4
"""How many there are."""
WORD_USED: Final = 5
"""How many cells were ever used. Those behind them are free, too."""

_STRIPE_BYTES: Final = WORDS * 8 + JOURNAL_BYTES
_MAX_SHARE: Final = 8  # words and journals take at most this part of the file
_CELLS_SHARE: Final = 16  # and the cells of claims this one


class Layout:
    """The places in a file of a given size.

    Args:
        size_bytes: The file's size.
        stripes: How many locks there are, a power of two.
    """

    __slots__ = (
        "cells",
        "cells_at",
        "groups_at",
        "groups_per_stripe",
        "journals_at",
        "size_bytes",
        "stripes",
        "words_at",
    )

    def __init__(self, size_bytes: int, stripes: int) -> None:
        self.size_bytes: Final = size_bytes
        self.stripes: Final = stripes
        self.words_at: Final = HEADER_BYTES
        self.journals_at: Final = HEADER_BYTES + (stripes + 1) * WORDS * 8
        self.cells_at: Final = self.journals_at + stripes * JOURNAL_BYTES
        self.cells: Final = size_bytes // _CELLS_SHARE // CELL.size
        end = self.cells_at + self.cells * CELL.size
        self.groups_at: Final = -(-end // HEADER_BYTES) * HEADER_BYTES
        self.groups_per_stripe: Final = (size_bytes - self.groups_at) // GROUP_BYTES // stripes

    @property
    def slots(self) -> int:
        """How many buckets there is room for."""
        return self.stripes * self.groups_per_stripe * GROUP_SLOTS


def stripes_for(size_bytes: int, most: int) -> int:
    """Return how many locks a file of a size gets: a power of two, at most `most`."""
    stripes = most
    while stripes > 1 and stripes * _STRIPE_BYTES * _MAX_SHARE > size_bytes:
        stripes //= 2
    return stripes


_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(text: str) -> int:
    """Parse a size such as `64MiB`, `1GiB` or a number of bytes.

    Raises:
        InvalidInputError: If it is none, or out of range.
    """
    digits = text.rstrip("KMGiB")
    unit = _UNITS.get(text[len(digits) :])
    if unit is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 15:  # noqa: PLR2004 - beyond any range
        raise InvalidInputError(f"size={text!r}: expected a size such as 64MiB, 1GiB, or a number of bytes")
    return require_size(int(digits) * unit)


def require_size(size_bytes: object) -> int:
    """Return a size, rounded down to whole pages, or raise the error that names the field.

    Raises:
        InvalidInputError: If it is no whole number of 1 MiB to 1 TiB.
    """
    if type(size_bytes) is not int:
        raise InvalidInputError(f"size_bytes={size_bytes!r}: expected a whole number of bytes")
    if not MIN_SIZE_BYTES <= size_bytes <= MAX_SIZE_BYTES:
        raise InvalidInputError(
            f"size_bytes={size_bytes}: expected {MIN_SIZE_BYTES} (1 MiB) to {MAX_SIZE_BYTES} (1 TiB)"
        )
    return size_bytes // HEADER_BYTES * HEADER_BYTES
