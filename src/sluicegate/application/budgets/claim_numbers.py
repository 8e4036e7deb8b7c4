"""Numbers that tell claims apart, also between processes that were forked from one another."""

import os
from struct import Struct
from typing import Final

from mypy_extensions import i64

_HIGH_BITS: Final = 0xFFFFF  # 52 bits in all, because Lua's numbers are doubles
_DRAWN_AT_ONCE: Final = 256
_halves: Final = Struct(f"={2 * _DRAWN_AT_ONCE}I")

_numbers: Final[list[int]] = []
"""Numbers that no claim has yet."""


def draw_claim_number() -> int:
    """Return a number of 1 to 2**52 that no other claim has.

    The system's random numbers: nobody guesses another client's number, and workers whose generators an application seeds alike
    draw different ones. Many are drawn at once, because each call of the system takes as long as a check.
    """
    while True:
        try:
            return _numbers.pop()
        except IndexError:
            _draw_several()


def _draw_several() -> None:
    halves: tuple[int, ...] = _halves.unpack(os.urandom(_halves.size))
    for nth in range(_DRAWN_AT_ONCE):
        high: i64 = halves[2 * nth]
        low: i64 = halves[2 * nth + 1]
        _numbers.append(((high & _HIGH_BITS) << 32 | low) + 1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.clear)  # the parent draws them
