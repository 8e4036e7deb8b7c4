"""Quantiles over clients and their bootstrap interval."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.presentation.cli.replay.suggest.quantiles import (
    binomial_cdf,
    bootstrap_interval,
    burst_for,
    percentile,
)

needs = st.lists(st.integers(1, 50), min_size=1, max_size=60).map(sorted)
shares = st.fractions(0, Fraction(99, 100), max_denominator=200)


@given(needs, shares)
def test_the_burst_is_the_least_that_denies_at_most_the_share(needs: list[int], share: Fraction) -> None:
    """Found by trying every burst."""
    fitting = [burst for burst in range(1, 51) if sum(need > burst for need in needs) <= share * len(needs)]
    assert burst_for(needs, share) == min(fitting)


def test_percentiles_are_those_that_people_mean() -> None:
    """Of 1 to 100, 50 do not exceed 50, and 99 do not exceed 99."""
    assert [percentile(range(1, 101), percent) for percent in (50, 90, 99)] == [50, 90, 99]


@given(st.integers(1, 60), st.integers(0, 60), st.fractions(0, 1, max_denominator=50))
def test_the_binomial_distribution_is_that_of_fractions(trials: int, successes: int, probability: Fraction) -> None:
    """Summed exactly."""
    exact = sum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(min(successes, trials) + 1)
    )
    assert binomial_cdf(successes, trials, float(probability)) == pytest.approx(float(exact), abs=1e-9)


def test_the_interval_is_that_of_resampling() -> None:
    """Twenty thousand drawn resamples have their 5th and 95th percentile where the closed form says."""
    chance = random.Random(5)
    needs = sorted(int(chance.paretovariate(1.2)) for _ in range(80))
    share = Fraction(1, 20)
    bursts = sorted(burst_for(sorted(chance.choices(needs, k=len(needs))), share) for _ in range(20_000))
    assert bootstrap_interval(needs, share) == (bursts[1_000], bursts[19_000])


@given(needs, shares)
def test_the_interval_holds_values_that_were_needed_and_does_not_turn_round(needs: list[int], share: Fraction) -> None:
    """Both ends are needs of clients, the lower one first."""
    low, high = bootstrap_interval(needs, share)
    assert low <= high
    assert {low, high} <= set(needs)
