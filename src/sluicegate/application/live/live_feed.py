"""Take a picture of a limiter once a second, as long as somebody watches, and hand it to all who do."""

import asyncio
from typing import Final

from sluicegate.application.live.live_figures import LiveFigures
from sluicegate.application.live.picture import picture
from sluicegate.application.live.worker_figures import ReadWorkers, WorkerFigures
from sluicegate.runtime.system_clock import utc_now

MAX_LISTENERS: Final = 16
_IDLE_WINDOWS: Final = 3
"""How many windows are measured after the last reader left: a reader that comes back soon gets an answer at once."""


class TooManyListenersError(Exception):
    """As many listen already as may."""


class LiveFeed:
    """Measure while somebody watches. All watchers of a process share its windows.

    A slow listener delays no other: each gets the next picture once it has taken the one before, and misses those between.

    Args:
        read: Returns the figures of the processes.
        processes: How many processes there are.
        window_s: How long a window is, in seconds.
        max_listeners: How many may listen at a time.
    """

    def __init__(
        self, read: ReadWorkers, processes: int = 1, *, window_s: float = 1.0, max_listeners: int = MAX_LISTENERS
    ) -> None:
        self._read = read
        self._processes = processes
        self._window_s = window_s
        self._max_listeners = max_listeners
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[LiveFigures | None] | None = None
        self._waiting = 0
        self._closed = False
        self.listeners = 0
        """How many listen now."""

    async def next(self) -> LiveFigures | None:
        """Return the picture of the window that ends next; None: it was closed."""
        if self._closed:
            return None
        future = self._future()
        self._waiting += 1
        try:
            return await asyncio.shield(future)
        finally:
            self._waiting -= 1

    def listen(self) -> "Listener":
        """Return the pictures from now on, until the feed is closed. The listener must be closed.

        Raises:
            TooManyListenersError: If the most listeners are there already.
        """
        if self.listeners >= self._max_listeners:
            raise TooManyListenersError
        return Listener(self)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        if self._task is not None:
            self._task.cancel()

    def _future(self) -> "asyncio.Future[LiveFigures | None]":
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done():
            self._next = loop.create_future()
            self._task = loop.create_task(self._measure(), name="sluicegate-live")
            self._task.add_done_callback(self._tell_failure)
        elif self._next is None or self._next.done():
            self._next = loop.create_future()
        return self._next

    async def _measure(self) -> None:
        """Measure window after window, until there was no reader for `_IDLE_WINDOWS` of them."""
        idle = 0
        before = await self._read()
        while idle < _IDLE_WINDOWS:
            await asyncio.sleep(self._window_s)
            now = await self._read()
            idle = 0 if self._waiting else idle + 1
            self._publish(now, before)
            before = now

    def _publish(self, now: list[WorkerFigures], before: list[WorkerFigures]) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(picture(now, before, utc_now(), max(0, self._processes - len(now))))

    def _tell_failure(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._next is not None and not self._next.done():
            self._next.set_exception(error)


class Listener:
    """Iterate over the pictures of a feed.

    Args:
        feed: The feed.
    """

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._is_open = True
        feed.listeners += 1

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> LiveFigures:
        figures = await self._feed.next()
        if figures is None:
            raise StopAsyncIteration
        return figures

    def close(self) -> None:
        """Make room for another one."""
        if self._is_open:
            self._is_open = False
            self._feed.listeners -= 1
