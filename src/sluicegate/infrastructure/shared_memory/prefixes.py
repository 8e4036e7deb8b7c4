"""By which prefixes limiters name the buckets of a file, as far as that can be told: the file keeps hashes, and no names.

Each prefix sets a few bytes of the first page, which no two prefixes have in common. To set a byte twice does no harm, so no lock
is needed; and a prefix is the only one if no other bytes are set.
"""

import mmap
from hashlib import blake2b
from typing import Final

from sluicegate.infrastructure.shared_memory.layout import PREFIX_MARKS, PREFIX_MARKS_AT

_MARKS_OF_ONE: Final = 6


def note_prefix(memory: mmap.mmap, prefix: str) -> None:
    """Note that a limiter names its buckets by a prefix."""
    for at in _places(prefix):
        memory[PREFIX_MARKS_AT + at] = 1


def is_only_prefix(memory: mmap.mmap, prefix: str) -> bool:
    """Return whether a prefix is noted, and no other one was since the file was made."""
    marks = memory[PREFIX_MARKS_AT : PREFIX_MARKS_AT + PREFIX_MARKS]
    return {at for at, mark in enumerate(marks) if mark} == _places(prefix)


def _places(prefix: str) -> set[int]:
    digest = blake2b(prefix.encode(), digest_size=2 * _MARKS_OF_ONE).digest()
    return {int.from_bytes(digest[at : at + 2], "little") % PREFIX_MARKS for at in range(0, len(digest), 2)}
