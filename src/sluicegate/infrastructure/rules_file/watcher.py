"""Noticing that a file changed: written in place, replaced by an editor, or swapped behind a symbolic link.

The operating system is asked through watchfiles, and whatever it does not tell (a network file system, a link far away, no
watches left) is found by looking every few seconds. Kubernetes mounts a config map as `rules.toml -> ..data/rules.toml` and
swaps `..data`: the directory is watched, not the file.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import Any

from sluicegate.domain.errors import InvalidInputError

_LONGEST_BURST_MS = 500  # a file that is being written for longer is looked at in between


class FileWatcher:
    """Call back when a file may have changed, from a thread of its own.

    After a change there is a second call when the file has come to rest: two writes within one tick of the file system's
    clock look like one. So calls may come without a change; the callback finds out by reading.

    Args:
        path: The file. It need not exist.
        on_change: What to call. What it raises is passed to `on_trouble`.
        on_trouble: What to call with what keeps the watch from working as it should; it goes on by looking.
        poll_seconds: How often to look without being told, above 0.
        quiet_ms: How long nothing may have happened in the directory before a change counts as done, at least 1.
        notify: Whether to ask the operating system at all.

    Raises:
        InvalidInputError: If a number is out of range.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        path: str | os.PathLike[str],
        on_change: Callable[[], object],
        *,
        on_trouble: Callable[[Exception], object] | None = None,
        poll_seconds: float = 2.0,
        quiet_ms: int = 50,
        notify: bool = True,
    ) -> None:
        if not poll_seconds > 0:
            raise InvalidInputError(f"poll_seconds={poll_seconds!r}: expected above 0")
        if quiet_ms < 1:
            raise InvalidInputError(f"quiet_ms={quiet_ms!r}: expected at least 1")
        self._path = Path(path).absolute()
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._poll_seconds = poll_seconds
        self._quiet_ms = quiet_ms
        self._notify = notify
        self._told_trouble = ""
        self._stop = Event()
        self._thread: Thread | None = None
        self._seen = self._signature()

    def start(self) -> None:
        """Begin to watch. A forked child goes on watching by itself."""
        if self._thread is not None:
            return
        if self._notify:
            # Not in the watch's thread: a process that forks while a thread imports leaves the module locked in its child.
            with suppress(ImportError):
                import_module("watchfiles")
        self._begin()
        if hasattr(os, "register_at_fork"):
            again = weakref.WeakMethod(self._begin_in_child)
            os.register_at_fork(after_in_child=lambda: (method := again()) and method())

    def stop(self) -> None:
        """Stop watching, and wait for the thread unless it is the one that calls. Calling it twice is harmless."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not current_thread():
            thread.join()

    def _begin(self) -> None:
        self._stop = Event()
        self._thread = Thread(target=self._run, args=(self._stop,), name="sluicegate-file-watch", daemon=True)
        self._thread.start()

    def _begin_in_child(self) -> None:
        if self._thread is not None:
            self._begin()

    def _run(self, stop: Event) -> None:
        unsettled = True  # the file may have changed between the first reading of it and the first look
        while not stop.is_set():
            real = os.path.realpath(self._path)
            for touched in self._wake_ups(real, stop):
                if stop.is_set():
                    return
                # One system call, not many: each lets go of the interpreter, and a busy one gives it back late.
                signature = self._signature()
                changed = touched or signature != self._seen
                self._seen = signature
                if changed or unsettled:
                    self._call()
                unsettled = changed
                if changed and real != os.path.realpath(self._path):
                    break

    def _wake_ups(self, real: str, stop: Event) -> Iterator[bool]:
        """Yield at once, and whenever it is time to look again: True if the file itself was touched."""
        yield False
        if self._notify:
            directories = sorted({str(self._path.parent), str(Path(real).parent)})
            ours = {str(self._path), real}
            try:
                for events in self._notifications(directories, stop):
                    yield any(name in ours for _, name in events)
            except Exception as error:  # noqa: BLE001 - not installed, no watches left, no such directory: look instead
                self._trouble(error)
            else:
                return
        stop.wait(self._poll_seconds)

    def _notifications(self, directories: list[str], stop: Event) -> Iterator[set[tuple[Any, str]]]:
        watch: Callable[..., Iterator[set[tuple[Any, str]]]] = import_module("watchfiles").watch
        return watch(
            *directories,
            watch_filter=None,
            debounce=_LONGEST_BURST_MS,
            step=self._quiet_ms,
            stop_event=stop,
            rust_timeout=max(1, int(self._poll_seconds * 1000)),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )

    def _call(self) -> None:
        try:
            self._on_change()
        except Exception as error:  # noqa: BLE001 - the watch outlives what it calls
            self._trouble(error)

    def _trouble(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._on_trouble is not None and text != self._told_trouble:
            self._told_trouble = text
            self._on_trouble(error)

    def _signature(self) -> tuple[object, ...]:
        try:
            facts = self._path.stat()
        except OSError as error:
            return (error.errno,)
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns

    def __repr__(self) -> str:
        return f"FileWatcher(path={self._path!r})"
