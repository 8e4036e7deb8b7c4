"""The frontier of rate and burst for one endpoint, and the point on it that is suggested."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from sluicegate.presentation.cli.replay.suggest.burst_need import Rates
from sluicegate.presentation.cli.replay.suggest.quantiles import bootstrap_interval, burst_for, percentile
from sluicegate.presentation.cli.replay.suggest.suggestion import EndpointSuggestion, FrontierPoint

RATES_PER_HOUR = {
    "6/hour": 6, "12/hour": 12, "30/hour": 30, "1/minute": 60, "2/minute": 120, "5/minute": 300, "10/minute": 600,
    "20/minute": 1_200, "30/minute": 1_800, "1/second": 3_600, "2/second": 7_200, "5/second": 18_000,
    "10/second": 36_000, "20/second": 72_000, "50/second": 180_000, "100/second": 360_000,
}  # fmt: skip
"""The rates that are looked at, the slowest first, as people write them."""

RATES = Rates([Fraction(per_hour, 3_600) for per_hour in RATES_PER_HOUR.values()])

FEW_CLIENTS = 100
"""With fewer clients than this the confidence is at best medium."""

_FEW_BEYOND = 5  # so many clients must be beyond the quantile for it to be more than chance
_WIDE = 2  # the interval's ends differ by more than this factor


def suggest(  # noqa: PLR0913, PLR0917 - what is known of an endpoint
    endpoint: str,
    policy: str,
    needs: Sequence[Sequence[int]],
    requests: int,
    others: int,
    share: Fraction,
    window_s: int,
) -> EndpointSuggestion:
    """Return the limit for an endpoint.

    Of the frontier that point is chosen which lets a client take least in a window, of those whose bucket is full again within
    it: the least `burst + rate * window` with `burst <= rate * window`. The burst is the upper end of its interval.

    Args:
        endpoint: The endpoint.
        policy: The name of its policy.
        needs: For each honest-looking client, the burst that it needed at each of `RATES`.
        requests: How many requests there were.
        others: How many clients do not look honest.
        share: The share of honest-looking clients that may be denied.
        window_s: The window in seconds.
    """
    if not needs:
        why = ["no honest-looking client asked for it: no limit is suggested"]
        return EndpointSuggestion(endpoint, policy, None, requests, 0, others, [], -1, "low", why, [])
    by_rate = [sorted(column) for column in zip(*needs, strict=True)]
    frontier = [
        _point(rate, per_hour, column, share)
        for (rate, per_hour), column in zip(RATES_PER_HOUR.items(), by_rate, strict=True)
    ]
    chosen = _choose(frontier, window_s)
    point = frontier[chosen]
    warnings = _warnings(len(needs), share, point)
    confidence = "low" if warnings else "medium" if len(needs) < FEW_CLIENTS or point.low != point.high else "high"
    return EndpointSuggestion(
        endpoint,
        policy,
        f"{point.rate} burst {point.high}",
        requests,
        len(needs),
        others,
        frontier,
        chosen,
        confidence,
        warnings,
        sorted(Counter(by_rate[chosen]).items()),
    )


def _point(rate: str, per_hour: int, needs: Sequence[int], share: Fraction) -> FrontierPoint:
    low, high = bootstrap_interval(needs, share)
    burst = burst_for(needs, share)
    return FrontierPoint(
        rate,
        per_hour / 60,
        percentile(needs, 50),
        percentile(needs, 90),
        percentile(needs, 99),
        burst,
        min(low, burst),
        max(high, burst),
    )


def _choose(frontier: Sequence[FrontierPoint], window_s: int) -> int:
    fitting = [
        (point.high + point.per_minute * window_s / 60, number)
        for number, point in enumerate(frontier)
        if point.high <= point.per_minute * window_s / 60
    ]
    return min(fitting)[1] if fitting else len(frontier) - 1


def _warnings(clients: int, share: Fraction, point: FrontierPoint) -> list[str]:
    found: list[str] = []
    if clients * share < 1:
        found.append(f"only {clients:,} honest-looking clients: the limit is what the greediest of them needed")
    elif clients * share < _FEW_BEYOND:
        found.append(f"only {clients:,} honest-looking clients: fewer than {_FEW_BEYOND} of them decide the limit")
    if point.high > _WIDE * point.low:
        found.append(f"the burst could as well be {point.low:,} as {point.high:,}")
    return found
