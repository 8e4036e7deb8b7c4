"""A clock that shows the time of a log."""

from datetime import UTC, datetime


class LogClock:
    """Return the time of the latest request. The clock starts at 0, the first second of 1970, and never steps back."""

    __slots__ = ("_now_us",)

    def __init__(self) -> None:
        self._now_us = 0

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._now_us

    def utc_now(self) -> datetime:
        """Return the time as a date, by which entries of the rules file end."""
        return datetime.fromtimestamp(self._now_us // 1_000_000, tz=UTC)

    def advance_to(self, now_us: int) -> bool:
        """Move the clock forward.

        Args:
            now_us: The new time in microseconds since 1970.

        Returns:
            False if that is in the clock's past: then the clock does not move.
        """
        if now_us < self._now_us:
            return False
        self._now_us = now_us
        return True

    def __repr__(self) -> str:
        return f"LogClock(now_us={self._now_us})"
