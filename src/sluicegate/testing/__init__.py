"""Fakes for your own tests, and the test suite that every storage must pass."""

from sluicegate.testing.fakes import FailingStorage, FakeClock, RecordingEventBus, RecordingLogger
from sluicegate.testing.storage_contract import StorageContract

__all__ = ["FailingStorage", "FakeClock", "RecordingEventBus", "RecordingLogger", "StorageContract"]
