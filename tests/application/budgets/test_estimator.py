"""Estimates from what calls did cost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import Estimator, InvalidInputError


def test_it_is_the_least_cost_that_most_calls_did_not_exceed() -> None:
    """Of a hundred calls that cost 1 to 100, 95 cost at most 95; rules and labels are apart."""
    estimator = Estimator()
    for cost in range(100, 0, -1):
        estimator.observe("tokens", "large", cost)
    assert estimator.estimate("tokens", "large") == 95
    assert estimator.estimate("tokens", "small") == 1_000
    assert estimator.estimate("requests", "large") == 1_000


def test_the_client_and_the_operator_cap_it() -> None:
    """Whichever is smaller; of an unknown series the smaller maximum is the estimate; never less than one."""
    estimator = Estimator()
    assert estimator.estimate("tokens", "m", client_max=300, operator_max=200) == 200
    assert estimator.estimate("tokens", "m", client_max=0) == 1
    estimator.observe("tokens", "m", 500)
    assert estimator.estimate("tokens", "m") == 500
    assert estimator.estimate("tokens", "m", client_max=40) == 40
    assert estimator.estimate("tokens", "m", client_max=4000, operator_max=450) == 450
    assert estimator.estimate("tokens", "m", client_max=4000, operator_max=9000) == 500


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 20))
def test_only_the_last_costs_count(costs: list[int], window: int) -> None:
    """As if nothing had been seen before them."""
    estimator = Estimator(window=window, quantile=0.5)
    for cost in costs:
        estimator.observe("r", "l", cost)
    last = sorted(costs[-window:])
    assert estimator.estimate("r", "l") == max(1, last[-(-len(last) // 2) - 1])


def test_memory_is_bounded() -> None:
    """The series that was used least lately is forgotten."""
    estimator = Estimator(max_series=3)
    for label in ("a", "b", "c"):
        estimator.observe("r", label, 7)
    estimator.estimate("r", "a")
    estimator.observe("r", "d", 7)
    assert len(estimator) == 3
    assert [estimator.estimate("r", label) for label in ("a", "b", "c", "d")] == [7, 1_000, 7, 7]


@pytest.mark.parametrize(
    "wrong",
    [{"quantile": 0}, {"quantile": 1.1}, {"quantile": "p95"}, {"window": 0}, {"max_series": 0}, {"initial": 1.5}],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    """The message names the field."""
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        Estimator(**wrong)


@pytest.mark.parametrize("cost", [-1, 1.5, True, None])
def test_a_wrong_cost_is_refused(cost: Any) -> None:
    """Costs are whole numbers of tokens."""
    with pytest.raises(InvalidInputError, match="cost"):
        Estimator().observe("r", "l", cost)
