"""The arithmetic by hand: one table of traffic and what comes of it."""

import copy
import math
import pickle

import pytest

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_spec import MAX_UNITS, BucketSpec
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import binding, full_at_us, impossible, refill, result_at
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.rule import RateLimitRule
from support.bucket_requests import client_answer

S = 1_000_000

# Columns: seconds, cost; allowed, retry_after, remaining, reset_seconds.
FIVE_A_MINUTE = [
    (0, 1, True, 0.0, 4, 12),
    (0, 4, True, 0.0, 0, 60),
    (0, 1, False, 12.0, 0, 60),
    (11.999_999, 1, False, 0.000_001, 0, 49),
    (12, 1, True, 0.0, 0, 60),
    (12, 2, False, 24.0, 0, 60),
    (18, 2, False, 18.0, 0, 54),  # a denial took nothing: half a token is there
    (24, 1, True, 0.0, 0, 60),
    (1000, 1, True, 0.0, 4, 12),  # a long rest fills it, and no more
    (1000, 5, False, 12.0, 4, 12),
]


def test_five_a_minute() -> None:
    """A bucket of five tokens, one in twelve seconds, answers as worked out by hand."""
    rule, table = RateLimitRule.per_minute(5), BucketTable(10)
    for seconds, cost, allowed, retry_after, remaining, reset_seconds in FIVE_A_MINUTE:
        request = BucketRequest("k", rule.spec, cost * rule.spec.units_per_token)
        verdict = table.take((request,), S * S + round(seconds * S))
        result = client_answer(request, verdict.levels[0], allowed=verdict.allowed)
        assert result == RateLimitResult(allowed, retry_after, remaining, 5, reset_seconds), (seconds, cost)


def test_nine_tenths_a_second_keeps_the_fraction() -> None:
    """Asked once a second for ten minutes, 0.9 tokens a second admit 60 + 0.9 * 599: whole-second clocks lose half of it."""
    rule, table = RateLimitRule(60, 54, "ip"), BucketTable(10)
    request = BucketRequest("k", rule.spec, rule.spec.units_per_token)
    admitted = sum(table.take((request,), S * S + second * S).allowed for second in range(600))
    assert admitted == 599  # it had 60 + 0.9 * 599 tokens = 599.1


def test_a_small_burst_on_a_fast_rule_still_limits() -> None:
    """A hundred a second with a burst of 49 denies the fiftieth at once."""
    rule, table = RateLimitRule.per_second(100, burst=49), BucketTable(10)
    request = BucketRequest("k", rule.spec, rule.spec.units_per_token)
    assert sum(table.take((request,), S * S).allowed for _ in range(200)) == 49


def test_the_finest_tick_that_fits_is_used() -> None:
    """Microseconds as long as the products fit, then the next divisor of a minute."""
    assert RateLimitRule.per_minute(100).spec.tick_us == 1
    spec = RateLimitRule.per_day(999_983).spec
    assert spec.tick_us == 20
    assert spec.capacity <= MAX_UNITS


def test_a_bucket_that_cannot_be_counted_is_refused() -> None:
    """The error names both fields, for either may be changed."""
    with pytest.raises(InvalidInputError, match=r"refill_rate=.*max_tokens=1000000000000"):
        RateLimitRule(10**12, math.pi, "ip")
    with pytest.raises(InvalidInputError, match="a hundred thousand years"):
        RateLimitRule(10**12, 0.001, "ip")


def test_a_clock_that_stepped_back_counts_the_wait_from_where_it_was() -> None:
    """The wait bridges the step: at the instant told, the token is there."""
    spec = RateLimitRule.per_second(1).spec
    table, request = BucketTable(10), BucketRequest("k", spec, spec.units_per_token)
    assert table.take((request,), 100 * S).allowed
    verdict = table.take((request,), 100 * S - 400_000)
    assert client_answer(request, verdict.levels[0], allowed=False).retry_after == 1.4


def test_a_full_bucket_counts_from_the_next_tick() -> None:
    """With a tick of a second, what was spent in its middle is not paid for by the half that had passed."""
    spec = BucketSpec(capacity=10, units_per_token=1, units_per_tick=10, tick_us=S, full_ticks=1)
    assert refill(spec, 10, 5, 9 * S + 500_000) == (10, 10)
    assert refill(spec, 0, 10, 10 * S - 1) == (0, 10)
    assert full_at_us(spec, 0, 10) == 11 * S


def test_the_result_that_binds() -> None:
    """The longest wait of a denial wins; without one, the fewest tokens left."""
    fast, slow = RateLimitRule.per_second(1, burst=5).spec, RateLimitRule.per_minute(1, burst=50).spec
    requests = (
        BucketRequest("fast", fast, 5 * fast.units_per_token),
        BucketRequest("slow", slow, 5 * slow.units_per_token),
    )

    def answer(allowed: bool, *tokens: int) -> RateLimitResult:
        levels = [BucketLevel(n * d.spec.units_per_token, 0) for n, d in zip(tokens, requests, strict=True)]
        verdict = Verdict(allowed, tuple(levels))
        return result_at(requests, verdict, binding(requests, verdict))

    assert answer(False, 4, 50) == RateLimitResult(False, 1.0, 4, 5, 1)
    assert answer(False, 0, 4) == RateLimitResult(False, 60.0, 4, 50, 46 * 60)
    assert answer(True, 4, 3) == RateLimitResult(True, 0.0, 3, 50, 47 * 60)
    assert answer(True, 3, 4) == RateLimitResult(True, 0.0, 3, 5, 2)
    assert answer(True, 3, 3) == RateLimitResult(
        True, 0.0, 3, 50, 47 * 60
    )  # of equals, the one that takes longer to fill
    assert impossible(5) == RateLimitResult(False, math.inf, 0, 5, 0)


def test_a_spec_means_the_same_in_every_process() -> None:
    """Equal rules have equal specs, whatever process made them; a copy and a pickled one are told apart from no other."""
    spec, other = RateLimitRule(5, 7, "ip").spec, RateLimitRule(5, 8, "ip").spec
    pickled = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own
    for same in (RateLimitRule(5, 7, "user", cost=2).spec, pickled, copy.deepcopy(spec)):
        assert same == spec
        assert hash(same) == hash(spec)
        assert same.text == spec.text
    assert other != spec
