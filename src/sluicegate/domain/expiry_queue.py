"""Which bucket will be full first: the order in which buckets may be forgotten without anybody noticing.

Each key is filed once, under the second in which its bucket would be full if nobody asked again. A bucket that is asked
again will be full later, never earlier, so that what is filed is a lower bound: it is put right when its turn comes. Only
the keys of the earliest second are sorted. A heap of all keys would do the same for 112 bytes a key; this takes 8.
"""

from collections.abc import Callable
from heapq import heappop, heappush

_SLOT_US = 1 << 20  # about a second


class ExpiryQueue:
    """Hold keys in the order in which their buckets will be full.

    Args:
        full_at_us: Returns the instant from which a key's bucket is full, as things stand now.
    """

    __slots__ = ("_full_at_us", "_open", "_open_slot", "_pages", "_slots")

    def __init__(self, full_at_us: Callable[[str], int]) -> None:
        self._full_at_us = full_at_us
        self._pages: dict[int, list[str]] = {}
        self._slots: list[int] = []  # a heap of the pages' slots
        self._open: list[tuple[int, str]] = []  # a heap: the earliest page, sorted
        self._open_slot = -1

    def file(self, key: str, full_at_us: int) -> None:
        """File a key that is not filed yet."""
        slot = full_at_us // _SLOT_US
        if slot <= self._open_slot:
            heappush(self._open, (full_at_us, key))
            return
        page = self._pages.get(slot)
        if page is None:
            self._pages[slot] = [key]
            heappush(self._slots, slot)
        else:
            page.append(key)

    def pop_full(self, now_us: int) -> str | None:
        """Remove and return a key whose bucket is full at `now_us`; None if there is none."""
        # What is filed is a lower bound, and the pages are later than what is open: most calls need not look further.
        if self._open:
            if self._open[0][0] > now_us:
                return None
        elif not self._slots or self._slots[0] > now_us // _SLOT_US:
            return None
        first_us = self._settle(now_us // _SLOT_US)
        if first_us is None or first_us > now_us:
            return None
        return heappop(self._open)[1]

    def pop_first(self) -> str:
        """Remove and return the key whose bucket will be full first; there must be one."""
        while self._settle(self._slots[0] if self._slots else self._open_slot) is None:
            pass
        return heappop(self._open)[1]

    def _settle(self, last_slot: int) -> int | None:
        """Bring the key that will be full first to the top of the open page, opening none after `last_slot`.

        Returns:
            The instant from which it is full; None if the open page is empty.
        """
        while True:
            while self._open:
                filed_us, key = self._open[0]
                full_at_us = self._full_at_us(key)
                if full_at_us <= filed_us:
                    return filed_us
                heappop(self._open)
                self.file(key, full_at_us)
            if not self._slots or self._slots[0] > last_slot:
                return None
            self._open_slot = heappop(self._slots)
            for key in self._pages.pop(self._open_slot):
                self.file(key, self._full_at_us(key))
