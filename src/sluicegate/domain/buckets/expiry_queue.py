"""Which buckets are full by now: the order in which they can be forgotten without any client noticing.

Each key is filed once, under the instant at which its bucket would be full if it were left alone. A bucket that is taken from
again will be full later: the caller looks at the bucket of each key that it gets from here, and files the key again if the
bucket is not full yet. One that a refund, a reset or another rule fills earlier is only forgotten later than it could be.
No call does more than file or return one key. A heap of all keys would cost 112 bytes a key; pages cost 8.
"""

from heapq import heappop, heappush
from typing import Final

from mypy_extensions import i64

_SLOT_BITS: Final = 20  # a slot is about a second
_SLOT_US: Final = 1 << _SLOT_BITS
_NEAR_SLOTS_BITS: Final = 6  # further away than 64 slots a page is a 64th of the distance, so that there are few pages


class ExpiryQueue:
    """Hold keys by the time at which their buckets will be full."""

    __slots__ = ("_pages", "_starts")

    def __init__(self) -> None:
        self._pages: dict[int, list[str]] = {}
        self._starts: list[int] = []  # a heap of the pages' instants

    def add(self, key: str, full_at_us: i64, now_us: i64) -> None:
        """File a key that is not filed yet.

        Args:
            key: The bucket's name.
            full_at_us: The instant from which it is full.
            now_us: The present.
        """
        bits: i64 = _SLOT_BITS
        distance: i64 = (full_at_us - now_us) >> (_SLOT_BITS + _NEAR_SLOTS_BITS)
        while distance > 0:
            bits += 1
            distance >>= 1
        start = full_at_us >> bits << bits
        page = self._pages.get(start)
        if page is None:
            self._pages[start] = [key]
            heappush(self._starts, start)
        else:
            page.append(key)

    def pop_due(self, now_us: i64) -> str | None:
        """Remove and return a key of a page that began at least a second ago; None: no such page. Its bucket may not be full."""
        if not self._starts or self._starts[0] + _SLOT_US > now_us:
            return None
        return self.pop_first()

    def pop_first(self) -> str:
        """Remove and return a key of the earliest page; there must be one."""
        start = self._starts[0]
        page = self._pages[start]
        key = page.pop()
        if not page:
            del self._pages[start]
            heappop(self._starts)
        return key
