"""Published fakes, and the conformance suite that any storage can run. Import what you need into your own tests."""

from sluicegate.testing.fakes import FailingStorage, FakeClock, RecordingEventBus, RecordingLogger
from sluicegate.testing.storage_contract import StorageContract

__all__ = ["FailingStorage", "FakeClock", "RecordingEventBus", "RecordingLogger", "StorageContract"]
