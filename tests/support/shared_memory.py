"""Storages in shared memory for tests: on a file of the test's own, and on a clock that it sets."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.infrastructure.redis.calls import PEEK, REFUND, RESET, TAKE
from support.worker_storages import PATIENT_MS

try:
    from sluicegate.infrastructure import shared_memory
    from sluicegate.infrastructure.shared_memory.layout import ENTRY, JOURNAL_BYTES, WORDS
    from sluicegate.infrastructure.shared_memory.locks import FIRST_STRIPE
    from sluicegate.infrastructure.shared_memory.storage import SharedMemoryStorage
except ImportError:  # no fcntl
    pytest.skip("shared memory needs Linux or macOS", allow_module_level=True)

LONG = bool(os.environ.get("SLUICEGATE_LONG"))
SHARED_MEMORY_FOLDER = str(Path(shared_memory.__file__).parent)


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


class Killer:
    """Kill this process at a step of its work: at a line of the package's own code, or at a bytecode instruction.

    Args:
        step: The number of the step.
        kill: What to do there.
    """

    def __init__(self, step: int, kill: Callable[[], object]) -> None:
        self._left = step
        self._kill = kill

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        """Trace."""
        if not frame.f_code.co_filename.startswith(SHARED_MEMORY_FOLDER):
            return None
        frame.f_trace_opcodes = LONG
        if event == ("opcode" if LONG else "line"):
            self._left -= 1
            if self._left == 0:
                self._kill()
        return self


def scribble(storage: SharedMemoryStorage, numbers: random.Random) -> int:
    """Tear what the process that died may have been writing; return how many lines of journals counted.

    It was writing slots if some journal has lines that count, else a journal.
    """
    table = storage._mapped.table()
    layout, memory = table.file.layout, table.file.memory
    words = memoryview(memory).cast("q")
    lines = 0
    for stripe in range(layout.stripes):
        word, at = words[layout.words_at // 8 + stripe * WORDS], layout.journals_at + stripe * JOURNAL_BYTES
        if word == 0:
            memory[at : at + JOURNAL_BYTES] = numbers.randbytes(JOURNAL_BYTES)
        for nth in range(word):
            lines += 1
            line = memory[at + nth * ENTRY.size : at + (nth + 1) * ENTRY.size]
            slot, _, *_, cell, _, _ = ENTRY.unpack(line)
            if slot < 0:  # of a few words each is written or not
                table.cells.write_free(ENTRY.pack(-1, bytes(16), 3, 3, 3, cell, 3, 0))
            else:
                table.slots.write(line[:8] + numbers.randbytes(ENTRY.size - 8))
    return lines


def different_stripes(storage: SharedMemoryStorage, count: int) -> list[str]:
    """Return keys that lie in stripes of their own."""
    slots = storage._mapped.table().slots
    keys: dict[int, str] = {}
    for n in range(1000):
        keys.setdefault(int(slots.locate(f"key-{n}").stripe), f"key-{n}")
    return list(keys.values())[:count]
