"""Storages as the processes of a test make them, by kind and address."""

from typing import Any

from sluicegate import RedisStorage, SyncRedisStorage

PATIENT_MS = 10_000
"""For tests that are not about deadlines: the machine may be busy."""


def storage_of(kind: str, address: str) -> Any:
    """Return a storage as a process makes it: `redis`, `sync redis` or `shared memory`."""
    if kind == "redis":
        return RedisStorage.from_url(address, deadline_ms=PATIENT_MS)
    if kind == "sync redis":
        return SyncRedisStorage.from_url(address, deadline_ms=PATIENT_MS)
    from sluicegate import SharedMemoryStorage  # noqa: PLC0415 - not on every system

    return SharedMemoryStorage(address, size_bytes=1 << 20, deadline_ms=PATIENT_MS)
