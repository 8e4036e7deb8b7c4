"""Call functions later, in a thread of their own: for holds of code without an event loop."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Condition, Thread
from typing import Final

from sluicegate.runtime.mutex import fork_count
from sluicegate.runtime.system_clock import reader_ns

_FEW: Final = 100  # cancelled calls that may lie about


class Later:
    """A call that is still to come.

    Args:
        function: What is called.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function


class Renewer:
    """Call functions at their time. The thread starts with the first one, and anew in a forked child, which inherits no calls."""

    def __init__(self) -> None:
        self._now_ns = reader_ns(None)
        self._order = count()
        self._fork = fork_count()
        self._changed = Condition()
        self._due: list[tuple[int, int, Later]] = []
        self._thread: Thread | None = None
        self._cancelled = 0

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Later:
        """Call a function in so many seconds. What it raises is reported as what a thread raises, and harms no other call.

        Where no thread can be started it is called late: when a later call can start one.
        """
        self._forget_the_parent()
        later = Later(function)
        with self._changed:
            heappush(self._due, (self._now_ns() + round(delay_s * 1e9), next(self._order), later))
            if self._thread is None:
                self._start_thread()
            self._changed.notify()
        return later

    def cancel(self, later: Later) -> None:
        """Do not call a function any more. A call that has begun goes on."""
        later.function = None
        self._forget_the_parent()
        with self._changed:
            self._cancelled += 1
            if self._cancelled > max(_FEW, len(self._due) // 2):
                self._due = [one for one in self._due if one[2].function is not None]
                heapify(self._due)
                self._cancelled = 0

    def _forget_the_parent(self) -> None:
        """In a child, leave the calls to the parent, and a lock that one of its threads may have held."""
        if self._fork != fork_count():
            self._fork, self._changed = fork_count(), Condition()
            self._due, self._thread, self._cancelled = [], None, 0

    def _start_thread(self) -> None:
        thread = Thread(target=self._run, name="sluicegate-renewals", daemon=True)
        with suppress(RuntimeError):  # a container's limit of threads, or the end of the interpreter
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            function = self._next()
            if function is not None:
                try:
                    function()
                except Exception:  # noqa: BLE001 - the holds of all other callers need this thread
                    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._due:
                self._changed.wait()
            wait_ns = self._due[0][0] - self._now_ns()
            if wait_ns > 0:
                self._changed.wait(wait_ns / 1e9)
                return None
            return heappop(self._due)[2].function


RENEWER = Renewer()
"""The one of this process."""
