"""Count what became of requests."""

import msgspec


class Tally(msgspec.Struct, gc=False):
    """The outcome of some requests.

    Args:
        allowed: How many were allowed.
        denied: How many were denied.
        first_denied_s: The time of the first denial, in seconds since 1970; None if there was none.
        longest_wait_s: The longest `retry_after` of a denial; infinite for an entry of the deny list without an end.
        shadow_denied: How many a rule in shadow mode would have denied.
    """

    allowed: int = 0
    denied: int = 0
    first_denied_s: int | None = None
    longest_wait_s: float = 0.0
    shadow_denied: int = 0

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return self.allowed + self.denied

    @property
    def denied_share(self) -> float:
        """The denied part of them, 0 to 1."""
        return self.denied / self.requests if self.requests else 0.0

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.allowed += other.allowed
        self.denied += other.denied
        self.shadow_denied += other.shadow_denied
        self.longest_wait_s = max(self.longest_wait_s, other.longest_wait_s)
        firsts = [first for first in (self.first_denied_s, other.first_denied_s) if first is not None]
        self.first_denied_s = min(firsts, default=None)
