"""The conformance suite on `SharedMemoryStorage`: on a clock that is set, on the host's, and with the locks of macOS."""

from pathlib import Path

import pytest

from sluicegate import StorageProtocol
from sluicegate.infrastructure.shared_memory import file
from sluicegate.testing import FakeClock, StorageContract
from support.shared_memory import SharedMemoryStorage
from support.worker_storages import PATIENT_MS


class TestSharedMemoryOnTheHostsClock(StorageContract):
    """In real time."""

    @pytest.fixture(autouse=True)
    def path(self, tmp_path: Path) -> None:
        """Set the file's path."""
        self._path = tmp_path / "buckets"

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return SharedMemoryStorage(self._path, size_bytes=1 << 20, deadline_ms=PATIENT_MS)


class TestSharedMemoryOnAFakeClock(TestSharedMemoryOnTheHostsClock):
    """Exact answers."""

    exact_clock = True

    async def make_storage(self) -> StorageProtocol:
        """Return a storage on a clock of its own."""
        self._clock = FakeClock()
        return SharedMemoryStorage(self._path, size_bytes=1 << 20, clock=self._clock, deadline_ms=PATIENT_MS)

    async def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._clock.advance(seconds)


class TestSharedMemoryWithALockFileForEachStripe(TestSharedMemoryOnAFakeClock):
    """As on systems without locks of open file descriptions."""

    @pytest.fixture(autouse=True)
    def lock_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Choose these locks."""
        monkeypatch.setattr(file, "_HAS_OFD_LOCKS", False)
