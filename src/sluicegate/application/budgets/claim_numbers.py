"""Numbers that tell claims apart, also between processes that were forked from one another."""

import os
from typing import Final

from mypy_extensions import i64

_MASK: Final[i64] = (1 << 52) - 1  # Lua's numbers are doubles
_DRAWN_AT_ONCE: Final = 256

_numbers: Final[list[int]] = []
"""Random numbers of 64 bits that no claim has yet."""


def draw_claim_number() -> int:
    """Return a number of 1 to 2**52 that no other claim has.

    The system's random numbers: nobody guesses another client's number, and workers whose generators an application seeds alike
    draw different ones. Many are drawn at once, because each call of the system takes as long as a check.
    """
    while True:
        try:
            drawn: i64 = _numbers.pop()
            return (drawn & _MASK) + 1
        except IndexError:
            _numbers.extend(memoryview(os.urandom(8 * _DRAWN_AT_ONCE)).cast("q").tolist())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.clear)  # the parent draws them
