"""When to stop asking a server that does not answer, and how soon to try again. No clock, no I/O and no random numbers."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


class CircuitBreaker:
    """Count missed deadlines, and open when a server misses several in a row.

    While it is open no check waits: each is answered at once without the server, and one background probe at a time tries
    whether the server is back. Checks are never probes.

    Args:
        threshold: How many deadlines in a row may be missed.
    """

    __slots__ = ("_failures", "_missed", "_threshold", "cause", "is_open")

    def __init__(self, threshold: int = 2) -> None:
        self._threshold = threshold
        self._missed = 0
        self._failures = 0
        self.is_open = False
        """Whether checks are answered without the server."""
        self.cause = ""
        """Why it opened."""

    def answered(self) -> None:
        """Note an answer within the deadline: earlier misses do not count any more."""
        self._missed = 0
        self._failures = 0

    def missed(self) -> bool:
        """Note a missed deadline. Returns whether it was one too many; the caller then trips the breaker."""
        self._missed += 1
        return self._missed >= self._threshold

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
