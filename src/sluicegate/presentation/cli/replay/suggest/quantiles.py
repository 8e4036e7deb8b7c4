"""Which burst denies at most a share of clients, and how sure that is."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction

CONFIDENCE = Fraction(9, 10)
"""The confidence of the intervals."""


def burst_for(needs: Sequence[int], share: Fraction) -> int:
    """Return the least burst that at most a share of clients would have exceeded.

    Args:
        needs: What each client needed, ascending, at least one.
        share: The share that may be denied, 0 to 1.
    """
    return needs[len(needs) - 1 - _may_exceed(len(needs), share)]


def _may_exceed(count: int, share: Fraction) -> int:
    """Return how many of some clients may be denied: never the last one, so that there is a burst."""
    return min(int(count * share), count - 1)


def bootstrap_interval(needs: Sequence[int], share: Fraction) -> tuple[int, int]:
    """Return the interval in which nine of ten resamples have their burst.

    A resample draws as many clients as there are, with replacement; its burst is at most v exactly if at most k of the drawn
    needed more than v, where k is the number that may be denied. How many did is binomially distributed, so the
    distribution over all resamples is known in closed form and none has to be drawn.

    Args:
        needs: What each client needed, ascending, at least one.
        share: The share that may be denied.
    """
    count = len(needs)
    allowed = _may_exceed(count, share)
    tail = float(1 - CONFIDENCE) / 2
    values = sorted(set(needs))

    def probability(value: int) -> float:
        return binomial_cdf(allowed, count, (count - bisect_right(needs, value)) / count)

    return _first(values, lambda value: probability(value) >= tail), _first(
        values, lambda value: probability(value) >= 1 - tail
    )


def _first(values: Sequence[int], fits: Callable[[int], bool]) -> int:
    """Return the first value for which a condition holds that, once true, stays so; the last value if there is none."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(values[middle]):
            high = middle
        else:
            low = middle + 1
    return values[low]


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """Return the probability of at most so many successes."""
    if probability <= 0.0 or successes >= trials:
        return 1.0
    if probability >= 1.0:
        return 0.0
    log_yes, log_no = math.log(probability), math.log1p(-probability)
    log_all = math.lgamma(trials + 1)
    total = math.fsum(
        math.exp(log_all - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_yes + (trials - k) * log_no)
        for k in range(successes + 1)
    )
    return min(1.0, total)


def percentile(needs: Sequence[int], percent: int) -> int:
    """Return the value that so many percent of the clients do not exceed."""
    return burst_for(needs, Fraction(100 - percent, 100))
