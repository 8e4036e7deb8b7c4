"""The buses: who gets what, and whose fault stays whose."""

import asyncio
import itertools

import pytest

from sluicegate import (
    BufferedEventBus,
    InlineEventBus,
    InvalidInputError,
    InvalidTypeError,
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitEvent,
)
from sluicegate.testing import RecordingLogger


def attempted(n: int = 0) -> RateLimitCheckAttempted:
    """Make an event."""
    return RateLimitCheckAttempted(endpoint="GET /", identifier=str(n), scope="ip", cost=1)


def test_inline_calls_who_subscribed_to_the_type() -> None:
    """A subscriber gets its type, and everything if it asked for the base."""
    bus, got, everything = InlineEventBus(), [], []
    bus.subscribe(RateLimitCheckAttempted, got.append)
    bus.subscribe(RateLimitEvent, everything.append)
    event = attempted()
    bus.publish(event)
    assert got == everything == [event]
    assert bus.listens(RateLimitCheckAllowed)
    assert not InlineEventBus().listens(RateLimitCheckAllowed)


def test_inline_keeps_faults_apart() -> None:
    """A subscriber that raises is reported, and the next one is called all the same."""
    logger, got = RecordingLogger(), []
    bus = InlineEventBus(logger=logger)
    bus.subscribe(RateLimitEvent, lambda _: 1 / 0)
    bus.subscribe(RateLimitEvent, got.append)
    bus.publish(attempted())
    assert len(got) == 1
    assert [(level, context["error"]) for level, _, context in logger.records] == [("error", "ZeroDivisionError")]


def test_inline_refuses_coroutines() -> None:
    """Nobody could wait for them."""

    async def subscriber(_: RateLimitEvent) -> None: ...

    with pytest.raises(InvalidTypeError, match="needs a BufferedEventBus"):
        InlineEventBus().subscribe(RateLimitEvent, subscriber)


async def test_buffered_delivers_later_and_in_order() -> None:
    """`publish` returns before anybody was called; then all are, functions and coroutines."""
    bus, got = BufferedEventBus(), []

    async def subscriber(event: RateLimitEvent) -> None:
        await asyncio.sleep(0)
        got.append(event)

    bus.subscribe(RateLimitEvent, subscriber)
    events = [attempted(n) for n in range(5)]
    for event in events:
        bus.publish(event)
    assert got == []
    await bus.aclose()
    while len(got) < 5:
        await asyncio.sleep(0)
    assert sorted(got, key=lambda event: event.identifier) == events
    bus.publish(attempted(9))
    while len(got) < 6:
        await asyncio.sleep(0)


async def test_buffered_drops_and_counts_what_does_not_fit() -> None:
    """A queue of three keeps three of ten."""
    bus, got = BufferedEventBus(max_events=3), []
    bus.subscribe(RateLimitEvent, got.append)
    for n in range(10):
        bus.publish(attempted(n))
    assert bus.dropped == 7
    await bus.aclose()
    assert [event.identifier for event in got] == ["0", "1", "2"]
    assert repr(bus) == "BufferedEventBus(queued=0, dropped=7)"


async def test_buffered_lets_other_tasks_run_while_it_delivers() -> None:
    """A long queue is delivered in parts; in between, a task that waits for its turn gets it."""
    bus, got, seen = BufferedEventBus(), [], []
    bus.subscribe(RateLimitEvent, got.append)
    for n in range(1_000):
        bus.publish(attempted(n))

    async def other() -> None:
        while len(got) < 1_000:
            seen.append(len(got))
            await asyncio.sleep(0)

    await other()
    assert len(got) == 1_000
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 100


def test_a_later_subscription_counts() -> None:
    """A type that had no subscriber when it was first asked for gets one."""
    for bus in (InlineEventBus(), BufferedEventBus()):
        assert not bus.listens(RateLimitCheckAttempted)
        bus.subscribe(RateLimitEvent, print)
        assert bus.listens(RateLimitCheckAttempted)


async def test_buffered_gives_up_on_a_subscriber_that_hangs() -> None:
    """The next subscriber and the next event are served, and the log says so."""
    logger, got = RecordingLogger(), []
    bus = BufferedEventBus(subscriber_timeout_s=0.01, logger=logger)

    async def hanging(_: RateLimitEvent) -> None:
        await asyncio.get_running_loop().create_future()

    bus.subscribe(RateLimitEvent, hanging)
    bus.subscribe(RateLimitEvent, got.append)
    bus.publish(attempted())
    await bus.aclose()
    assert len(got) == 1
    assert logger.records[0][2]["error"] == "TimeoutError"


def test_buffered_keeps_what_was_published_without_a_loop() -> None:
    """Events from plain threads wait for a loop; a new loop after an old one drains as well."""
    bus, got = BufferedEventBus(), []
    bus.subscribe(RateLimitEvent, got.append)
    bus.publish(attempted(1))
    assert got == []

    async def publish_and_let_drain() -> None:
        bus.publish(attempted(2))
        await asyncio.sleep(0.01)

    asyncio.run(publish_and_let_drain())
    asyncio.run(publish_and_let_drain())
    assert len(got) == 3


def test_buffered_needs_room() -> None:
    """A queue of nothing is a mistake."""
    with pytest.raises(InvalidInputError, match="max_events=0"):
        BufferedEventBus(max_events=0)


def test_events_order_themselves() -> None:
    """Ids are version 7 and carry the timestamp."""
    first, second = attempted(), attempted()
    assert first.event_id.version == 7
    assert first.event_id < second.event_id
    assert first.timestamp <= second.timestamp
    assert first.timestamp.tzinfo is not None
