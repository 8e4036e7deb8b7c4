"""Fake clocks, event buses, loggers, and storages that fail."""

import asyncio
from typing import Any, Literal, cast

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketSettlement, Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.protocols import StorageTraits


class FakeClock:
    """A clock that only moves when `advance` is called.

    Args:
        start_us: The first time in microseconds.
    """

    def __init__(self, start_us: int = 1_000_000_000_000) -> None:
        self._now_us = start_us

    def now_us(self) -> int:
        """Return the time in microseconds."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Move the clock by a number of seconds, rounded to the microsecond; a negative number moves it back."""
        self._now_us += round(seconds * 1_000_000)

    def __repr__(self) -> str:
        return f"FakeClock(now_us={self._now_us})"


class RecordingEventBus:
    """An event bus that records every event in `events`."""

    inline = True

    def __init__(self) -> None:
        self.events: list[RateLimitEvent] = []

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:  # noqa: ARG002 - every type is recorded
        """Return True."""
        return True

    def publish(self, event: RateLimitEvent, /) -> None:
        """Record an event."""
        self.events.append(event)


class RecordingLogger:
    """A logger that records every line in `records`, as (level, message, context)."""

    inline = True

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, message: str, /, **context: object) -> None:
        """Record a debug line."""
        self.records.append(("debug", message, context))

    def info(self, message: str, /, **context: object) -> None:
        """Record an info line."""
        self.records.append(("info", message, context))

    def warning(self, message: str, /, **context: object) -> None:
        """Record a warning."""
        self.records.append(("warning", message, context))

    def error(self, message: str, /, **context: object) -> None:
        """Record an error."""
        self.records.append(("error", message, context))


class FailingStorage:
    """A storage whose every call fails.

    Args:
        failure: `raise` raises `error`; `hang` never returns; `garbage` returns a value that no storage may return.
        error: What to raise; None: a `StorageError` for a refused connection.
    """

    traits = StorageTraits()

    def __init__(
        self, failure: Literal["raise", "hang", "garbage"] = "raise", *, error: BaseException | None = None
    ) -> None:
        self._failure = failure
        self._error = error or StorageError("connection", "refused, as a test asked for")
        self.calls = 0
        """How many calls it got."""

    async def take(self, requests: object, /) -> Verdict:
        """Fail."""
        return cast("Verdict", await self._fail(requests))

    async def peek(self, requests: object, /) -> tuple[BucketLevel, ...]:
        """Fail."""
        return cast("tuple[BucketLevel, ...]", await self._fail(requests))

    async def refund(self, requests: object, /) -> tuple[BucketLevel, ...]:
        """Fail."""
        return cast("tuple[BucketLevel, ...]", await self._fail(requests))

    async def reset(self, requests: object, /) -> None:
        """Fail."""
        await self._fail(requests)

    async def reserve(self, requests: object, number: int, terms: object, /) -> Verdict:  # noqa: ARG002 - the port's
        """Fail."""
        return cast("Verdict", await self._fail(requests))

    async def settle(self, requests: object, number: int, max_debts: object, /) -> tuple[BucketSettlement, ...]:  # noqa: ARG002 - the port's
        """Fail."""
        return cast("tuple[BucketSettlement, ...]", await self._fail(requests))

    async def extend(self, requests: object, number: int, ttls_us: object, /) -> int:  # noqa: ARG002 - the port's
        """Fail."""
        return cast("int", await self._fail(requests))

    async def reset_all(self, prefixes: object, /) -> None:
        """Fail."""
        await self._fail(prefixes)

    def forget_all(self, prefixes: object, /) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def _fail(self, _: object) -> Any:  # noqa: ANN401 - garbage, on purpose
        self.calls += 1
        if self._failure == "raise":
            raise self._error
        if self._failure == "hang":
            await asyncio.get_running_loop().create_future()
        return "garbage"
