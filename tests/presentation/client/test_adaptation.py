"""Calls slow down at once and recover slowly."""

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.presentation.client.adaptation import Adaptation, RetryBudget


def test_a_burst_of_refusals_is_one() -> None:
    """Calls that were under way when the first was refused do not halve the share again."""
    adaptation = Adaptation()
    for at in (10.0, 10.2, 10.9):
        adaptation.note_refusal(at)
    assert adaptation.share == 0.5
    assert adaptation.spacing_s(0.1) == 0.1
    adaptation.note_refusal(11.0)
    assert adaptation.share == 0.25


def test_it_recovers_wholly() -> None:
    """In ten seconds of success from a half, and not beyond the rule."""
    adaptation = Adaptation()
    adaptation.note_refusal(0.0)
    for tenth in range(10, 120):
        adaptation.note_success(tenth / 10)
    assert adaptation.share == 1
    assert adaptation.spacing_s(0.1) == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5))))
def test_the_share_stays_in_its_bounds(notes: list[tuple[bool, float]]) -> None:
    """Whatever happens, calls neither stop nor exceed the rule."""
    adaptation, now_s = Adaptation(), 0.0
    for success, step_s in notes:
        now_s += step_s
        (adaptation.note_success if success else adaptation.note_refusal)(now_s)
        assert 1 / 64 <= adaptation.share <= 1


def test_successes_earn_retries() -> None:
    """Ten beforehand, then one for about ten successes, and never more than ten in store."""
    budget = RetryBudget()
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(11):
        budget.note_success()
    assert [budget.take(), budget.take()] == [True, False]
    for _ in range(1000):
        budget.note_success()
    assert sum(budget.take() for _ in range(20)) == 10
