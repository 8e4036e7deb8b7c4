"""The conformance suite on `MemoryStorage`, with a clock that is set and with the system's."""

from sluicegate import MemoryStorage, StorageProtocol
from sluicegate.testing import FakeClock, StorageContract


class TestMemoryStorageOnAFakeClock(StorageContract):
    """Exact answers."""

    exact_clock = True

    async def make_storage(self) -> StorageProtocol:
        """Return a storage on a clock of its own."""
        self._clock = FakeClock()
        return MemoryStorage(clock=self._clock)

    async def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._clock.advance(seconds)


class TestMemoryStorageOnTheSystemClock(StorageContract):
    """The same answers in real time."""

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return MemoryStorage()
