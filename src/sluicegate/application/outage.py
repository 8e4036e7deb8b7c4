"""When the storage went away and when it came back, as the calls of this process show it."""

from typing import Final

from sluicegate.application.notifier import Notifier
from sluicegate.domain.events import RateLimitStorageRecovered
from sluicegate.domain.protocols import Clock
from sluicegate.runtime.mutex import new_mutex

_QUIET_US: Final = 1_000_000
"""How long no call may have failed before the storage counts as back: of a cluster some nodes answer while others do not."""

_NOT_THE_STORAGE: Final = frozenset({"loop_busy", "no_thread", "interrupted", "overload", "too_many_rules"})
"""Reasons of failures that tell nothing of whether the storage is there."""


class Outage:
    """Note failures and answers of the storage, and tell once that it is back.

    Args:
        clock: What measures how long it was away.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = new_mutex()
        self._began_us = 0
        self._failed_us = 0
        self._back_us: int | None = None
        self._failures = 0
        self.is_on: bool = False
        """Whether a call failed, and the storage does not count as back yet."""

    def note_failure(self, reason: str) -> None:
        """Note that the storage did not answer a call, for a reason of `reason_of`."""
        if reason in _NOT_THE_STORAGE:
            return
        now_us = self._clock.now_us()
        with self._mutex:
            if not self.is_on:
                self.is_on, self._began_us, self._failures = True, now_us, 0
            self._failures += 1
            self._failed_us, self._back_us = now_us, None

    def note_answer(self, notifier: Notifier) -> None:
        """Note that the storage answered a call, and tell by a log line and an event if it is back.

        Args:
            notifier: Publishes the event and writes the line.
        """
        now_us = self._clock.now_us()
        with self._mutex:
            if not self.is_on:
                return
            if self._back_us is None:
                self._back_us = now_us
            if now_us - self._failed_us < _QUIET_US:
                return
            self.is_on = False
            away_s, failures = (self._back_us - self._began_us) / 1e6, self._failures
        notifier.log("warning", "The storage answers again.", away_s=round(away_s, 3), failures=failures)
        if notifier.has_listener(RateLimitStorageRecovered):
            notifier.publish(RateLimitStorageRecovered(away_seconds=away_s, failures=failures))
