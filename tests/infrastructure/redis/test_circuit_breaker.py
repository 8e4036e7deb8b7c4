"""When to stop asking, and how soon to try again."""

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.infrastructure.redis.circuit_breaker import CircuitBreaker


def test_it_opens_at_the_second_missed_deadline_in_a_row() -> None:
    """One late answer is a hiccup; two are a server that does not answer."""
    breaker = CircuitBreaker(1.0)
    assert not breaker.is_too_silent(10.0, 11.0)
    assert not breaker.is_too_silent(10.0, 11.5)  # the same silence
    assert breaker.is_too_silent(12.0, 13.0)


def test_it_opens_at_a_silence_of_two_deadlines() -> None:
    """One that lasts, however often it is looked at."""
    breaker = CircuitBreaker(1.0)
    assert not breaker.is_too_silent(10.0, 10.9)
    assert breaker.next_miss_s(10.0) == 11.0
    assert not breaker.is_too_silent(10.0, 11.0)
    assert breaker.next_miss_s(10.0) == 12.0
    assert breaker.is_too_silent(10.0, 12.0)


def test_a_late_answer_forgives_nothing() -> None:
    """The answer that ends the silence which was counted."""
    breaker = CircuitBreaker(1.0)
    assert not breaker.is_too_silent(10.0, 11.0)
    breaker.answered(10.0)
    assert breaker.is_too_silent(12.0, 13.0)


def test_an_answer_in_time_forgives_what_was_missed() -> None:
    """Only deadlines in a row count."""
    breaker = CircuitBreaker(1.0)
    assert not breaker.is_too_silent(10.0, 11.0)
    breaker.answered(11.5)
    assert not breaker.is_too_silent(12.0, 13.0)


def test_it_remembers_why_it_opened_until_it_closes() -> None:
    """The cause is what operators see; a closed breaker starts counting anew."""
    breaker = CircuitBreaker(1.0)
    assert not breaker.is_too_silent(10.0, 11.0)
    breaker.trip("timeout: silent")
    assert breaker.is_open
    assert breaker.cause == "timeout: silent"
    breaker.close()
    assert not breaker.is_open
    assert not breaker.is_too_silent(12.0, 13.0)


@given(st.integers(0, 50), st.floats(0, 1))
def test_pauses_grow_with_failures_but_never_beyond_half_a_second(failures: int, chance: float) -> None:
    """A server that is back is found within a second, however long it was away, and no two processes knock in step."""
    breaker = CircuitBreaker(1.0)
    first_s = breaker.pause_s(1.0)
    for _ in range(failures):
        breaker.trip("connection: refused")
    assert 0 < breaker.pause_s(chance) <= 0.5
    assert breaker.pause_s(1.0) >= first_s
    assert breaker.pause_s(0.0) == breaker.pause_s(1.0) / 2


def test_the_first_pause_is_the_shortest() -> None:
    """A server that was away for a moment is asked again after 25 to 50 milliseconds."""
    breaker = CircuitBreaker(1.0)
    breaker.trip("connection: refused")
    assert (breaker.pause_s(0.0), breaker.pause_s(1.0)) == (0.025, 0.05)
    breaker.trip("connection: refused")
    assert breaker.pause_s(1.0) == 0.1


def test_a_probe_that_was_answered_does_not_shorten_the_pauses_a_check_does() -> None:
    """A server that answers probes and refuses checks is not asked ever faster."""
    breaker = CircuitBreaker(1.0)
    for _ in range(5):
        breaker.trip("readonly: replica")
    longest = breaker.pause_s(1.0)
    breaker.close()
    assert breaker.pause_s(1.0) == longest
    breaker.answered(20.0)
    assert breaker.pause_s(1.0) < longest
