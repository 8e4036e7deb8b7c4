"""Deliver events to subscribers: inside the check, or later through a bounded queue."""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeAlias, TypeVar, cast

from sluicegate.domain.collaborators import require_observers
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.protocols import LoggerProtocol
from sluicegate.runtime.at_exit import flush_at_exit
from sluicegate.runtime.mutex import fork_count
from sluicegate.runtime.system_clock import monotonic_s

E = TypeVar("E", bound=RateLimitEvent)

Subscriber: TypeAlias = Callable[[RateLimitEvent], object]
"""A function or coroutine function that is called with an event."""

_EVENTS_PER_TURN = 100  # delivered by the buffered bus before other tasks of the event loop run


class InlineEventBus:
    """Call subscribers inside the check: for tests and for subscribers that only count. Others belong on a buffered bus.

    Coroutine functions are refused, because nothing here could await them.

    Args:
        logger: Gets a line for each subscriber that raised; the others are called all the same. None: no line.
    """

    inline = True

    def __init__(self, *, logger: LoggerProtocol | None = None) -> None:
        require_observers(None, logger)
        self._subscribers = _Subscribers(logger)
        self._by_type = _ByType([])

    def subscribe(self, event_type: type[E], subscriber: Callable[[E], object]) -> None:
        """Call `subscriber` with each event of a type (`RateLimitEvent`: of every type).

        Raises:
            InvalidTypeError: If the subscriber is a coroutine function.
        """
        if inspect.iscoroutinefunction(subscriber):
            raise InvalidTypeError(f"subscriber={subscriber!r:.80}: a coroutine function needs a BufferedEventBus")
        self._by_type = self._subscribers.add(event_type, cast("Subscriber", subscriber))

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether a type of event has a subscriber."""
        return bool(self._by_type[event_type])

    def publish(self, event: RateLimitEvent, /) -> None:
        """Call the subscribers, in the order in which they subscribed."""
        for subscriber in self._by_type[type(event)]:
            try:
                subscriber(event)
            except Exception as error:  # noqa: BLE001 - the other subscribers still get the event
                self._subscribers.report(subscriber, event, error)


class BufferedEventBus:
    """Queue events for subscribers, which a task calls later; `publish` never waits.

    The task starts when an event is published on an event loop and no task is running, and ends when the queue is empty:
    there is nothing to start or stop. Events published where no loop runs wait for the next event published on one, for
    `aclose`, or for the interpreter's exit, which takes a second for them at most.

    Args:
        max_events: How many events the queue holds, at least 1. More are dropped and counted in `dropped`.
        subscriber_timeout_s: The longest that one coroutine may take for one event, in seconds.
        logger: Gets a line for each subscriber that raised or took too long. None: no line.

    Raises:
        InvalidInputError: If `max_events` is below 1, or the timeout not above 0.
        InvalidTypeError: If an argument is of the wrong type.
    """

    inline = True

    def __init__(
        self,
        *,
        max_events: int = 10_000,
        subscriber_timeout_s: float = 5.0,
        logger: LoggerProtocol | None = None,
    ) -> None:
        if type(max_events) is not int:
            raise InvalidTypeError(f"max_events={max_events!r:.80}: expected a whole number")
        if max_events < 1:
            raise InvalidInputError(f"max_events={max_events}: expected at least 1")
        if isinstance(subscriber_timeout_s, bool) or not isinstance(subscriber_timeout_s, int | float):
            raise InvalidTypeError(f"subscriber_timeout_s={subscriber_timeout_s!r:.80}: expected seconds")
        if not 0 < subscriber_timeout_s < inf:
            raise InvalidInputError(f"subscriber_timeout_s={subscriber_timeout_s}: expected above 0")
        require_observers(None, logger)
        self._max_events = max_events
        self._subscriber_timeout_s = subscriber_timeout_s
        self._subscribers = _Subscribers(logger)
        self._by_type = _ByType([])
        self._begin()
        self.dropped = 0
        """How many events found the queue full."""
        flush_at_exit(self)

    def _begin(self) -> None:
        self._forks = fork_count()
        self._queue: deque[RateLimitEvent] = deque()
        self._drainer: asyncio.Task[None] | None = None

    def subscribe(self, event_type: type[E], subscriber: Callable[[E], object]) -> None:
        """Call `subscriber`, a function or a coroutine function, with each event of a type."""
        self._by_type = self._subscribers.add(event_type, cast("Subscriber", subscriber))

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether a type of event has a subscriber."""
        return bool(self._by_type[event_type])

    def publish(self, event: RateLimitEvent, /) -> None:
        """Queue an event."""
        if self._forks != fork_count():  # what was queued before the fork, the parent delivers
            self._begin()
        if len(self._queue) >= self._max_events:
            self.dropped += 1
            return
        self._queue.append(event)
        drainer = self._drainer
        if drainer is None or drainer.done() or not drainer.get_loop().is_running():
            try:
                self._drainer = asyncio.get_running_loop().create_task(self._drain(), name="sluicegate-events")
            except RuntimeError:
                return

    async def aclose(self) -> None:
        """Deliver the queued events."""
        await self._drain()

    async def flush_from_loop(self) -> None:
        """Deliver the queued events: what a limiter does with its bus when it is closed."""
        await self._drain()

    def flush(self, deadline_s: float) -> None:
        """Deliver the queued events where no event loop runs; give up when the monotonic clock shows `deadline_s`."""

        async def drain() -> None:
            async with asyncio.timeout(max(0.0, deadline_s - monotonic_s())):
                await self._drain()

        if self._queue:
            asyncio.run(drain())

    async def _drain(self) -> None:
        if self._forks != fork_count():
            self._begin()
        delivered = 0
        while self._queue:
            event = self._queue.popleft()
            for subscriber in self._by_type[type(event)]:
                try:
                    returned = subscriber(event)
                    if inspect.isawaitable(returned):
                        await self._await_in_time(returned)
                except Exception as error:  # noqa: BLE001 - the other subscribers still get the event
                    self._subscribers.report(subscriber, event, error)
            delivered += 1
            if delivered % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _await_in_time(self, awaitable: Awaitable[object]) -> None:
        async with asyncio.timeout(self._subscriber_timeout_s):
            await awaitable

    def __repr__(self) -> str:
        return f"BufferedEventBus(queued={len(self._queue)}, dropped={self.dropped})"


class _ByType(dict[type[RateLimitEvent], tuple[Subscriber, ...]]):
    """The subscribers of each type of event, collected when a type is first looked up.

    Args:
        added: What was subscribed: types, base classes included, and subscribers.
    """

    def __init__(self, added: list[tuple[type[RateLimitEvent], Subscriber]]) -> None:
        super().__init__()
        self._added = added

    def __missing__(self, event_type: type[RateLimitEvent]) -> tuple[Subscriber, ...]:
        found = tuple(subscriber for wanted, subscriber in self._added if issubclass(event_type, wanted))
        self[event_type] = found
        return found


class _Subscribers:
    """What both buses share: subscriptions, and reports of subscribers that raised."""

    def __init__(self, logger: LoggerProtocol | None) -> None:
        self._logger = logger
        self._added: list[tuple[type[RateLimitEvent], Subscriber]] = []

    def add(self, event_type: type[RateLimitEvent], subscriber: Subscriber) -> _ByType:
        """Return a new table: what another thread is adding to the old one at this moment may be out of date.

        Raises:
            InvalidTypeError: If it is no type of event, or nothing that can be called.
        """
        if not isinstance(event_type, type) or not issubclass(event_type, RateLimitEvent):
            raise InvalidTypeError(f"event_type={event_type!r:.80}: expected RateLimitEvent or one of its subclasses")
        if not callable(subscriber):
            raise InvalidTypeError(f"subscriber={subscriber!r:.80}: expected a function of an event")
        self._added.append((event_type, subscriber))
        return _ByType(self._added)

    def report(self, subscriber: Subscriber, event: RateLimitEvent, error: Exception) -> None:
        if self._logger is not None:
            self._logger.error(
                "A subscriber failed with an event.",
                subscriber=getattr(subscriber, "__qualname__", type(subscriber).__name__),
                event_type=type(event).__name__,
                error=type(error).__name__,
            )
