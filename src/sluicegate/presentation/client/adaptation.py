"""How fast to call a server, and how often again, where it refuses calls without a word of when they would pass."""

from typing import Final

_SLOWER: Final = 0.5
_FASTER: Final = 0.05
_SLOWEST: Final = 1 / 64
_COOL_DOWN_S: Final = 1.0

_RETRIES: Final = 10.0
_RETRIES_PER_SUCCESS: Final = 0.1


class Adaptation:
    """Keep a share of the rate: additive increase, multiplicative decrease (Chiu and Jain, 1989).

    A refusal halves the share, down to a 64th; a success adds a twentieth, up to the whole rate. After a change nothing changes
    for a second: calls that were under way already tell nothing new. What a server says in numbers is not told to this: it
    neither slows calls down beyond the server's word nor keeps them slow.
    """

    __slots__ = ("_cool_until_s", "share")

    def __init__(self) -> None:
        self.share = 1.0
        """The share of the rate at which calls are made."""
        self._cool_until_s = 0.0

    def note_refusal(self, now_s: float) -> None:
        """Slow down."""
        if now_s >= self._cool_until_s:
            self.share = max(_SLOWEST, self.share * _SLOWER)
            self._cool_until_s = now_s + _COOL_DOWN_S

    def note_success(self, now_s: float) -> None:
        """Recover."""
        if self.share < 1 and now_s >= self._cool_until_s:
            self.share = min(1.0, self.share + _FASTER)
            self._cool_until_s = now_s + _COOL_DOWN_S

    def spacing_s(self, seconds_per_call: float) -> float:
        """Return by how many seconds more than the rule says the next call is put off."""
        return seconds_per_call * (1 / self.share - 1)


class RetryBudget:
    """Let a tenth of the calls be made again, and ten beforehand: retries must not keep down a server that is down."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _RETRIES

    def note_success(self) -> None:
        """Earn a tenth of a retry."""
        self._left = min(_RETRIES, self._left + _RETRIES_PER_SUCCESS)

    def take(self) -> bool:
        """Return whether a call may be made again, and count it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
