"""How large a burst a client needed at a refill rate: the pure arithmetic, in integers.

A bucket of capacity C that refills at rate r admits all of a client's requests exactly if, from each request i to each later
request j, the cost of i to j is at most C + r * (t_j - t_i). So the client needed

    need(r) = max over i <= j of  cost(i..j) - r * (t_j - t_i).

The maximum over i for a fixed j is a running sum, as in Kadane's algorithm: what the bucket lacks after request j,
`lack_j = max(0, lack_(j-1) - r * (t_j - t_(j-1))) + cost_j`. One pass, two numbers for each client and rate.
"""

from collections.abc import Sequence
from fractions import Fraction

_SECOND_US = 1_000_000


class Rates:
    """Refill rates in whole numbers: of rate k, `inflow[k]` units flow in each microsecond and a token is `token[k]` units.

    Args:
        tokens_per_second: The rates, positive.
    """

    __slots__ = ("inflow", "per_second", "token")

    def __init__(self, tokens_per_second: Sequence[Fraction]) -> None:
        per_us = [rate / _SECOND_US for rate in tokens_per_second]
        self.per_second = tuple(tokens_per_second)
        """The rates in tokens per second."""
        self.inflow = tuple(rate.numerator for rate in per_us)
        self.token = tuple(rate.denominator for rate in per_us)

    def __len__(self) -> int:
        return len(self.per_second)


class BurstNeed:
    """What one client's bucket would have lacked at its worst, at each of some rates.

    Args:
        rates: The rates.
    """

    __slots__ = ("_lack", "_last_us", "_most", "requests")

    def __init__(self, rates: Rates) -> None:
        self._last_us = 0
        self._lack = [0] * len(rates)
        self._most = [0] * len(rates)
        self.requests = 0
        """How many requests were added."""

    def add(self, rates: Rates, time_us: int, cost: int = 1) -> None:
        """Add a request.

        Args:
            rates: The rates that the constructor got.
            time_us: When, in microseconds. A time before the last one counts as the last one, as a clock that never steps back
                would have it.
            cost: Its tokens, at least 1.
        """
        elapsed_us = time_us - self._last_us
        if elapsed_us > 0:
            self._last_us = time_us
        else:
            elapsed_us = 0
        self.requests += 1
        lacks, most = self._lack, self._most
        k = 0
        for inflow, token in zip(rates.inflow, rates.token, strict=True):
            lack = lacks[k] - inflow * elapsed_us
            lack = lack + cost * token if lack > 0 else cost * token
            lacks[k] = lack
            most[k] = max(most[k], lack)
            k += 1  # noqa: SIM113 - enumerate makes a tuple more for each rate, a sixth of the time

    def needs(self, rates: Rates) -> tuple[int, ...]:
        """Return, for each rate, the least whole capacity that would have admitted all requests."""
        return tuple(-(-most // token) for most, token in zip(self._most, rates.token, strict=True))
