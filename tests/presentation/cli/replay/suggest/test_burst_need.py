"""The burst that a client needed: against brute force over all intervals, and against a real bucket."""

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.cli.replay.engine import Replay
from sluicegate.presentation.cli.replay.suggest.burst_need import BurstNeed, Rates
from sluicegate.presentation.cli.replay.suggest.frontier import RATES, RATES_PER_HOUR
from support.access_logs import MIDNIGHT_US, request_at

fractions = st.builds(Fraction, st.integers(1, 2_000_000), st.integers(1, 5_000))
# Rates of up to two tokens a microsecond, and requests a few microseconds apart: nothing is hidden by rounding.
events = st.lists(
    st.tuples(st.integers(0, 30) | st.integers(0, 40_000_000), st.integers(1, 5)), min_size=1, max_size=25
)


def needs_of(events: list[tuple[int, int]], rates: Rates) -> tuple[int, ...]:
    """Return the needs that one pass over events in order of time finds."""
    need = BurstNeed(rates)
    for time_us, cost in events:
        need.add(rates, time_us, cost)
    return need.needs(rates)


@example([(0, 1), (0, 1), (1, 1)], [Fraction(1_000_000)])
@given(events, st.lists(fractions, min_size=1, max_size=4))
def test_the_need_is_the_maximum_over_all_intervals(events: list[tuple[int, int]], per_second: list[Fraction]) -> None:
    """Max over i <= j of cost(i..j) - r * (t_j - t_i), in fractions, rounded up."""
    events = sorted(events, key=lambda event: event[0])
    expected: list[int] = []
    for rate in per_second:
        most = max(
            sum(cost for _, cost in events[i : j + 1]) - rate * Fraction(events[j][0] - events[i][0], 1_000_000)
            for i in range(len(events))
            for j in range(i, len(events))
        )
        expected.append(-(-most.numerator // most.denominator))
    assert list(needs_of(events, Rates(per_second))) == expected


@given(
    st.lists(st.integers(0, 400_000), min_size=1, max_size=40),
    st.sampled_from(sorted(RATES_PER_HOUR)),
)
def test_a_bucket_of_that_capacity_denies_nothing_and_one_token_less_denies(gaps_ms: list[int], rate: str) -> None:
    """The need is exact for the limiter itself: enough, and the least that is."""
    requests, at_s = [], 0.0
    for gap_ms in gaps_ms:
        at_s += gap_ms / 1000
        requests.append(request_at(at_s))
    need = BurstNeed(RATES)
    for request in requests:
        need.add(RATES, request.time_us)
    burst = need.needs(RATES)[list(RATES_PER_HOUR).index(rate)]
    for capacity, denies in ((burst, False), (burst - 1, True)):
        if capacity:
            replay = Replay({"GET /": RateLimitRule.parse(f"{rate} burst {capacity}")})
            replay.run(requests)
            assert any(tally.denied for tally in replay.tallies.values()) is denies


@given(events)
def test_a_faster_rate_needs_no_larger_burst(events: list[tuple[int, int]]) -> None:
    """The frontier falls."""
    found = needs_of(sorted(events, key=lambda event: event[0]), RATES)
    assert list(found) == sorted(found, reverse=True)


def test_a_time_that_steps_back_counts_as_the_last_one() -> None:
    """As a clock that never steps back: the request finds the bucket as it is, and refills nothing twice."""
    rates = Rates([Fraction(1)])
    backwards = needs_of([(MIDNIGHT_US + 5_000_000, 1), (MIDNIGHT_US, 1), (MIDNIGHT_US + 6_000_000, 1)], rates)
    assert backwards == (2,)
