"""The burst needs of all clients at all endpoints, in bounded memory."""

from collections.abc import Iterator
from hashlib import blake2b

from sluicegate.presentation.cli.replay.suggest.burst_need import BurstNeed, Rates

MAX_PAIRS = 100_000
"""How many pairs of endpoint and client are watched at most; about 1.6 KB each with 16 rates."""


class NeedTable:
    """Watch a uniform sample of the clients: all of them, until there are too many.

    When the table is full, half of the clients are dropped: those whose hash has a bit set. A client stays or goes with all of
    its requests and at all endpoints, and none that was dropped comes back, so whoever is watched was watched from its first
    request on, and the sample does not depend on how active a client is ("adaptive sampling", Wegman; analysed by
    Flajolet, Computing 43, 1990).

    Args:
        rates: The rates whose needs are measured.
        max_pairs: How many pairs of endpoint and client are watched at most.
    """

    def __init__(self, rates: Rates, max_pairs: int = MAX_PAIRS) -> None:
        self.rates = rates
        self._max_pairs = max_pairs
        self._needs: dict[tuple[str, str], BurstNeed] = {}
        self.halvings = 0
        """How often half of the clients were dropped: 1 in `2**halvings` is watched."""

    def add(self, endpoint: str, who: str, time_us: int, cost: int = 1) -> None:
        """Add a request."""
        need = self._needs.get((endpoint, who))
        if need is None:
            if self.halvings and not self._is_watched(who):
                return
            while len(self._needs) >= self._max_pairs:
                self.halvings += 1
                self._needs = {pair: need for pair, need in self._needs.items() if self._is_watched(pair[1])}
                if not self._is_watched(who):
                    return
            need = self._needs[endpoint, who] = BurstNeed(self.rates)
        need.add(self.rates, time_us, cost)

    def _is_watched(self, who: str) -> bool:
        digest = int.from_bytes(blake2b(who.encode("utf-8", "backslashreplace"), digest_size=8).digest(), "big")
        return digest & ((1 << self.halvings) - 1) == 0

    def items(self) -> Iterator[tuple[str, str, BurstNeed]]:
        """Yield endpoint, client and need of each pair that is watched."""
        for (endpoint, who), need in self._needs.items():
            yield endpoint, who, need

    def __len__(self) -> int:
        return len(self._needs)
