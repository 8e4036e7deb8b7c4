"""Count what became of requests."""

import msgspec


class Tally(msgspec.Struct, gc=False):
    """The outcome of some requests.

    Args:
        allowed: How many were allowed.
        denied: How many were denied.
        first_denied_us: The time of the first denial, in microseconds since 1970; None if there was none.
        last_denied_us: The time of the last one.
        longest_wait_s: The longest `retry_after` of a denial; infinite for an entry of the deny list without an end.
        shadow_denied: How many a rule in shadow mode would have denied.
        policies: The policies that denied some of them, in shadow or not.
    """

    allowed: int = 0
    denied: int = 0
    first_denied_us: int | None = None
    last_denied_us: int | None = None
    longest_wait_s: float = 0.0
    shadow_denied: int = 0
    policies: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return self.allowed + self.denied

    @property
    def denied_share(self) -> float:
        """The denied part of them, 0 to 1."""
        return self.denied / self.requests if self.requests else 0.0

    def deny(self, time_us: int, wait_s: float, policy: str) -> None:
        """Count a denial."""
        self.denied += 1
        self.longest_wait_s = max(self.longest_wait_s, wait_s)
        if self.first_denied_us is None:
            self.first_denied_us = time_us
        self.last_denied_us = time_us
        self.blame(policy)

    def blame(self, policy: str) -> None:
        """Note a policy that denied, in shadow or not."""
        if policy not in self.policies:
            self.policies += (policy,)

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.allowed += other.allowed
        self.denied += other.denied
        self.shadow_denied += other.shadow_denied
        self.longest_wait_s = max(self.longest_wait_s, other.longest_wait_s)
        firsts = [first for first in (self.first_denied_us, other.first_denied_us) if first is not None]
        lasts = [last for last in (self.last_denied_us, other.last_denied_us) if last is not None]
        self.first_denied_us = min(firsts, default=None)
        self.last_denied_us = max(lasts, default=None)
