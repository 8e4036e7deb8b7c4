"""When to stop asking a server that does not answer, and how soon to try again. No clock, no I/O and no random numbers."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


class CircuitBreaker:
    """Count missed deadlines, and open when a server misses several in a row.

    While it is open no check waits: each is answered at once without the server, and one background probe at a time tries
    whether the server is back. Checks are never probes.

    Silences are told apart by when they began, which is when what has no reply was sent.

    Args:
        deadline_s: How long the server may be silent.
    """

    __slots__ = ("_deadline_s", "_failures", "_missed", "_missed_s", "cause", "is_open")

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._missed = 0
        self._missed_s = 0.0  # when the silence began that was counted last
        self._failures = 0
        self.is_open = False
        """Whether checks are answered without the server."""
        self.cause = ""
        """Why it opened."""

    def answered(self, sent_s: float) -> None:
        """Note an answer to what was sent then: unless it was late, earlier misses do not count any more."""
        if sent_s != self._missed_s:
            self._missed = 0
            self._failures = 0

    def next_miss_s(self, silent_since_s: float) -> float:
        """Return when a silence is to be counted, or has lasted too long."""
        return silent_since_s + self._deadline_s * (2 if silent_since_s == self._missed_s else 1)

    def is_too_silent(self, silent_since_s: float, read_s: float) -> bool:
        """Count a silence. Returns whether it is one too many; the caller then trips the breaker.

        A server that has not replied for two deadlines is not asked any more; nor is one that was late twice in a row.

        Args:
            silent_since_s: When it began.
            read_s: All that had arrived by this instant has been read.
        """
        if read_s - silent_since_s >= 2 * self._deadline_s:
            return True
        if read_s - silent_since_s >= self._deadline_s and silent_since_s != self._missed_s:
            self._missed_s = silent_since_s
            self._missed += 1
        return self._missed > 1

    def trip(self, cause: str) -> None:
        """Open it, or note that a probe failed too."""
        self.is_open = True
        self.cause = cause
        self._failures += 1

    def close(self) -> None:
        """Close it: a probe was answered. The pauses stay long until a check is answered as well."""
        self.is_open = False
        self._missed = 0

    def pause_s(self, chance: float) -> float:
        """Return how long to wait before the next probe, in seconds: doubled with each failure in a row, half of it random.

        Args:
            chance: A new random number from 0 to 1, so that many processes do not probe at the same moments.
        """
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * (1 << min(max(self._failures - 1, 0), 10)))
        return longest * (0.5 + 0.5 * chance)

    def __repr__(self) -> str:
        return f"CircuitBreaker(is_open={self.is_open}, cause={self.cause!r})"
