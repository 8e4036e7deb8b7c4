"""What was to be told is told when the interpreter exits or a limiter is closed, within a bound."""

import asyncio
import subprocess
import sys
import threading

import pytest

from sluicegate import (
    BufferedEventBus,
    MemoryStorage,
    RateLimitEvent,
    RateLimitRule,
    StorageError,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.application.background_worker import BackgroundWorker
from sluicegate.testing import RecordingLogger

RULES = {"GET /": RateLimitRule(5, 5, "ip")}

START = """
import asyncio, logging, sys, time
from sluicegate import *
from sluicegate.testing import FailingStorage
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
rules = {"GET /": RateLimitRule(5, 5, "ip")}
"""
RESETS = """
limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=rules)
for n in range(300):
    limiter.reset(endpoint="GET /", identifier=str(n))
"""
WARNINGS = """
limiter = TokenBucketAdapter(storage=FailingStorage(), rules=rules)
asyncio.run(limiter.is_allowed(endpoint="GET /", identifier="a"))
"""
EVENTS = """
bus = BufferedEventBus()
bus.subscribe(RateLimitEvent, lambda event: print("plain", event.identifier))
async def subscriber(event):
    await asyncio.sleep(0)
    print("coroutine", event.identifier)
bus.subscribe(RateLimitEvent, subscriber)
limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=rules, event_bus=bus)
for n in range(100):
    limiter.is_allowed(endpoint="GET /", identifier=str(n))
"""
HANGING = """
import threading
class Hanging:
    def write(self, message, **context):
        print("called", flush=True)
        threading.Event().wait()
    debug = info = warning = error = write
limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=rules, logger=Hanging())
limiter.reset(endpoint="GET /", identifier="a")
bus = BufferedEventBus()
async def subscriber(event):
    print("heard", flush=True)
    await asyncio.get_running_loop().create_future()
bus.subscribe(RateLimitEvent, subscriber)
bus.publish(RateLimitEvent(endpoint="a", identifier="b", scope="ip"))
"""


def output_of(script: str) -> list[str]:
    """Return the lines that a script prints before its interpreter has exited."""
    ended = subprocess.run(
        [sys.executable, "-c", START + script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.mark.parametrize("_", range(3))
@pytest.mark.parametrize(
    ("script", "beginning", "lines"),
    [
        (RESETS, "Rate limit reset done.", 300),
        (WARNINGS, "The storage could not decide", 1),
        (EVENTS, "plain", 200),
        (EVENTS, "coroutine", 200),
    ],
)
def test_nothing_is_lost_at_exit(script: str, beginning: str, lines: int, _: int) -> None:
    """The last lines and events of a script arrive, though it ends as soon as it has caused them."""
    assert sum(line.startswith(beginning) for line in output_of(script)) == lines


def test_a_logger_that_hangs_does_not_keep_the_process_alive() -> None:
    """Nor does a subscriber that never returns to the event loop."""
    assert output_of(HANGING) == ["called", "heard"]


def test_a_closed_limiter_has_told_everything() -> None:
    """`aclose` waits for a logger in a thread, for a bus of coroutines and for a buffered bus; `close` for the logger."""
    told: list[object] = []

    class Slow(RecordingLogger):
        inline = False

        def info(self, message: str, /, **context: object) -> None:
            threading.Event().wait(0.001)
            told.append(message)

    class AsyncBus:
        def listens(self, _: type[RateLimitEvent], /) -> bool:
            return True

        async def publish(self, event: RateLimitEvent, /) -> None:
            await asyncio.sleep(0.001)
            told.append(event)

    async def use(bus: object) -> None:
        limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=RULES, event_bus=bus, logger=Slow())  # type: ignore[arg-type]
        for n in range(20):
            await limiter.is_allowed(endpoint="GET /", identifier=str(n))
            await limiter.reset(endpoint="GET /", identifier=str(n))
        await limiter.aclose()

    buffered = BufferedEventBus()
    buffered.subscribe(RateLimitEvent, told.append)
    for bus in (AsyncBus(), buffered):
        told.clear()
        asyncio.run(use(bus))
        assert len(told) == 60
    told.clear()
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES, logger=Slow())
    for n in range(20):
        limiter.reset(endpoint="GET /", identifier=str(n))
    limiter.close()
    assert len(told) == 20


async def test_closing_does_not_wait_for_a_bus_that_hangs() -> None:
    """It gives up, and raises what the storage raised."""

    class Bus(BufferedEventBus):
        async def flush_from_loop(self) -> None:
            await asyncio.get_running_loop().create_future()

    class Stubborn(MemoryStorage):
        async def aclose(self) -> None:
            raise StorageError("connection")

    limiter = TokenBucketAdapter(storage=Stubborn(), rules=RULES, event_bus=Bus())
    with pytest.raises(StorageError):
        await asyncio.wait_for(limiter.aclose(), 30)


# Threads


def test_where_no_thread_can_be_started_nothing_is_raised_and_nothing_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container at its limit of processes: the same answers, and what was to be told is told later."""
    heard: list[RateLimitEvent] = []

    class Bus:
        def listens(self, _: type[RateLimitEvent], /) -> bool:
            return True

        def publish(self, event: RateLimitEvent, /) -> None:
            heard.append(event)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES, event_bus=Bus())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        passed = [limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed for _ in range(7)]
        assert passed == [True] * 5 + [False] * 2
        assert heard == []
    limiter.is_allowed(endpoint="GET /", identifier="a")
    limiter.close()
    assert len(heard) == 16


def test_an_idle_thread_ends_and_another_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limiter that has nothing to tell keeps no thread; what comes when it ends is not left lying."""
    monkeypatch.setattr("sluicegate.application.background_worker._IDLE_S", 0.000_1)
    worker, called = BackgroundWorker(), []
    for n in range(2_000):
        worker.submit(called.append, n)
        if n % 3 == 0:
            threading.Event().wait(0.000_1)
    worker.flush(threading.TIMEOUT_MAX)
    assert sorted(called) == list(range(2_000))


def test_a_coroutine_listener_hears_from_each_of_many_event_loops() -> None:
    """2,000 `asyncio.run`, one after the other: the bus is told of the last as of the first, and keeps no loop."""
    worker, heard = BackgroundWorker(), [0]

    async def listen() -> None:
        heard[0] += 1

    async def use(*, wait: bool) -> None:
        before = heard[0]
        worker.submit(listen)
        while wait and heard[0] == before:
            await asyncio.sleep(0)

    for n in range(2_000):
        asyncio.run(use(wait=n % 200 == 199))
    assert heard[0] >= 10
    assert len(worker._pending) <= 2
