"""A clock that goes by a log."""

from datetime import UTC, datetime


class LogClock:
    """Tell the time of the log line that is replayed. It starts at 0, the first second of 1970, and never steps back."""

    __slots__ = ("_now_us",)

    def __init__(self) -> None:
        self._now_us = 0

    def now_us(self) -> int:
        """Return the log's instant in microseconds since 1970."""
        return self._now_us

    def utc_now(self) -> datetime:
        """Return the log's instant as a date: what ends dated entries of a rules file in a replay."""
        return datetime.fromtimestamp(self._now_us // 1_000_000, tz=UTC)

    def advance_to(self, now_us: int) -> bool:
        """Go on to an instant.

        Args:
            now_us: Microseconds since 1970.

        Returns:
            False if the instant lies before the present one: the clock stays where it is.
        """
        if now_us < self._now_us:
            return False
        self._now_us = now_us
        return True

    def __repr__(self) -> str:
        return f"LogClock(now_us={self._now_us})"
