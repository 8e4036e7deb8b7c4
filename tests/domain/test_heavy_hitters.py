"""Space-Saving against exact counts: its error bound holds for every stream."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import InvalidInputError
from sluicegate.domain.heavy_hitters import HeavyHitters

STREAMS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(1, 9)), max_size=200)


@given(stream=STREAMS, capacity=st.integers(1, 12))
def test_each_count_is_right_to_within_its_error(stream: list[tuple[str, int]], capacity: int) -> None:
    """Never too low, too high by `error` at most, itself bounded by total / capacity; and no frequent key is missed."""
    exact: Counter[str] = Counter()
    hitters = HeavyHitters(capacity)
    for key, amount in stream:
        exact[key] += amount
        hitters.add(key, amount)
    top = hitters.top(capacity)
    assert hitters.total == exact.total()
    assert len(top) == len(hitters) == min(capacity, len(exact))
    for one in top:
        assert one.count - one.error <= exact[one.key] <= one.count
        assert one.error * capacity <= exact.total()
    assert sum(one.count for one in top) == exact.total()
    assert {key for key, n in exact.items() if n * capacity > exact.total()} <= {one.key for one in top}
    assert [one.count for one in top] == sorted([one.count for one in top], reverse=True)
    if len(exact) <= capacity:
        assert {one.key: one.count for one in top} == exact


@given(stream=STREAMS)
def test_memory_is_bounded_by_the_capacity(stream: list[tuple[str, int]]) -> None:
    """Whatever comes, and however often."""
    hitters = HeavyHitters(3)
    for key, amount in stream:
        hitters.add(key, amount)
        assert len(hitters._counts) == len(hitters._errors) == len(hitters._heap) <= 3


def test_a_wrong_number_is_named() -> None:
    """With what was expected."""
    with pytest.raises(InvalidInputError, match="capacity=0: expected 1 or more"):
        HeavyHitters(0)
    with pytest.raises(InvalidInputError, match="amount=0: expected 1 or more"):
        HeavyHitters(1).add("a", 0)
