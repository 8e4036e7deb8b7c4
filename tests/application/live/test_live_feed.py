"""The feed: it measures only while somebody watches, holds up for nobody, and comes to an end."""

import asyncio
from datetime import UTC, datetime

import pytest

from sluicegate.application.live.live_feed import LiveFeed, TooManyListenersError
from sluicegate.application.live.live_figures import LiveFigures
from sluicegate.application.live.worker_figures import WorkerFigures
from support.live_figures import worker_figures

ALLOWED = ("GET /a", "p", "allowed", "quota")


class Source:
    """A process that decides ten checks between two looks at it, which are a second apart."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False

    async def __call__(self) -> list[WorkerFigures]:
        """Return its figures."""
        if self.fails:
            raise OSError("gone")
        self.reads += 1
        return [worker_figures({ALLOWED: 10 * self.reads}, read_us=self.reads * 1_000_000)]


async def test_it_measures_windows_while_somebody_watches_and_then_stops() -> None:
    """All who watch get the same picture; nobody looks at the limiter when nobody watches."""
    source = Source()
    feed = LiveFeed(source, processes=3, window_s=0)
    one, other = await asyncio.gather(feed.next(), feed.next())
    assert one is not None
    assert one is other
    assert (one.traffic.allowed, one.traffic.allowed_per_second, one.workers_missing) == (20, 10, 2)
    assert one.at <= datetime.now(UTC)
    task = feed._task
    assert task is not None
    await asyncio.wait_for(asyncio.shield(task), 10)
    reads = source.reads
    await asyncio.sleep(0.01)
    assert source.reads == reads
    again = await feed.next()
    assert again is not None
    assert again.traffic.allowed_per_second == 10


async def test_a_listener_that_takes_nothing_holds_up_nobody_and_gets_the_latest() -> None:
    """Nothing is kept for it."""
    feed = LiveFeed(Source(), window_s=0)
    slow, quick = feed.listen(), feed.listen()
    first = await anext(slow)
    for _ in range(20):
        last = await anext(quick)
    caught_up = await anext(slow)
    assert first.traffic.allowed < last.traffic.allowed < caught_up.traffic.allowed
    for listener in (slow, quick):
        listener.close()


async def test_no_more_may_listen_than_there_is_room_for() -> None:
    """Until one of them closes, once."""
    feed = LiveFeed(Source(), window_s=0, max_listeners=2)
    first, _ = feed.listen(), feed.listen()
    with pytest.raises(TooManyListenersError):
        feed.listen()
    first.close()
    first.close()
    feed.listen()
    with pytest.raises(TooManyListenersError):
        feed.listen()


async def test_all_who_watch_come_to_an_end_when_it_is_closed() -> None:
    """Those that wait, and those that come later."""
    feed = LiveFeed(Source(), window_s=3600)

    async def watch() -> list[LiveFigures]:
        return [one async for one in feed.listen()]

    watching = asyncio.create_task(watch())
    asked = asyncio.create_task(feed.next())
    while feed._waiting < 2:
        await asyncio.sleep(0)
    feed.close()
    assert (await watching, await asked, await feed.next()) == ([], None, None)


async def test_a_failure_is_told_to_those_who_wait_and_it_begins_again() -> None:
    """Nobody waits for ever."""
    source = Source()
    source.fails = True
    feed = LiveFeed(source, window_s=0)
    with pytest.raises(OSError, match="gone"):
        await feed.next()
    source.fails = False
    assert await feed.next() is not None


def test_it_can_be_used_in_one_event_loop_after_another() -> None:
    """As test clients of applications do."""
    feed = LiveFeed(Source(), window_s=0)
    for _ in range(2):
        assert asyncio.run(feed.next()) is not None
