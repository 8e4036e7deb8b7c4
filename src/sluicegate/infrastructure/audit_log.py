"""Write down who was denied, what passed because the storage failed, and what operators did: one line of JSON for each event."""

import os
import stat
from contextlib import suppress
from hashlib import blake2b
from io import TextIOWrapper
from logging import INFO, LogRecord
from logging.handlers import RotatingFileHandler
from math import isinf
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from time import sleep
from typing import Final

import msgspec

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.events import (
    RateLimitAdministered,
    RateLimitCheckDenied,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
)
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.runtime.at_exit import flush_at_exit
from sluicegate.runtime.mutex import fork_count, held_here, new_mutex
from sluicegate.runtime.system_clock import monotonic_s

_MAX_WAITING: Final = 10_000
_IDLE_S: Final = 0.5
_LOOK_S: Final = 0.002
_NAMES: Final[dict[type[RateLimitEvent], str]] = {
    RateLimitCheckDenied: "denied",
    RateLimitListed: "denied_by_list",
    RateLimitFailedOpen: "failed_open",
    RateLimitFailedClosed: "failed_closed",
    RateLimitAdministered: "administered",
}
_OF_EVENTS: Final = ("rule", "scope", "cost", "retry_after", "reason", "policy", "allowed", "action", "actor", "done")


class AuditLog:
    """Write the events of a bus to a file, which is rotated. A check never waits for the disk.

    A thread writes. What it cannot write, because the disk is full or slow, is counted in `dropped`. Each process needs a file of
    its own.

    Args:
        path: The file. Only its owner may read it.
        max_bytes: At which size it is renamed to `path.1`, `path.1` to `path.2`, …; at least 4096.
        backups: How many renamed files are kept, at least 1.
        secret: What identifiers are hashed with, 1 to 64 bytes: the same client has the same 16 digits wherever the secret is the
            same. None: something that this process keeps to itself.
        raw_identifiers: Whether identifiers are written as they are, and an operator's words, which may name one.

    Raises:
        InvalidInputError: If a value is out of range, or the file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 * 2**20,
        backups: int = 4,
        secret: bytes | None = None,
        raw_identifiers: bool = False,
    ) -> None:
        for name, number, least in (("max_bytes", max_bytes, 4096), ("backups", backups, 1)):
            if type(number) is not int:
                raise InvalidTypeError(f"{name}={number!r:.80}: expected a whole number")
            if number < least:
                raise InvalidInputError(f"{name}={number}: expected {least} or more")
        if secret is not None and not 1 <= len(secret) <= 64:  # noqa: PLR2004 - what BLAKE2b takes
            raise InvalidInputError(f"secret: has {len(secret)} bytes, expected 1 to 64")
        self._key = os.urandom(16) if secret is None else bytes(secret)
        self._raw = raw_identifiers
        try:
            self._file = _RotatingFile(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(f"audit log {path}: cannot be opened: {error.strerror or error}") from None
        self._mutex = new_mutex()
        self._lost = 0
        self._begin()
        flush_at_exit(self)

    def _begin(self) -> None:
        self._forks = fork_count()
        self._queue: Queue[str] = Queue(_MAX_WAITING)
        self._writer: Thread | None = None

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._lost + self._file.failures

    def subscribe(self, bus: SubscribableBus) -> None:
        """Listen to a bus. An `InlineEventBus` is right, for nothing here waits."""
        for event_type in _NAMES:
            bus.subscribe(event_type, self._note)

    def flush(self, deadline_s: float) -> None:
        """Wait until all is written; give up when the monotonic clock shows `deadline_s`."""
        while self._queue.unfinished_tasks and self._forks == fork_count() and monotonic_s() < deadline_s:
            sleep(_LOOK_S)

    def close(self) -> None:
        """Write what waits, a second at most, and close the file."""
        self.flush(monotonic_s() + 1.0)
        with suppress(OSError):  # the disk is full: what was not written is counted already
            self._file.close()

    def _note(self, event: RateLimitEvent) -> None:
        if isinstance(event, RateLimitListed) and event.allowed:
            return
        if self._forks != fork_count():  # what was queued before the fork, the parent writes
            self._begin()
        try:
            self._queue.put_nowait(self._line(event))
        except Full:
            self._lost += 1
            return
        if held_here(self._mutex):  # a signal handler in the midst of what follows, which starts the writer
            return
        with self._mutex:
            if self._writer is None:
                self._writer = Thread(target=self._run, name="sluicegate-audit", daemon=True)
                self._writer.start()

    def _line(self, event: RateLimitEvent) -> str:
        fields: dict[str, object] = {
            "time": event.timestamp.isoformat(timespec="milliseconds"),
            "id": str(event.event_id),
            "event": _NAMES[type(event)],
            "endpoint": event.endpoint,
            "identifier": self._masked(event.identifier),
        }
        for name in _OF_EVENTS:
            value = getattr(event, name, None)
            if value is not None:
                fields[name] = None if isinstance(value, float) and isinf(value) else value
        if self._raw and isinstance(event, RateLimitAdministered):
            fields["detail"] = event.detail
        return msgspec.json.encode(fields).decode()

    def _masked(self, identifier: str) -> str:
        if self._raw or not identifier:
            return identifier.encode("utf-8", "replace").decode()
        return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).hexdigest()

    def _run(self) -> None:
        """Write until nothing has come for some time."""
        while True:
            try:
                line = self._queue.get(timeout=_IDLE_S)
            except Empty:
                with self._mutex:
                    if self._queue.empty():
                        self._writer = None
                        return
                continue
            self._file.emit(LogRecord("sluicegate.audit", INFO, "", 0, line, None, None))
            self._queue.task_done()


class _RotatingFile(RotatingFileHandler):
    """The standard library's rotation, in files that only their owner reads, counting what fails."""

    failures = 0

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            Path(self.baseFilename).chmod(0o600)
        return stream

    def handleError(self, record: LogRecord) -> None:  # noqa: ARG002, N802 - logging's name
        self.failures += 1
