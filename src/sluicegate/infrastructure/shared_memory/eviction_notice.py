"""Tell operators that buckets are lost for want of room."""

from contextlib import suppress
from threading import Thread
from typing import Final

from sluicegate.domain.protocols import LoggerProtocol

_QUIET_US: Final = 60_000_000


class EvictionNotice:
    """Log losses, once a minute at most, and from a thread of its own: a check does not wait for a logger.

    Args:
        path: The file.
        logger: Gets the line.
    """

    def __init__(self, path: str, logger: LoggerProtocol) -> None:
        self._path = path
        self._logger = logger
        self._known: int | None = None
        self._quiet_until_us = 0

    def note(self, evicted_unfull: int, now_us: int) -> None:
        """Compare the counter with what is known, and log the difference.

        Args:
            evicted_unfull: What the counter says. Its first value was there before.
            now_us: The storage's clock.
        """
        known = self._known
        if known is None or evicted_unfull < known:
            self._known = evicted_unfull
        elif evicted_unfull > known and now_us >= self._quiet_until_us:
            self._known = evicted_unfull
            self._quiet_until_us = now_us + _QUIET_US
            with suppress(RuntimeError):  # there are too many threads, or Python is ending
                Thread(target=self._log, args=(evicted_unfull - known,), name="sluicegate-notice", daemon=True).start()

    def _log(self, lost: int) -> None:
        with suppress(Exception):  # a logger that fails is no concern of the storage
            self._logger.warning(
                "Shared memory is full: some clients got their tokens back early. Use a larger file.",
                path=self._path,
                buckets_lost=lost,
            )
