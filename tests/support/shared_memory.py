"""Storages in shared memory for tests: on a file of the test's own, and on a clock that it sets."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sluicegate.domain.bucket_request import BucketRequest
from sluicegate.infrastructure.redis.script import PEEK, REFUND, RESET, TAKE

try:
    from sluicegate.infrastructure.shared_memory.locks import FIRST_STRIPE
    from sluicegate.infrastructure.shared_memory.storage import SharedMemoryStorage
except ImportError:  # no fcntl
    pytest.skip("shared memory needs Linux or macOS", allow_module_level=True)

PATIENT_MS = 10_000
"""For tests that are not about deadlines: the machine may be busy."""


class SharedBucketsAt:
    """Buckets in shared memory, called at instants that the test names.

    Args:
        path: A file that is not there yet.
    """

    def __init__(self, path: Path) -> None:
        self.storage = SharedMemoryStorage(path, size_bytes=1 << 20, clock=self, deadline_ms=PATIENT_MS)
        self._instant_us = 0

    def now_us(self) -> int:
        """Return the instant that was set."""
        return self._instant_us

    def call(self, verb: int, requests: Sequence[BucketRequest], now_us: int) -> Any:
        """Carry a step out."""
        self._instant_us = now_us
        storage = self.storage
        return {
            TAKE: storage.take_blocking,
            PEEK: storage.peek_blocking,
            REFUND: storage.refund_blocking,
            RESET: storage.reset_blocking,
        }[verb](requests)


@contextmanager
def stopped_holder(path: Path, key: str) -> Iterator[None]:
    """Let a process take the lock of a key's bucket and stop (SIGSTOP); in the end it goes on and ends.

    Args:
        path: The file.
        key: The bucket's key.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            table = SharedMemoryStorage(path)._mapped.table()
            table.file.locks.try_lock(FIRST_STRIPE + table.slots.locate(key).stripe)
            os.write(write_end, b".")
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(0)
    os.read(read_end, 1)
    os.waitpid(pid, os.WUNTRACED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
        os.close(read_end)
        os.close(write_end)
