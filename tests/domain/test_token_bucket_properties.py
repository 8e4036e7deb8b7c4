"""The arithmetic against an exact rational model, over rules from 1/day to 1,000,000/s."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

from hypothesis import assume, example, given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.domain.buckets.bucket_spec import MAX_UNITS, BucketSpec
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import convert, refill
from sluicegate.domain.rules.rule import RateLimitRule
from support.bucket_requests import client_answer

START_US = 1_000_000_000_000


@dataclass
class Model:
    """A token bucket as the textbook has it: a real number of tokens, a real clock."""

    capacity: int
    per_us: Fraction
    tokens: Fraction = field(init=False)
    last_us: int = START_US

    def __post_init__(self) -> None:
        self.tokens = Fraction(self.capacity)

    def at(self, now_us: int) -> Fraction:
        """Return the tokens at an instant; a clock that stepped back brings none."""
        elapsed = max(0, now_us - self.last_us)
        return min(Fraction(self.capacity), self.tokens + elapsed * self.per_us)

    def take(self, cost: int, now_us: int) -> bool:
        """Pay a cost if it is there."""
        tokens = self.at(now_us)
        if tokens < cost:
            return False
        self.tokens, self.last_us = tokens - cost, max(self.last_us, now_us)
        return True

    def wait_us(self, cost: int, now_us: int) -> int:
        """Return the least whole number of microseconds after which a denied cost passes."""
        return max(self.last_us - now_us, 0) + ceil((cost - self.at(now_us)) / self.per_us)


RATES = st.one_of(
    st.tuples(st.integers(1, 1_000_000), st.sampled_from([1, 60, 3_600, 86_400])),
    st.tuples(st.integers(1, 1_000), st.integers(1, 1_000)),
)


@st.composite
def rules(draw: st.DrawFn) -> tuple[RateLimitRule, Fraction]:
    """Draw a rule that is counted in microseconds, and its rate in tokens per microsecond."""
    count, seconds = draw(RATES)
    per_minute = Fraction(count * 60, seconds)
    widest = min(10**6, MAX_UNITS // (per_minute / 60_000_000).denominator)
    capacity = draw(st.integers(1, max(1, widest)))
    rate = per_minute.numerator if per_minute.denominator == 1 else per_minute.numerator / per_minute.denominator
    return RateLimitRule(capacity, rate, "ip"), per_minute / 60_000_000


@st.composite
def traffic(draw: st.DrawFn) -> tuple[RateLimitRule, Fraction, list[tuple[int, int]]]:
    """Draw a rule and steps of (microseconds that pass, cost), of sizes that matter to the rule."""
    rule, per_us = draw(rules())
    token_us = max(1, ceil(1 / per_us))
    gaps = st.one_of(st.integers(0, 3), st.integers(0, 3 * token_us), st.integers(0, 2 * token_us * rule.max_tokens))
    costs = st.one_of(st.just(1), st.integers(1, rule.max_tokens), st.just(rule.max_tokens))
    return rule, per_us, draw(st.lists(st.tuples(gaps, costs), min_size=1, max_size=30))


@given(traffic())
def test_it_decides_as_the_rational_model_does(drawn: tuple[RateLimitRule, Fraction, list[tuple[int, int]]]) -> None:
    """Verdict, remaining, exact retry_after and reset are the model's, step by step."""
    rule, per_us, steps = drawn
    assert rule.spec.tick_us == 1
    model, table, now_us = Model(rule.max_tokens, per_us), BucketTable(10), START_US
    for gap_us, cost in steps:
        now_us += gap_us
        request = BucketRequest("k", rule.spec, cost * rule.spec.units_per_token)
        wait_us = model.wait_us(cost, now_us) if model.at(now_us) < cost else 0
        verdict = table.take((request,), now_us)
        result = client_answer(request, verdict.levels[0], allowed=verdict.allowed)
        assert result.allowed == model.take(cost, now_us)
        assert result.remaining == model.at(now_us) // 1
        assert result.retry_after == wait_us / 1_000_000
        full_us = ceil((model.capacity - model.at(now_us)) / per_us)
        assert result.reset_seconds == -(-full_us // 1_000_000)


@given(traffic())
def test_waiting_retry_after_is_enough_and_no_less_is(
    drawn: tuple[RateLimitRule, Fraction, list[tuple[int, int]]],
) -> None:
    """Exactly retry_after later the denied cost passes; a microsecond earlier it does not."""
    rule, _, steps = drawn
    table, now_us = BucketTable(10), START_US
    for gap_us, cost in steps:
        now_us += gap_us
        request = BucketRequest("k", rule.spec, cost * rule.spec.units_per_token)
        verdict = table.take((request,), now_us)
        if not verdict.allowed:
            retry_us = round(client_answer(request, verdict.levels[0], allowed=False).retry_after * 1_000_000)
            assert retry_us >= 1
            assert not table.take((request,), now_us + retry_us - 1).allowed
            now_us += retry_us
            assert table.take((request,), now_us).allowed


@given(traffic())
def test_no_window_admits_more_than_capacity_plus_refill(
    drawn: tuple[RateLimitRule, Fraction, list[tuple[int, int]]],
) -> None:
    """In every window the admitted cost is at most max_tokens + rate * length, and a hungry client gets all of it."""
    rule, per_us, steps = drawn
    table, now_us, admitted = BucketTable(10), START_US, []
    for gap_us, cost in steps:
        now_us += gap_us
        if table.take((BucketRequest("k", rule.spec, cost * rule.spec.units_per_token),), now_us).allowed:
            admitted.append((now_us, cost))
    for first in range(len(admitted)):
        spent = 0
        for at_us, cost in admitted[first:]:
            spent += cost
            assert spent <= rule.max_tokens + per_us * (at_us - admitted[first][0])


@given(rules(), st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_asking_often_loses_nothing(drawn: tuple[RateLimitRule, Fraction], gaps_us: list[int]) -> None:
    """Refilling in many small steps gives what one big step gives: no drift, however often a bucket is asked."""
    rule, _ = drawn
    spec = rule.spec
    level, last = 0, START_US
    for now_us in (START_US + sum(gaps_us[: n + 1]) for n in range(len(gaps_us))):
        level, last = refill(spec, level, last, now_us)
    assert level == refill(spec, 0, START_US, START_US + sum(gaps_us))[0]


@given(traffic(), st.lists(st.booleans(), min_size=30, max_size=30), st.integers(1, 10**10))
def test_a_clock_that_steps_back_mints_nothing(
    drawn: tuple[RateLimitRule, Fraction, list[tuple[int, int]]], backwards: list[bool], step_us: int
) -> None:
    """With any steps back, no more passes than the capacity plus the refill of all the time that went forward."""
    rule, per_us, steps = drawn
    table, now_us, forward_us, admitted = BucketTable(10), START_US, 0, 0
    for (gap_us, cost), back in zip(steps, backwards, strict=False):
        now_us += gap_us
        forward_us += gap_us
        if back:
            now_us -= min(step_us, now_us - 1)
        if table.take((BucketRequest("k", rule.spec, cost * rule.spec.units_per_token),), now_us).allowed:
            admitted += cost
    assert admitted <= rule.max_tokens + per_us * forward_us


@given(rules(), st.integers(2, 1000))
def test_a_clock_that_stepped_far_back_does_not_freeze_the_bucket(
    drawn: tuple[RateLimitRule, Fraction], times: int
) -> None:
    """After a step back of many times the time to full, an empty bucket is full again within one time to full."""
    rule, _ = drawn
    spec = rule.spec
    table = BucketTable(10)
    full_us = spec.full_ticks * spec.tick_us
    start_us = START_US + times * full_us
    assume(start_us < 2**60)
    everything = BucketRequest("k", spec, spec.capacity)
    assert table.take((everything,), start_us).allowed
    later_us = start_us - times * full_us
    assert not table.take((everything,), later_us).allowed
    assert table.take((everything,), later_us + full_us).allowed


@given(rules(), rules(), st.data())
def test_a_rule_change_mints_nothing(
    old: tuple[RateLimitRule, Fraction], new: tuple[RateLimitRule, Fraction], data: st.DataObject
) -> None:
    """Under the new rule a bucket has at most the tokens that it had, less than two units fewer, capped."""
    spec, other = old[0].spec, new[0].spec
    level = data.draw(st.integers(0, spec.capacity))
    carried, last = convert(spec, other, level, START_US, START_US)
    before = min(Fraction(level, spec.units_per_token), other.max_tokens)
    after = Fraction(carried, other.units_per_token)
    assert before - Fraction(2, other.units_per_token) - Fraction(2, 2**50) <= after <= before
    assert last == START_US


COARSE = RateLimitRule(999_983, 999_983 / 1440, "ip")


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 999_983)), min_size=1, max_size=30), st.integers(0, 19))
def test_a_bucket_with_a_coarse_tick_keeps_the_window_bound(steps: list[tuple[int, int]], phase_us: int) -> None:
    """Where a tick is 20 us, no window admits more than it may either, and the wait is exact to the microsecond."""
    spec = COARSE.spec
    assert spec.tick_us > 1
    per_us = Fraction(spec.units_per_tick, spec.units_per_token * spec.tick_us)
    table, now_us, admitted = BucketTable(10), START_US + phase_us, []
    for gap_us, cost in steps:
        now_us += gap_us
        request = BucketRequest("k", spec, cost * spec.units_per_token)
        verdict = table.take((request,), now_us)
        if verdict.allowed:
            admitted.append((now_us, cost))
            continue
        retry_us = round(client_answer(request, verdict.levels[0], allowed=False).retry_after * 1_000_000)
        assert not table.take((request,), now_us + retry_us - 1).allowed
        assert table.peek([request], now_us + retry_us)[0].level >= request.cost_units
    for first in range(len(admitted)):
        spent = 0
        for at_us, cost in admitted[first:]:
            spent += cost
            assert spent <= spec.max_tokens + per_us * (at_us - admitted[first][0])


LONG_TICKS = [
    # Ticks of 60 ms in which a tenth of the bucket flows in, half of it, or all of it twice.
    BucketSpec(100, 1, 10, 60_000, 10),
    BucketSpec(14, 7, 7, 60_000, 2),
    BucketSpec(30, 1, 60, 60_000, 1),
    RateLimitRule(10**12, 10**9 + 1, "ip").spec,
]


def test_what_found_no_room_within_a_tick_does_not_come_after_it() -> None:
    """A bucket that a tick fills, paid out just before the next one, is empty when that begins."""
    spec, table, tick_us = LONG_TICKS[2], BucketTable(1), 60_000
    start_us = tick_us * 10**7
    assert table.take((BucketRequest("k", spec, 10),), start_us + 30_000).allowed
    assert table.take((BucketRequest("k", spec, 20),), start_us + tick_us + 59_000).allowed
    assert table.peek([BucketRequest("k", spec, 0)], start_us + 2 * tick_us)[0].level == 0
    assert table.take((BucketRequest("k", spec, 30),), start_us + 3 * tick_us).allowed


@example(LONG_TICKS[2], [(49_000, 3), (89_000, 1), (2_000, 1)])
@given(
    st.sampled_from(LONG_TICKS),
    st.lists(
        st.tuples(st.sampled_from([0, 1_000, 19_000, 39_000, 59_000, 60_000, 119_000]), st.integers(1, 4)),
        min_size=2,
        max_size=40,
    ),
)
def test_a_bucket_that_gains_many_tokens_in_a_tick_keeps_the_window_bound(
    spec: BucketSpec, steps: list[tuple[int, int]]
) -> None:
    """What a nearly full bucket had no room for within a tick does not come when the next one begins."""
    table = BucketTable(1)
    now_us = START_US
    per_us = Fraction(spec.units_per_tick, spec.tick_us)
    above = Fraction(0)
    before_us = now_us
    for later_us, share in steps:
        now_us += later_us
        tokens = table.peek([BucketRequest("k", spec, 0)], now_us)[0].level // spec.units_per_token
        cost_units = max(1, tokens // share) * spec.units_per_token
        verdict = table.take((BucketRequest("k", spec, cost_units),), now_us)
        if verdict.allowed:
            above = max(Fraction(0), above - per_us * (now_us - before_us)) + cost_units
            before_us = now_us
        assert above <= spec.capacity
