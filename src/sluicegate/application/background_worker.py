"""Calls that no check waits for: a thread behind a bounded queue, for listeners that may be slow, hang or raise."""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from threading import Condition, Thread
from typing import Any, cast

_MAX_WAITING = 1_000
_MAX_PENDING = 100  # coroutines of one caller that have been started and are not done


class BackgroundWorker:
    """Run calls in order on a daemon thread that starts with the first one.

    What does not fit the queue is dropped and counted: an observer that cannot keep up loses sight, never slows traffic.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., object], tuple[object, ...], dict[str, object], Any]] = deque()
        self._changed = Condition()
        self._thread: Thread | None = None
        self._pending = 0
        self.dropped = 0
        """How many calls were given up, because too many waited or because they raised."""

    def submit(self, call: Callable[..., object], /, *args: object, **kwargs: object) -> None:
        """Queue a call and return at once. An awaitable that it returns is run on the submitting event loop."""
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                self.dropped += 1
                return
            self._waiting.append((call, args, kwargs, loop))
            if self._thread is None or not self._thread.is_alive():  # not alive: a fork took the queue, not the thread
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
        if loop is None or loop.is_closed() or self._pending >= _MAX_PENDING or not inspect.iscoroutine(awaitable):
            self.dropped += 1
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            return
        self._pending += 1
        asyncio.run_coroutine_threadsafe(self._settle(cast("Coroutine[Any, Any, object]", awaitable)), loop)

    async def _settle(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            await coroutine
        except Exception:  # noqa: BLE001 - the same, for an observer that is a coroutine
            self.dropped += 1
        finally:
            self._pending -= 1
