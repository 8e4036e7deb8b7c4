"""Calls that no check waits for: a thread behind a bounded queue, for listeners that may be slow, hang or raise."""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any

from sluicegate.runtime.mutex import fork_count

_MAX_WAITING = 1_000
_MAX_PENDING = 100  # coroutines of one caller that have been started and are not done


class BackgroundWorker:
    """Run calls in order on a daemon thread that starts with the first one.

    What does not fit the queue is dropped and counted: an observer that cannot keep up loses sight, never slows traffic.
    """

    def __init__(self) -> None:
        self._pending: dict[asyncio.AbstractEventLoop, set[Future[None]]] = {}
        self.dropped = 0
        """How many calls were given up, because too many waited or because they raised."""
        self._begin()

    def _begin(self) -> None:
        self._forks = fork_count()
        self._waiting: deque[tuple[Callable[..., object], tuple[object, ...], dict[str, object], Any]] = deque()
        self._changed = Condition()  # re-entrant: a signal handler may log while its thread is in here
        self._thread: Thread | None = None

    def submit(self, call: Callable[..., object], /, *args: object, **kwargs: object) -> None:
        """Queue a call and return at once. An awaitable that it returns is run on the submitting event loop."""
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if self._forks != fork_count():  # the parent's thread has the queue, and may have held the lock
            self._begin()
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                self.dropped += 1
                return
            self._waiting.append((call, args, kwargs, loop))
            if self._thread is None:
                self._thread = Thread(target=self._run, name="sluicegate-observers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                call, args, kwargs, loop = self._waiting.popleft()
            try:
                returned = call(*args, **kwargs)
                if inspect.isawaitable(returned):
                    self._hand_over(returned, loop)
            except Exception:  # noqa: BLE001 - an observer's fault is counted, and stays its own
                self.dropped += 1

    def _hand_over(self, awaitable: object, loop: asyncio.AbstractEventLoop | None) -> None:
        for closed in [known for known in self._pending if known.is_closed()]:
            del self._pending[closed]
        if not inspect.iscoroutine(awaitable):
            self.dropped += 1
            return
        pending: set[Future[None]] = set() if loop is None else self._pending.setdefault(loop, set())
        if loop is None or loop.is_closed() or len(pending) >= _MAX_PENDING:
            self.dropped += 1
            awaitable.close()
            return
        try:
            future = asyncio.run_coroutine_threadsafe(self._settle(awaitable), loop)
        except RuntimeError:  # it was closed a moment ago
            awaitable.close()
            raise
        pending.add(future)
        future.add_done_callback(pending.discard)

    async def _settle(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            await coroutine
        except Exception:  # noqa: BLE001 - the same, for an observer that is a coroutine
            self.dropped += 1
