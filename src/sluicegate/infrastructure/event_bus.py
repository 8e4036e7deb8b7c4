"""Passing events on to subscribers: at once, or through a bounded queue."""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar, cast

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.protocols import LoggerProtocol

E = TypeVar("E", bound=RateLimitEvent)

Subscriber: TypeAlias = Callable[[RateLimitEvent], object]
"""A function, or a coroutine function, that gets an event."""


class InlineEventBus:
    """Call subscribers inside the check. For tests and for subscribers that only count; others belong on a buffered bus.

    Coroutine functions are refused: there is nobody here who could wait for them.

    Args:
        logger: Who is told of a subscriber that raised; the others are called all the same. None: nobody.
    """

    inline = True

    def __init__(self, *, logger: LoggerProtocol | None = None) -> None:
        self._subscribers = _Subscribers(logger)

    def subscribe(self, event_type: type[E], subscriber: Callable[[E], object]) -> None:
        """Call `subscriber` with each event of a type (`RateLimitEvent`: of every type).

        Raises:
            InvalidTypeError: If the subscriber is a coroutine function.
        """
        if inspect.iscoroutinefunction(subscriber):
            raise InvalidTypeError(f"subscriber={subscriber!r}: a coroutine function needs a BufferedEventBus")
        self._subscribers.add(event_type, cast("Subscriber", subscriber))

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether anybody subscribed to a type of event."""
        return bool(self._subscribers.of(event_type))

    def publish(self, event: RateLimitEvent, /) -> None:
        """Call the subscribers, in the order in which they came."""
        for subscriber in self._subscribers.of(type(event)):
            try:
                subscriber(event)
            except Exception as error:  # noqa: BLE001 - one subscriber's fault keeps no other from its event
                self._subscribers.report(subscriber, event, error)


class BufferedEventBus:
    """Queue events for subscribers that a task calls later; `publish` never waits.

    The task starts when an event meets an empty queue, on the event loop that published it, and ends when the queue is
    empty: there is nothing to start or stop. Events that are published where no loop runs wait for the next one that does,
    or for `aclose`.

    Args:
        max_events: The queue's bound, at least 1. What does not fit is dropped and counted in `dropped`.
        subscriber_timeout_s: The longest that one coroutine may take with one event.
        logger: Who is told of a subscriber that raised or took too long. None: nobody.

    Raises:
        InvalidInputError: If `max_events` is below 1.
    """

    inline = True

    def __init__(
        self,
        *,
        max_events: int = 10_000,
        subscriber_timeout_s: float = 5.0,
        logger: LoggerProtocol | None = None,
    ) -> None:
        if max_events < 1:
            raise InvalidInputError(f"max_events={max_events}: expected at least 1")
        self._queue: deque[RateLimitEvent] = deque()
        self._max_events = max_events
        self._subscriber_timeout_s = subscriber_timeout_s
        self._subscribers = _Subscribers(logger)
        self._drainer: asyncio.Task[None] | None = None
        self.dropped = 0
        """How many events did not fit the queue."""

    def subscribe(self, event_type: type[E], subscriber: Callable[[E], object]) -> None:
        """Call `subscriber`, a function or a coroutine function, with each event of a type."""
        self._subscribers.add(event_type, cast("Subscriber", subscriber))

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether anybody subscribed to a type of event."""
        return bool(self._subscribers.of(event_type))

    def publish(self, event: RateLimitEvent, /) -> None:
        """Queue an event."""
        if len(self._queue) >= self._max_events:
            self.dropped += 1
            return
        self._queue.append(event)
        drainer = self._drainer
        if drainer is None or drainer.done() or drainer.get_loop().is_closed():
            try:
                self._drainer = asyncio.get_running_loop().create_task(self._drain(), name="sluicegate-events")
            except RuntimeError:
                return

    async def aclose(self) -> None:
        """Deliver what is queued, and return."""
        await self._drain()

    async def _drain(self) -> None:
        while self._queue:
            event = self._queue.popleft()
            for subscriber in self._subscribers.of(type(event)):
                try:
                    returned = subscriber(event)
                    if inspect.isawaitable(returned):
                        await self._in_time(returned)
                except Exception as error:  # noqa: BLE001 - one subscriber's fault keeps no other from its event
                    self._subscribers.report(subscriber, event, error)

    async def _in_time(self, awaitable: Awaitable[object]) -> None:
        async with asyncio.timeout(self._subscriber_timeout_s):
            await awaitable

    def __repr__(self) -> str:
        return f"BufferedEventBus(queued={len(self._queue)}, dropped={self.dropped})"


class _Subscribers:
    """Who gets which events."""

    def __init__(self, logger: LoggerProtocol | None) -> None:
        self._logger = logger
        self._added: list[tuple[type[RateLimitEvent], Subscriber]] = []
        self._by_type: dict[type[RateLimitEvent], tuple[Subscriber, ...]] = {}

    def add(self, event_type: type[RateLimitEvent], subscriber: Subscriber) -> None:
        self._added.append((event_type, subscriber))
        self._by_type = {}

    def of(self, event_type: type[RateLimitEvent]) -> tuple[Subscriber, ...]:
        found = self._by_type.get(event_type)
        if found is None:
            found = tuple(subscriber for wanted, subscriber in self._added if issubclass(event_type, wanted))
            self._by_type[event_type] = found
        return found

    def report(self, subscriber: Subscriber, event: RateLimitEvent, error: Exception) -> None:
        if self._logger is not None:
            self._logger.error(
                "A subscriber failed with an event.",
                subscriber=getattr(subscriber, "__qualname__", type(subscriber).__name__),
                event_type=type(event).__name__,
                error=type(error).__name__,
            )
