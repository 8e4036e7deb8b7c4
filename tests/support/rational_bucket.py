"""The token bucket as a text book has it, in exact fractions: what the limiter's integers are compared with."""

from fractions import Fraction


class RationalBucket:
    """A bucket whose level is a fraction.

    Args:
        max_tokens: Its capacity.
        tokens_per_second: Its refill rate.
        now_s: The time at which it is full.
    """

    def __init__(self, max_tokens: int, tokens_per_second: Fraction, now_s: int) -> None:
        self._capacity = Fraction(max_tokens)
        self._rate = tokens_per_second
        self.level = self._capacity
        self._last_s = now_s

    def refill(self, now_s: int) -> None:
        """Let tokens flow in until an instant that is not before the last one."""
        assert now_s >= self._last_s
        self.level = min(self._capacity, self.level + self._rate * (now_s - self._last_s))
        self._last_s = now_s
