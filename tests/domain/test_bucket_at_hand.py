"""Checks of buckets at hand are the plain functions, in one piece."""

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from sluicegate.domain.bucket_at_hand import GONE, Bucket, Denial, DenialsAtHand, LoansAtHand, Timekeeping
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_spec import MAX_UNITS, BucketSpec, bucket_spec
from sluicegate.domain.bucket_table import BucketTable
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.quick_take import build_recall, build_spend, build_take, build_take_all
from sluicegate.domain.result import Success
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.token_bucket import refill, result_at, tightest, wait_us
from sluicegate.runtime.turn import Turn

START_US = 10**15
ELSEWHERE = Success(RateLimitResult(allowed=False, retry_after=-1.0, remaining=-1, limit=-1, reset_seconds=-1))


def exact_shape(tokens: int, numerator: int, denominator: int) -> BucketSpec | None:
    """Return a shape that counts in microseconds, if there is one."""
    try:
        spec = bucket_spec(tokens, Fraction(numerator, denominator))
    except InvalidInputError:
        return None
    return spec if spec.tick_us == 1 else None


SHAPES = st.one_of(
    st.builds(exact_shape, st.integers(1, 20), st.integers(1, 300), st.integers(1, 90)),
    st.builds(exact_shape, st.integers(1, 10**12), st.integers(1, 10**9), st.integers(1, 10**4)),
).filter(bool)


@st.composite
def states(draw: st.DrawFn) -> tuple[BucketSpec, int, int, int]:
    """Return a shape, a cost in units, a level and how long ago it held."""
    spec = draw(SHAPES)
    assert spec is not None
    cost_units = draw(st.integers(1, spec.max_tokens)) * spec.units_per_token
    near = [level for about in (0, cost_units, spec.capacity) for level in range(about - 2, about + 3)]
    level = draw(
        st.one_of(st.integers(0, spec.capacity), st.sampled_from([n for n in near if 0 <= n <= spec.capacity]))
    )
    filled = spec.full_ticks
    ago_us = draw(
        st.one_of(st.integers(0, 2 * filled), st.integers(-5, 5), st.sampled_from([filled - 1, filled, -filled]))
    )
    return spec, cost_units, level, ago_us


def plainly(requests: Sequence[BucketRequest], levels: Sequence[int]) -> tuple[RateLimitResult, tuple[int, ...]]:
    """Pay all demands or none from accrued levels, by the plain functions."""
    pairs = list(zip(requests, levels, strict=True))
    allowed = all(level >= request.cost_units for request, level in pairs)
    lefts = tuple(level - request.cost_units if allowed else level for request, level in pairs)
    return tightest(requests, Verdict(allowed, tuple(BucketLevel(left, 0) for left in lefts))), lefts


@given(states())
@example((bucket_spec(5, Fraction(5)), bucket_spec(5, Fraction(5)).capacity, 0, 60_000_000))
def test_a_check_of_one_bucket_is_accrue_payment_and_result(state: tuple[BucketSpec, int, int, int]) -> None:
    """The same answer and the same state, a denial writing nothing; a clock that stepped back is for others."""
    spec, cost_units, level, ago_us = state
    bucket = Bucket("k", spec, cost_units, level, START_US - ago_us)
    time = Timekeeping(Turn(), lambda: START_US, 1)
    answer = build_take(spec, cost_units, {"k": bucket}.get, lambda _: ELSEWHERE, time)("k")
    if ago_us < 0:
        assert answer is ELSEWHERE
        assert (bucket.level, bucket.last) == (level, START_US - ago_us)
        return
    accrued, anchor = refill(spec, level, START_US - ago_us, START_US)
    result, (left,) = plainly([BucketRequest("k", spec, cost_units)], [accrued])
    assert answer == Success(result)
    assert (bucket.level, bucket.last) == ((left, anchor) if result.allowed else (level, START_US - ago_us))
    assert [type(value) for value in vars_of(answer)] == [bool, float, int, int, int]


@given(st.lists(states(), min_size=2, max_size=4), st.booleans())
def test_a_check_of_several_buckets_is_accrue_payment_and_tightest(
    asked: list[tuple[BucketSpec, int, int, int]], together: bool
) -> None:
    """All are paid or none, the answer is the one that binds, and whatever else is for others changes nothing."""
    if together:
        asked = [(spec, cost_units, level, asked[0][3]) for spec, cost_units, level, _ in asked]
    before = [(level, START_US - ago_us) for _, _, level, ago_us in asked]
    buckets = tuple(
        Bucket(str(n), spec, cost_units, level, START_US - ago_us)
        for n, (spec, cost_units, level, ago_us) in enumerate(asked)
    )
    requests = [BucketRequest(bucket.key, bucket.spec, bucket.cost_units) for bucket in buckets]
    time = Timekeeping(Turn(), lambda: START_US * 1000 + 999, 1000)
    answer = build_take_all({"k": buckets}.get, lambda _: ELSEWHERE, time)("k")
    if min(ago_us for _, _, _, ago_us in asked) >= 0:
        levels = [refill(spec, level, START_US - ago_us, START_US)[0] for spec, _, level, ago_us in asked]
        result, lefts = plainly(requests, levels)
        if result.allowed:
            assert answer == Success(result)
            assert [(bucket.level, bucket.last) for bucket in buckets] == [(left, START_US) for left in lefts]
            return
    assert answer is ELSEWHERE
    assert [(bucket.level, bucket.last) for bucket in buckets] == before


@given(st.integers(1, MAX_UNITS), st.integers(1, MAX_UNITS))
@example(MAX_UNITS - 1, MAX_UNITS)
@example(3 * (MAX_UNITS // 3) - 1, 3)
def test_a_quotient_in_doubles_never_reaches_a_whole_number_too_early(level: int, units_per_token: int) -> None:
    """Whole tokens may be compared by quotients in doubles, as long as units stay below 2**53."""
    assert int(level / units_per_token) == level // units_per_token


@given(
    states(),
    st.sampled_from([0, 0, 1, 3]),
    st.integers(0, 1000),
    st.integers(-2, 2),
    st.sampled_from([True, True, False]),
)
@example((bucket_spec(5, Fraction(5)), 60_000_000, 58_999_999, 0), 0, 0, 0, True)
@example((bucket_spec(5, Fraction(5)), 60_000_000, 59_000_000, 0), 0, 0, 0, True)
@example((bucket_spec(5, Fraction(5)), 12_000_000, 0, 0), 0, 1000, 0, True)
def test_a_denial_at_hand_is_accrue_and_result(
    state: tuple[BucketSpec, int, int, int], less: int, part: int, shift: int, same: bool
) -> None:
    """The same answer until the bucket has the cost; then, and for lower costs and other rules, it is for others."""
    spec, cost_units, level, _ = state
    level = min(level, cost_units - 1)
    asked = max(1, cost_units - less)
    wait = wait_us(spec, cost_units, level, 0)
    ago_us = wait * part // 1000 + shift
    held_us = START_US - ago_us
    until_us = held_us + wait
    denial = Denial(spec if same else bucket_spec(77, Fraction(7)), cost_units, level, held_us, until_us)
    denials = DenialsAtHand({"key": denial}.get, lambda: START_US * 1000 + 999, 1000)
    recall = build_recall(spec, asked, {"me": "key", "you": "another"}.get, denials, lambda _: ELSEWHERE)
    assert recall("nobody") is ELSEWHERE
    assert recall("you") is ELSEWHERE
    answer = recall("me")
    if not same or asked < cost_units or until_us <= START_US or ago_us < 0:
        assert answer is ELSEWHERE
        return
    accrued, tick = refill(spec, level, 0, START_US - held_us)
    assert tick == START_US - held_us
    assert accrued < asked
    assert answer == Success(result_at(spec, asked, accrued, 0, allowed=False))
    assert [type(value) for value in vars_of(answer)] == [bool, float, int, int, int]


class Loan:
    """A loan, as a storage keeps it."""

    def __init__(self, spec: BucketSpec, units: int, low: int, level: int) -> None:
        self.spec, self.units, self.low, self.level = spec, units, low, level
        self.until_ns = START_US * 1000


@given(
    states(),
    st.integers(0, 12),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([-1, -1, 0]),
    st.sampled_from([1, 1, 0]),
)
@example((bucket_spec(5, Fraction(5)), 12_000_000, 47_000_001, 0), 8, None, -1, 1)
@example((bucket_spec(5, Fraction(5)), 12_000_000, 59_000_000, 0), 12, 0, -1, 1)
@example((bucket_spec(5, Fraction(5)), 12_000_000, 0, 0), 8, 1, -1, 1)
@example((bucket_spec(5, Fraction(5)), 12_000_000, 0, 0), 8, 0, 0, 1)
def test_a_check_that_is_paid_from_a_loan_is_payment_and_result(
    state: tuple[BucketSpec, int, int, int], units: int, above: int | None, late: int, same: int
) -> None:
    """The loan pays down to the mark at which it is to be renewed, until its end; what is left is bucket and loan together."""
    spec, cost_units, level, _ = state
    units = cost_units * units // 4
    low = 0 if above is None else max(0, units - cost_units + above)
    loan = Loan(spec if same else bucket_spec(77, Fraction(7)), units, low, level)
    loans = LoansAtHand({"key": loan}.get, Turn(), lambda: START_US * 1000 + late)
    spend = build_spend(spec, cost_units, {"me": "key", "you": "another"}.get, loans, lambda _: ELSEWHERE)
    assert spend("nobody") is ELSEWHERE
    assert spend("you") is ELSEWHERE
    answer = spend("me")
    if not same or units < cost_units:
        assert answer is ELSEWHERE
        assert loan.units == units
        return
    if units - cost_units < low or late >= 0:
        assert answer is None
        assert loan.units == units
        return
    assert loan.units == units - cost_units
    left = min(spec.capacity, level + loan.units)
    assert answer == Success(result_at(spec, cost_units, left, 0, allowed=True))
    assert [type(value) for value in vars_of(answer)] == [bool, float, int, int, int]


def vars_of(answer: Success[RateLimitResult] | None) -> tuple[object, ...]:
    """Return an answer's fields."""
    assert answer is not None
    result = answer.value
    return result.allowed, result.retry_after, result.remaining, result.limit, result.reset_seconds


MINUTE = RateLimitRule.per_minute(5)
HOUR = RateLimitRule.per_hour(9)


def request(key: str, rule: RateLimitRule = MINUTE, cost: int = 1) -> BucketRequest:
    """Ask a bucket for tokens."""
    return BucketRequest(key, rule.spec, cost * rule.spec.units_per_token)


def test_only_a_bucket_that_is_there_can_be_held() -> None:
    """Neither an absent one, nor one that was reset, nor one that another rule wrote, nor one that has long ticks."""
    table = BucketTable(10)
    coarse = RateLimitRule(10**9, 999_983 / 1440, "ip")
    table.take([request("z", coarse)], START_US)
    assert table.hold([request("z", coarse)]) is None
    assert table.hold([request("a")]) is None
    table.take([request("a"), request("b")], START_US)
    assert table.hold([request("a"), request("c")]) is None
    assert table.hold([request("a", HOUR)]) is None
    table.reset([request("b")])
    assert table.hold([request("b")]) is None
    held = table.hold([request("a")])
    assert held is not None
    assert table.hold([request("a")]) == held
    assert table.hold([request("a", HOUR)]) is None


def test_a_held_bucket_is_the_tables_bucket() -> None:
    """What the table does is seen in it, and what is done to it is seen in the table."""
    table = BucketTable(10)
    table.take([request("a", cost=3)], START_US)
    (bucket,) = table.hold([request("a")]) or ()
    table.refund([request("a")], START_US)
    assert bucket.level == 3 * MINUTE.spec.units_per_token
    bucket.level = 0
    assert table.peek([request("a")], START_US) == (BucketLevel(0, 0),)
    assert not table.take([request("a")], START_US).allowed


def test_who_holds_a_bucket_that_left_its_table_can_tell() -> None:
    """After a reset, a change of its rule, or when it made room, it is gone; and for another cost it is another object."""
    for leave in (
        lambda table: table.reset([request("a")]),
        lambda table: table.take([request("a", HOUR)], START_US),
        lambda table: [table.take([request(f"s{n}")], START_US + n * 60_000_000) for n in range(3)],
        lambda table: table.hold([request("a", cost=2)]),
    ):
        table = BucketTable(2)
        table.take([request("a")], START_US)
        (bucket,) = table.hold([request("a")]) or ()
        leave(table)
        assert bucket.last == GONE
