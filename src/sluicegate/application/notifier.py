"""Telling listeners and logs what happened, without ever waiting for them or failing with them."""

import os
from hashlib import blake2b
from typing import Literal

from sluicegate.application.background_worker import BackgroundWorker
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.protocols import Clock, EventBusProtocol, Identifier, LoggerProtocol

Level = Literal["debug", "info", "warning", "error"]

_QUIET_US = 1_000_000  # of the warnings about one reason, one a second is written
_MASK_KEY = os.urandom(16)  # of this process: a log alone does not tell which of 2**32 addresses it was


class Notifier:
    """Publish events and write log lines.

    Args:
        event_bus: Who gets the events; None: nobody, and none is built.
        logger: Who gets the log lines.
        clock: What spaces repeated warnings.
        log_identifiers: Whether log lines carry identifiers as they are; else eight hexadecimal digits that stand for
            the same identifier as long as the process lives.
    """

    def __init__(
        self, event_bus: EventBusProtocol | None, logger: LoggerProtocol, clock: Clock, *, log_identifiers: bool
    ) -> None:
        self._bus = event_bus
        self._logger = logger
        self._clock = clock
        self._log_identifiers = log_identifiers
        self._background = BackgroundWorker()
        self._bus_inline = bool(getattr(event_bus, "inline", False))
        self._logger_inline = bool(getattr(logger, "inline", False))
        self._last_us: dict[str, int] = {}
        self._silenced: dict[str, int] = {}
        self.failed = 0
        """How many inline observers raised."""

    def wants(self, event_type: type[RateLimitEvent]) -> bool:
        """Return whether anybody listens to a type of event."""
        if self._bus is None:
            return False
        try:
            return self._bus.listens(event_type)
        except Exception:  # noqa: BLE001 - a bus without an answer still gets its events
            return True

    def publish(self, event: RateLimitEvent) -> None:
        """Pass an event to the bus."""
        if self._bus is None:
            return
        if not self._bus_inline:
            self._background.submit(self._bus.publish, event)
            return
        try:
            self._bus.publish(event)
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
        except Exception:  # noqa: BLE001 - the same, for a logger
            self.failed += 1

    def warn_throttled(self, reason: str, message: str, /, **context: object) -> None:
        """Write a warning, at most one a second for each reason; the next one tells how many were left out."""
        now_us = self._clock.now_us()
        last_us = self._last_us.get(reason)
        if last_us is not None and 0 <= now_us - last_us < _QUIET_US:
            self._silenced[reason] = self._silenced.get(reason, 0) + 1
            return
        self._last_us[reason] = now_us
        self.log("warning", message, reason=reason, left_out=self._silenced.pop(reason, 0), **context)

    def mask(self, identifier: Identifier) -> str:
        """Return an identifier as log lines carry it."""
        text = (
            identifier if isinstance(identifier, str) else "|".join(f"{k}={v}" for k, v in sorted(identifier.items()))
        )
        if self._log_identifiers:
            return text
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4, key=_MASK_KEY).hexdigest()

    @property
    def dropped(self) -> int:
        """How many events and log lines were lost, because an observer raised or could not keep up."""
        return self.failed + self._background.dropped
