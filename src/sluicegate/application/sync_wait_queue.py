"""Waiting for one's turn in threads; see `wait_queue.py`."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import TIMEOUT_MAX, Lock
from typing import TypeAlias
from weakref import WeakValueDictionary

from sluicegate.application.wait_queue import SlotTimeoutError, pause_before_turn, queue_name, require_timeout
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.result import RateLimitResult
from sluicegate.runtime.mutex import new_mutex
from sluicegate.runtime.system_clock import monotonic_s

Ask: TypeAlias = Callable[[], RateLimitResult]
"""Try to take the tokens."""


class SyncWaitQueue:
    """Queues of threads that wait, one for each endpoint and identifier, first come, first served; as `WaitQueue` for tasks."""

    def __init__(self) -> None:
        self._mutex = new_mutex()
        self._queues: WeakValueDictionary[tuple[object, ...], _Line] = WeakValueDictionary()

    def wait(self, ask: Ask, endpoint: str, identifier: Identifier, timeout_s: float | None) -> RateLimitResult:
        """Return when the tokens are taken.

        Raises:
            SlotTimeoutError: If that cannot be, or was not, within the timeout; at once where it is known beforehand.
            InvalidInputError: If the timeout is negative or no number.
        """
        require_timeout(timeout_s)
        deadline_s = math.inf if timeout_s is None else monotonic_s() + timeout_s
        # A forked child starts with empty queues: the parent's waiting threads do not exist in it.
        key = (os.getpid(), endpoint, queue_name(identifier))
        with self._mutex:
            line = self._queues.get(key)
            if line is None:
                line = self._queues[key] = _Line()
        if not line.enter(timeout_s):
            raise SlotTimeoutError(endpoint, math.nan)
        try:
            while True:
                result = ask()
                if result.allowed:
                    return result
                time.sleep(pause_before_turn(result, endpoint, monotonic_s(), deadline_s))
        finally:
            line.leave()

    @contextmanager
    def slot(
        self, ask: Ask, endpoint: str, identifier: Identifier, timeout_s: float | None
    ) -> Generator[RateLimitResult]:
        """Wait, then run the body of a `with`. The tokens stay taken, whatever comes of the body."""
        yield self.wait(ask, endpoint, identifier, timeout_s)


class _Line:
    """A lock that is passed on in the order in which it was asked for, which those of `threading` do not promise."""

    def __init__(self) -> None:
        self._mutex = new_mutex()
        self._taken = False
        self._waiting: deque[Lock] = deque()

    def enter(self, timeout_s: float | None) -> bool:
        """Return whether it is this thread's turn, in time."""
        with self._mutex:
            if not self._taken:
                self._taken = True
                return True
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            came = turn.acquire(timeout=-1 if timeout_s is None else min(timeout_s, TIMEOUT_MAX))
        except BaseException:
            if not self._left(turn):
                self.leave()
            raise
        return came or not self._left(turn)

    def _left(self, turn: Lock) -> bool:
        """Leave the line; return False if the turn had come meanwhile."""
        with self._mutex:
            waited = turn in self._waiting
            if waited:
                self._waiting.remove(turn)
        return waited

    def leave(self) -> None:
        """Pass the turn on."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
