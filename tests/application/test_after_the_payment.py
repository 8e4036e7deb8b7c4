"""Nothing raises once a check was paid: a caller that asked again would be charged twice."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import sluicegate
from sluicegate import (
    MemoryStorage,
    RateLimitRule,
    RuleBook,
    StorageError,
    Success,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.domain.rules.rule_book_entries import Override
from sluicegate.testing import FakeClock, RecordingEventBus, RecordingLogger
from support.awaited_storage import AwaitedStorage

LOGIN = "POST /login"
RULES = RuleBook(
    {LOGIN: (RateLimitRule(5, 5, "ip", name="few"), RateLimitRule(9, 9, "ip", name="shadow", shadow=True))},
    overrides=[
        Override(
            policy="few", identifier="192.0.2.1", rule=RateLimitRule(5, 5, "ip"), until=datetime(2100, 1, 1, tzinfo=UTC)
        )
    ],
)


class Breaking:
    """A clock, a wall clock, a bus and a logger in one, which work until they are broken."""

    inline = True
    is_broken = False
    how: Callable[[], object] = lambda _: 1 / 0

    def now_us(self) -> Any:
        """Tell an instant."""
        return self.how() if self.is_broken else 1_000_000

    def __call__(self) -> Any:
        """Tell an instant of the wall clock."""
        return self.how() if self.is_broken else datetime(2026, 1, 1, tzinfo=UTC)

    def listens(self, _: type) -> Any:
        """Listen to everything."""
        return self.how() if self.is_broken else True

    def publish(self, _: object) -> None:
        """Take an event."""
        if self.is_broken:
            self.how()

    def debug(self, _: str, /, **__: object) -> None:
        """Take a line."""
        if self.is_broken:
            self.how()

    info = warning = error = debug


class Deferring(Breaking):
    """A bus and a logger that are called from a thread."""

    inline = False


class Lying(Breaking):
    """A clock that tells no number, and a wall clock without a zone."""

    how = lambda _: "noon"  # noqa: E731


class UnspeakableError(StorageError):
    """An error of a storage that cannot be described."""

    def __init__(self) -> None:
        pass

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Raise."""
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


PARTS: dict[str, Any] = {
    f"{kind.__name__} {part}": (kind, part)
    for kind, parts in {
        Breaking: ("clock", "wall_clock", "event_bus", "logger"),
        Lying: ("clock", "wall_clock"),
        Deferring: ("event_bus", "logger"),
    }.items()
    for part in parts
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("storage", [MemoryStorage, AwaitedStorage])
async def test_parts_that_break(part: str, storage: Any) -> None:
    """Checks are charged once and answered, singly and together, whatever part of the limiter breaks."""
    kind, field = PARTS[part]
    breaking = kind()
    options: dict[str, Any] = {"event_bus": RecordingEventBus(), "logger": RecordingLogger()} | {field: breaking}
    limiter = TokenBucketAdapter(storage=storage(clock=FakeClock()), rules=RULES, **options)
    breaking.is_broken = True
    for identifier in ("a", "192.0.2.1"):
        for left in (4, 3, 2):
            assert (await limiter.is_allowed(endpoint=LOGIN, identifier=identifier)).value.remaining == left
        decision = await limiter.check(endpoint=LOGIN, identifier=identifier)
        assert (decision.result.remaining, decision.degraded) == (1, None)
        assert await limiter.refund(endpoint=LOGIN, identifier=identifier) == Success(None)
        assert await limiter.reset(endpoint=LOGIN, identifier=identifier) == Success(None)
        if storage is MemoryStorage:  # the other has no reservations
            reserved = await limiter.reserve(endpoint=LOGIN, identifier=identifier, cost=2, ttl_seconds=60)
            assert reserved.value.result.remaining == 3
            assert (await limiter.commit(reserved.value, cost=1)).value.charged == 1
            assert await limiter.get_remaining(endpoint=LOGIN, identifier=identifier) == Success(4)


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_break_without_a_loop(part: str) -> None:
    """So are checks that block."""
    kind, field = PARTS[part]
    breaking = kind()
    options: dict[str, Any] = {"event_bus": RecordingEventBus(), "logger": RecordingLogger()} | {field: breaking}
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES, **options)
    breaking.is_broken = True
    left = [limiter.is_allowed(endpoint=LOGIN, identifier="a").value.remaining for _ in range(7)]
    assert left == [4, 3, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("part", [*PARTS, "Breaking nothing"])
@pytest.mark.parametrize("policy", ["allow", "local", "deny"])
async def test_parts_that_break_while_the_storage_fails(part: str, policy: Any) -> None:
    """A failure that nobody can describe, or at a time that no clock tells, is answered as the policy says."""

    class Broken(MemoryStorage):
        def take_nowait(self, *_: object) -> Any:
            raise UnspeakableError

    kind, field = PARTS.get(part, (Breaking, "clock"))
    breaking = kind()
    options: dict[str, Any] = {"event_bus": RecordingEventBus(), "logger": RecordingLogger()} | {field: breaking}
    limiter = TokenBucketAdapter(storage=Broken(), rules=RULES, on_storage_error=policy, **options)
    breaking.is_broken = part in PARTS
    verdicts = [(await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed for _ in range(6)]
    assert verdicts == {"allow": [True] * 6, "local": [True] * 5 + [False], "deny": [False] * 6}[policy]
    assert limiter.failures["bug"] == 6


@pytest.mark.skipif(sluicegate.COMPILED, reason="a compiled method cannot be replaced by one that breaks")
def test_what_breaks_is_counted() -> None:
    """An event that cannot be built is lost, and counted; the check stands."""
    limiter: Any = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES, event_bus=RecordingEventBus())
    limiter._checker.shadow_rules.record = lambda _: 1 / 0
    assert limiter.is_allowed(endpoint=LOGIN, identifier="a").value.remaining == 4
    assert limiter.events_dropped == 1
