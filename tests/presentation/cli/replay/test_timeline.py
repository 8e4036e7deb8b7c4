"""Counting over time in a bounded number of bins."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.presentation.cli.replay.offenders import Offenders
from sluicegate.presentation.cli.replay.timeline import WIDTHS_S, Timeline

seconds = st.lists(st.integers(0, 4_000_000_000), max_size=60)


@given(seconds, st.integers(2, 50))
def test_bins_stay_bounded_and_lose_nothing(seconds: list[int], max_bins: int) -> None:
    """Whatever the span and the order, each event is in the bin of its time."""
    timeline = Timeline(max_bins=max_bins)
    for second in seconds:
        timeline.add(second * 1_000_000 + 999_999)
    rows = dict(timeline.rows())
    assert len(rows) <= max_bins
    expected = dict.fromkeys(rows, 0)
    for second in seconds:
        expected[second // timeline.width_s * timeline.width_s] += 1
    assert {start: count for start, (count,) in rows.items()} == expected


def test_each_width_is_a_multiple_of_the_one_before() -> None:
    """Else bins could not be merged."""
    assert all(wide % narrow == 0 for narrow, wide in pairwise(WIDTHS_S))


def test_the_busiest_bin_is_the_first_of_those_with_the_most() -> None:
    """By kind; none where nothing was counted."""
    timeline = Timeline(kinds=2)
    for second, kind in ((5, 0), (5, 1), (7, 1), (7, 1), (9, 1), (9, 1)):
        timeline.add(second * 1_000_000, kind)
    assert timeline.busiest(0) == (5, 1)
    assert timeline.busiest(1) == (7, 2)
    assert Timeline().busiest() is None


def test_the_most_denied_are_kept_among_many() -> None:
    """A flood of clients with one denial each pushes nobody out who has more."""
    offenders = Offenders(max_clients=10)
    for number in range(500):
        offenders.add(f"once-{number}", number * 1_000_000)
        if number % 5 == 0:
            offenders.add("often", number * 1_000_000)
    ((who, timeline), *_) = offenders.most_denied(3)
    assert who == "often"
    assert sum(count for _, (count,) in timeline.rows()) == 100
