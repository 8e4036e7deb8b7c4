"""Find the keys that occur most in a stream, in bounded memory.

This is Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams, 2005): a
key that is not kept takes the place of the one with the lowest count, and inherits that count as its possible error.
"""

from heapq import heappush, heapreplace
from typing import Generic, TypeVar

import msgspec

from sluicegate.domain.errors import InvalidInputError

K = TypeVar("K", str, tuple[str, str])


class HeavyHitter(msgspec.Struct, Generic[K], frozen=True):
    """A key that occurs often.

    Args:
        key: The key.
        count: How often it occurred at most.
        error: How much of that may belong to other keys: it occurred `count - error` times at least.
    """

    key: K
    count: int
    error: int


class HeavyHitters(Generic[K]):
    """Count keys. Every key that makes up more than `total / capacity` is among those that are kept.

    Not safe to share between threads.

    Args:
        capacity: How many keys are kept, at least 1.

    Raises:
        InvalidInputError: If the capacity is less than 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InvalidInputError(f"capacity={capacity}: expected 1 or more")
        self._capacity = capacity
        self._counts: dict[K, int] = {}
        self._errors: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []  # one entry for each key; its count may be out of date, and then too low
        self.total = 0
        """The sum of all that was added."""

    def add(self, key: K, amount: int = 1) -> None:
        """Count a key.

        Raises:
            InvalidInputError: If the amount is less than 1.
        """
        if amount < 1:
            raise InvalidInputError(f"amount={amount}: expected 1 or more")
        self.total += amount
        if key in self._counts:
            self._counts[key] += amount
        elif len(self._counts) < self._capacity:
            self._counts[key] = amount
            self._errors[key] = 0
            heappush(self._heap, (amount, key))
        else:
            lowest, replaced = self._lowest()
            del self._counts[replaced], self._errors[replaced]
            self._counts[key] = lowest + amount
            self._errors[key] = lowest
            heapreplace(self._heap, (lowest + amount, key))

    def top(self, most: int) -> list[HeavyHitter[K]]:
        """Return so many keys at most, those with the highest counts first."""
        keys = sorted(self._counts, key=lambda key: (-self._counts[key], key))[: max(0, most)]
        return [HeavyHitter(key, self._counts[key], self._errors[key]) for key in keys]

    def _lowest(self) -> tuple[int, K]:
        """Return the lowest count and its key, which is then on top of the heap."""
        while True:
            noted, key = self._heap[0]
            count = self._counts[key]
            if noted == count:
                return count, key
            heapreplace(self._heap, (count, key))

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"HeavyHitters(keys={len(self)}, total={self.total})"
