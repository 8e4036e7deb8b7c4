"""Watch a file, or all files of a directory: written in place, replaced by an editor, or swapped behind a symbolic link.

The operating system reports changes through watchfiles. What it does not report (a network file system, a link to another
directory's link, no watches left) is found by polling every few seconds. Kubernetes mounts a config map as
`rules.toml -> ..data/rules.toml` and swaps `..data`, so the directory is watched, not the file.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import Any

from sluicegate.domain.errors import InvalidInputError

_LONGEST_BURST_MS = 500  # a file that is written for longer than this is read in between


class FileWatcher:
    """Call a function in a background thread when a file may have changed.

    After each change there is a second call once the file is no longer written to, because two writes within one tick of the
    file system's clock look like one. So a call does not prove a change: the callback has to read the file.

    Args:
        path: The file, which need not exist, or a directory.
        on_change: Called when the file may have changed. What it raises is passed to `on_error`.
        on_error: Called with whatever keeps the watcher from working as it should, once for each message. The watcher goes
            on, by polling if it must.
        poll_seconds: Seconds between two polls, above 0.
        quiet_ms: How long the directory must be quiet before a change counts as complete: milliseconds, at least 1.
        notify: Whether to use the operating system's reports; if not, the file is only polled.

    Raises:
        InvalidInputError: If a number is out of range.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        path: str | os.PathLike[str],
        on_change: Callable[[], object],
        *,
        on_error: Callable[[Exception], object] | None = None,
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
        self._on_error = on_error
        self._poll_seconds = poll_seconds
        self._quiet_ms = quiet_ms
        self._notify = notify
        self._last_error = ""
        self._stop = Event()
        self._thread: Thread | None = None
        self._last_signature = self._signature()

    def start(self) -> None:
        """Start to watch. A forked child watches with a thread of its own.

        Where no thread can be started nothing is watched, and `on_error` is told.
        """
        if self._thread is not None:
            return
        if self._notify:
            _warm_up(self._path.anchor)
        self._start_thread()
        if hasattr(os, "register_at_fork"):
            restart = weakref.WeakMethod(self._start_in_child)
            os.register_at_fork(after_in_child=lambda: (method := restart()) and method())

    def stop(self) -> None:
        """Stop watching, and wait for the thread (unless called from it). A second call does nothing."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not current_thread():
            thread.join()

    def _start_thread(self) -> None:
        self._stop = Event()
        thread = Thread(target=self._run, args=(self._stop,), name="sluicegate-file-watch", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # a container's limit of threads: the rules hold that were read
            self._thread = None
            self._report(error)
        else:
            self._thread = thread

    def _start_in_child(self) -> None:
        if self._thread is not None:
            self._start_thread()

    def _run(self, stop: Event) -> None:
        unsettled = True  # the file may have changed between the first time it was read and now
        while not stop.is_set():
            real = os.path.realpath(self._path)
            for reported in self._wake_ups(real, stop):
                if stop.is_set():
                    return
                # One system call, not several: each releases the GIL, and a busy process gets it back late.
                signature = self._signature()
                changed = reported or signature != self._last_signature
                self._last_signature = signature
                if changed or unsettled:
                    self._call()
                unsettled = changed
                if changed and real != os.path.realpath(self._path):
                    break

    def _wake_ups(self, real: str, stop: Event) -> Iterator[bool]:
        """Yield at once and whenever it is time to look again; True if the operating system reported this file."""
        yield False
        if self._notify:
            directories = sorted({str(self._path.parent), str(Path(real).parent)})
            names = {str(self._path), real}
            whole = self._path.is_dir()
            if whole:
                directories = sorted({str(self._path), real})
            try:
                for events in self._notifications(directories, stop):
                    yield bool(events) if whole else any(name in names for _, name in events)
            except Exception as error:  # noqa: BLE001 - not installed, no watches left, no such directory: poll
                self._report(error)
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
        except Exception as error:  # noqa: BLE001 - an error of the callback must not end the watcher
            self._report(error)

    def _report(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._on_error is not None and text != self._last_error:
            self._last_error = text
            self._on_error(error)

    def _signature(self) -> tuple[object, ...]:
        with suppress(OSError):
            if self._path.is_dir():
                return tuple([(file.name, _signature(file)) for file in sorted(self._path.iterdir())])
        return _signature(self._path)

    def __repr__(self) -> str:
        return f"FileWatcher(path={self._path!r})"


@cache
def _warm_up(directory: str) -> None:
    """Import watchfiles and go through its code once, in this thread.

    If the process forks while another thread does either for the first time, the module, or a cell of the library that is filled
    once, stays locked in the child, whose own thread would wait for it for ever.
    """
    stopped = Event()
    stopped.set()
    with suppress(Exception):  # the watching thread meets it again, and reports it
        for _ in import_module("watchfiles").watch(directory, stop_event=stopped, step=1, recursive=False):
            pass


def _signature(path: Path) -> tuple[object, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno,)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
