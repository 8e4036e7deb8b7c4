"""Stand-ins for clocks, buses, loggers and broken storages."""

import asyncio
from typing import Any, Literal, cast

from sluicegate.domain.bucket_request import BucketLevel, Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.domain.events import RateLimitEvent


class FakeClock:
    """A clock that stands still until it is told to advance.

    Args:
        start_us: The first instant in microseconds.
    """

    def __init__(self, start_us: int = 1_000_000_000_000) -> None:
        self._now_us = start_us

    def now_us(self) -> int:
        """Return the instant in microseconds."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Move on by a number of seconds, rounded to the microsecond; a negative number steps back."""
        self._now_us += round(seconds * 1_000_000)

    def __repr__(self) -> str:
        return f"FakeClock(now_us={self._now_us})"


class RecordingEventBus:
    """A bus that keeps what it gets, in `events`."""

    inline = True

    def __init__(self) -> None:
        self.events: list[RateLimitEvent] = []

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:  # noqa: ARG002 - it listens to everything
        """Return True."""
        return True

    def publish(self, event: RateLimitEvent, /) -> None:
        """Keep an event."""
        self.events.append(event)


class RecordingLogger:
    """A logger that keeps what it gets: `records` of (level, message, context)."""

    inline = True

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, message: str, /, **context: object) -> None:
        """Keep a debug line."""
        self.records.append(("debug", message, context))

    def info(self, message: str, /, **context: object) -> None:
        """Keep an info line."""
        self.records.append(("info", message, context))

    def warning(self, message: str, /, **context: object) -> None:
        """Keep a warning."""
        self.records.append(("warning", message, context))

    def error(self, message: str, /, **context: object) -> None:
        """Keep an error."""
        self.records.append(("error", message, context))


class FailingStorage:
    """A storage that never answers as it should.

    Args:
        failure: `raise` raises `error`; `hang` waits for ever; `garbage` returns what no storage may return.
        error: What is raised; a refused connection if None.
    """

    def __init__(
        self, failure: Literal["raise", "hang", "garbage"] = "raise", *, error: BaseException | None = None
    ) -> None:
        self._failure = failure
        self._error = error or StorageError("connection", "refused, as a test asked for")
        self.calls = 0
        """How often it was called."""

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

    async def aclose(self) -> None:
        """Do nothing."""

    async def _fail(self, _: object) -> Any:  # noqa: ANN401 - whatever it is, it is not what the port promises
        self.calls += 1
        if self._failure == "raise":
            raise self._error
        if self._failure == "hang":
            await asyncio.get_running_loop().create_future()
        return "garbage"
