"""The storage went away and came back: told once, whatever face asks."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sluicegate import (
    MemoryStorage,
    RateLimitRule,
    RateLimitStorageRecovered,
    StorageError,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.application.joint_check import Part
from sluicegate.application.outage import Outage
from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.testing import FakeClock, RecordingEventBus, RecordingLogger
from support.awaited_storage import AwaitedStorage

LINE = "The storage answers again."
RULES = {"GET /": RateLimitRule(1000, 1000, "ip"), "GET /shadow": RateLimitRule(1000, 1000, "ip", shadow=True)}


class _MovingStorage(AwaitedStorage):
    """A storage that a test takes away and brings back."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        for verb in ("peek_blocking", "refund_blocking", "reset_blocking", "settle", "extend"):
            setattr(self, verb, getattr(self._memory, verb))

    def _require(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def take(self, requests: Any, /) -> Verdict:
        self._require()
        return await self._memory.take(requests)

    def take_blocking(self, requests: Any) -> Verdict:
        self._require()
        return self._memory.take_blocking(requests)

    async def reserve(self, requests: Any, number: int, terms: Any) -> Verdict:
        self._require()
        return await self._memory.reserve(requests, number, terms)


class _World:
    def __init__(self) -> None:
        self.storage, self.clock = _MovingStorage(), FakeClock()
        self.bus, self.logger = RecordingEventBus(), RecordingLogger()
        shared: dict[str, Any] = {"rules": RULES, "event_bus": self.bus, "logger": self.logger, "clock": self.clock}
        self.limiter = TokenBucketAdapter(storage=self.storage, **shared)
        self.sync = SyncTokenBucketAdapter(storage=self.storage, **shared)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [context for _, message, context in self.logger.records if message == LINE]

    @property
    def events(self) -> list[RateLimitStorageRecovered]:
        return [event for event in self.bus.events if isinstance(event, RateLimitStorageRecovered)]


async def _is_allowed(world: _World) -> None:
    await world.limiter.is_allowed(endpoint="GET /", identifier="a")


async def _sync(world: _World) -> None:
    world.sync.is_allowed(endpoint="GET /", identifier="a")


async def _reserve(world: _World) -> None:
    await world.limiter.reserve(endpoint="GET /", identifier="a", cost=1, ttl_seconds=1)


async def _together(world: _World) -> None:
    await world.limiter.check_together([Part("GET /", "a"), Part("GET /", "b")])


async def _shadow(world: _World) -> None:
    await world.limiter.is_allowed(endpoint="GET /shadow", identifier="a")


@pytest.mark.parametrize("ask", [_is_allowed, _sync, _reserve, _together, _shadow])
async def test_each_face_tells_it_once(ask: Callable[[_World], Awaitable[None]]) -> None:
    """With the time between the first failure and the first answer, and the number of failures."""
    world = _World()
    await ask(world)
    world.storage.fault = StorageError("connection", "gone")
    await ask(world)
    world.clock.advance(7)
    await ask(world)
    world.storage.fault = None
    world.clock.advance(0.5)
    await ask(world)
    assert world.told == []
    world.clock.advance(0.5)
    for _ in range(3):
        await ask(world)
    failures = 4 if ask is _together else 2
    assert [(one["away_s"], one["failures"]) for one in world.told] == [(7.5, failures)]
    assert [(event.away_seconds, event.failures) for event in world.events] == [(7.5, failures)]


async def test_each_outage_is_told() -> None:
    """The second has its own beginning."""
    world = _World()
    for _ in range(2):
        world.storage.fault = StorageError("timeout", "late")
        await _is_allowed(world)
        world.storage.fault = None
        world.clock.advance(3)
        await _is_allowed(world)
        world.clock.advance(100)
    assert [one["away_s"] for one in world.told] == [3, 3]


async def test_answers_between_failures_are_no_end() -> None:
    """Of a cluster some nodes answer while others do not."""
    world = _World()
    for _ in range(20):
        world.storage.fault = StorageError("connection", "gone")
        await _is_allowed(world)
        world.storage.fault = None
        world.clock.advance(0.3)
        await _is_allowed(world)
    assert world.told == []


async def test_what_was_decided_without_the_storage_is_no_end() -> None:
    """Leases and cached denials go on while the storage is away."""
    world = _World()
    nowait = MemoryStorage()
    world.storage.fault = StorageError("connection", "gone")
    await _is_allowed(world)
    world.clock.advance(5)

    def take_nowait(requests: Any) -> Verdict | None:
        return nowait.take_nowait(requests)

    world.limiter._checker._take_nowait = take_nowait
    await _is_allowed(world)
    assert world.told == []


def test_a_storage_that_never_waits_shows_it_with_each_answer() -> None:
    """Such as the one in shared memory, whose file may have been away."""
    logger, clock, storage = RecordingLogger(), FakeClock(), MemoryStorage()
    limiter = SyncTokenBucketAdapter(storage=storage, rules=RULES, logger=logger, clock=clock)
    limiter._checker.failure_policy.outage.note_failure("connection")
    clock.advance(2)
    limiter.is_allowed(endpoint="GET /", identifier="a")
    assert [context["away_s"] for _, message, context in logger.records if message == LINE] == [2]


@pytest.mark.parametrize("reason", ["loop_busy", "no_thread", "interrupted", "overload"])
def test_failures_of_this_process_are_no_outage(reason: str) -> None:
    """The storage was there all the time."""
    outage = Outage(FakeClock())
    outage.note_failure(reason)
    assert not outage.is_on


async def test_many_callers_are_told_of_it_once() -> None:
    """Threads that see the first answers at the same time."""
    world = _World()
    world.storage.fault = StorageError("connection", "gone")
    await _is_allowed(world)
    world.storage.fault = None
    world.clock.advance(2)
    await asyncio.gather(
        *[asyncio.to_thread(world.sync.is_allowed, endpoint="GET /", identifier="a") for _ in range(20)]
    )
    await asyncio.gather(*[_is_allowed(world) for _ in range(20)])
    assert len(world.told) == 1
