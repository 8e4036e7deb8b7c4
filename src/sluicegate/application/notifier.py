"""Telling subscribers and logs what happened, without ever waiting for them or failing with them."""

import asyncio
import os
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePath
from typing import Final, Literal

from sluicegate.application.background_worker import BackgroundWorker
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import StorageError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.protocols import Clock, EventBusProtocol, LoggerProtocol
from sluicegate.runtime.at_exit import FLUSH_S
from sluicegate.runtime.system_clock import monotonic_s

Level = Literal["debug", "info", "warning", "error"]

_QUIET_US: Final = 1_000_000  # of the warnings about one reason, one a second is written
_MAX_REASONS: Final = 1_000  # some name an endpoint, which a caller of the service chooses
_MASK_KEY: Final = os.urandom(16)  # a log alone does not tell which of 2**32 addresses it was


class Notifier:
    """Publish events and write log lines.

    Args:
        event_bus: Gets the events; None: no event is built.
        logger: Gets the log lines.
        clock: What spaces repeated warnings.
        log_identifiers: Whether log lines carry identifiers as they are; else eight hexadecimal digits that stand for
            the same identifier, wherever the secret is the same.
        secret: What they are hashed with, 1 to 64 bytes; None: something that this process keeps to itself.
    """

    def __init__(
        self,
        event_bus: EventBusProtocol | None,
        logger: LoggerProtocol,
        clock: Clock,
        *,
        log_identifiers: bool,
        secret: bytes | None = None,
    ) -> None:
        self._bus = event_bus
        self._logger = logger
        self._clock = clock
        self._log_identifiers = log_identifiers
        self._mask_key = _MASK_KEY if secret is None else bytes(secret)
        self._background = BackgroundWorker()
        self._bus_inline = bool(getattr(event_bus, "inline", False))
        self._logger_inline = bool(getattr(logger, "inline", False))
        self._last_us: OrderedDict[str, int] = OrderedDict()
        self._left_out: dict[str, int] = {}
        self.failed = 0
        """How many inline observers raised."""

    @property
    def has_bus(self) -> bool:
        """Whether there is a bus, which may have listeners."""
        return self._bus is not None

    def has_listener(self, event_type: type[RateLimitEvent]) -> bool:
        """Return whether there is a subscriber to a type of event."""
        if self._bus is None:
            return False
        try:
            return self._bus.listens(event_type)
        except Exception:  # noqa: BLE001 - a bus that cannot answer still gets its events
            return True

    def publish(self, event: RateLimitEvent) -> None:
        """Pass an event to the bus."""
        if self._bus is None:
            return
        try:
            if self._bus_inline:
                self._bus.publish(event)
            else:
                self._background.submit(self._bus.publish, event)
        except Exception:  # noqa: BLE001 - an observer's fault never reaches a check
            self.failed += 1

    def log(self, level: Level, message: str, /, **context: object) -> None:
        """Write a log line."""
        try:
            enabled = getattr(self._logger, "enabled", None)
            if enabled is not None and not enabled(level):
                return
            write = getattr(self._logger, level)
            if self._logger_inline:
                write(message, **context)
            else:
                self._background.submit(write, message, **context)
        except Exception:  # noqa: BLE001 - nor does a logger's
            self.failed += 1

    def warn_throttled(
        self,
        reason: str,
        message: str,
        /,
        *,
        error: Exception | None = None,
        identifier: Identifier | None = None,
        level: Level = "warning",
        **context: object,
    ) -> None:
        """Write a warning, at most one a second for each reason; the next one tells how many were left out.

        Args:
            reason: What is counted apart; a word of a closed set.
            message: What happened.
            error: What was raised; described only if the line is written.
            identifier: The client; masked only if the line is written.
            level: The line's level.
            context: What else the line carries.
        """
        try:
            self._warn_throttled(reason, message, error, identifier, level, context)
        except Exception:  # noqa: BLE001 - an error that cannot be described is one more that reaches no check
            self.failed += 1

    def _warn_throttled(  # noqa: PLR0913, PLR0917 - what a line has
        self,
        reason: str,
        message: str,
        error: Exception | None,
        identifier: Identifier | None,
        level: Level,
        context: dict[str, object],
    ) -> None:
        now_us = self._clock.now_us()
        last_us = self._last_us.get(reason)
        if last_us is not None and 0 <= now_us - last_us < _QUIET_US:
            self._left_out[reason] = self._left_out.get(reason, 0) + 1
            return
        self._last_us[reason] = now_us
        self._last_us.move_to_end(reason)
        if len(self._last_us) > _MAX_REASONS:
            forgotten, _ = self._last_us.popitem(last=False)
            self._left_out.pop(forgotten, None)
        if error is not None:
            context["error"] = describe(error)
        if identifier is not None:
            context["identifier"] = self.mask(identifier)
        self.log(level, message, reason=reason, left_out=self._left_out.pop(reason, 0), **context)

    def flush(self) -> None:
        """Wait until listeners and logger have been told what there was to tell, a second at most."""
        self._background.flush(monotonic_s() + FLUSH_S)

    async def flush_from_loop(self) -> None:
        """Do what `flush` does while the event loop runs; a bus with a method `flush_from_loop` empties its queue too."""
        deadline_s = monotonic_s() + FLUSH_S
        await self._background.flush_from_loop(deadline_s)
        try:
            flush = getattr(self._bus, "flush_from_loop", None)
            if flush is not None:
                async with asyncio.timeout(max(0.0, deadline_s - monotonic_s())):
                    await flush()
        except Exception:  # noqa: BLE001 - a bus that hangs or raises must not keep a limiter from closing
            self.failed += 1

    def mask(self, identifier: Identifier) -> str:
        """Return an identifier as log lines carry it."""
        text = (
            identifier if isinstance(identifier, str) else "|".join(f"{k}={v}" for k, v in sorted(identifier.items()))
        )
        if self._log_identifiers:
            return text
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4, key=self._mask_key).hexdigest()

    @property
    def dropped(self) -> int:
        """How many events and log lines were lost, because an observer raised or could not keep up."""
        return self.failed + self._background.dropped


def describe(error: Exception) -> str:
    """Say what happened without repeating what a foreign exception's message may hold: identifiers, keys, passwords."""
    if isinstance(error, StorageError):
        return str(error)
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    place = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
