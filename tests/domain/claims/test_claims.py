"""Claims: what is reserved, held or lent counts against the capacity until it is settled, comes back, or ends."""

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket import Bucket
from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import wait_us
from sluicegate.domain.claims.claim import AS_RESERVED, CHARGE, HOLD, IN_TIME, KEPT_US, LATE, NOT_FOUND, RELEASE
from sluicegate.domain.claims.claims import Claims
from sluicegate.domain.rules.rule import RateLimitRule
from support.trace_check import compiled

START_US = 1_000_000_000_000
SECOND_US = 1_000_000
RULE = RateLimitRule(100, 600, "ip")  # ten tokens a second
SPEC = RULE.spec
TOKEN = SPEC.units_per_token


class Buckets:
    """One bucket in a table, in tokens and seconds."""

    def __init__(self, spec: BucketSpec = SPEC) -> None:
        self.spec = spec
        self.table = BucketTable(10)
        self.now_us = START_US

    def ask(self, tokens: int) -> BucketRequest:
        """Return a request of so many tokens."""
        return BucketRequest("k", self.spec, tokens * self.spec.units_per_token)

    def take(self, tokens: int) -> bool:
        """Take tokens."""
        return self.table.take((self.ask(tokens),), self.now_us).allowed

    def reserve(self, number: int, tokens: int, kind: int = CHARGE, ttl_s: float = 60) -> bool:
        """Reserve tokens."""
        terms = [ClaimTerms(kind, round(ttl_s * SECOND_US))]
        return self.table.reserve((self.ask(tokens),), number, terms, self.now_us).allowed

    def settle(self, number: int, tokens: int | None, max_debt: int = 100) -> tuple[int, float, float]:
        """Settle a reservation: what was found, and the tokens that were charged and that came back."""
        token = self.spec.units_per_token
        cost = AS_RESERVED if tokens is None else tokens * token
        (one,) = self.table.settle([BucketRequest("k", self.spec, cost)], number, [max_debt * token], self.now_us)
        return one.found, one.charged_units / token, one.returned_units / token

    def level(self) -> float:
        """Return the tokens in the bucket."""
        return self.table.peek([self.ask(0)], self.now_us)[0].level / self.spec.units_per_token

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_us += round(seconds * SECOND_US)


def test_what_was_reserved_is_gone_at_once_and_the_difference_comes_back() -> None:
    """Nobody else can have what is reserved; a commit of less gives the rest back."""
    buckets = Buckets()
    assert buckets.reserve(1, 80)
    assert not buckets.take(30)
    assert buckets.settle(1, 50) == (IN_TIME, 50, 30)
    assert buckets.level() == 50
    assert buckets.take(50)


def test_a_second_settlement_changes_nothing() -> None:
    """A claim is settled once, whoever tries again."""
    buckets = Buckets()
    buckets.reserve(1, 80)
    buckets.settle(1, 50)
    assert buckets.settle(1, 90) == (NOT_FOUND, 0, 0)
    assert buckets.settle(2, 90) == (NOT_FOUND, 0, 0)
    assert buckets.level() == 50


def test_what_exceeds_the_reservation_is_debt_up_to_its_bound() -> None:
    """The level falls below zero, no further than the bound; nothing is admitted until that is repaid."""
    buckets = Buckets()
    buckets.reserve(1, 80)
    buckets.reserve(2, 20)
    assert buckets.settle(1, 110, max_debt=50) == (IN_TIME, 110, 0)
    assert buckets.level() == -30
    assert buckets.settle(2, 60, max_debt=50) == (IN_TIME, 40, 0)
    assert buckets.level() == -50
    assert not buckets.table.take((buckets.ask(0),), buckets.now_us).allowed
    buckets.wait(5)
    assert not buckets.take(1)
    buckets.wait(0.1)
    assert buckets.take(1)


def test_a_bucket_in_debt_is_full_when_the_debt_and_the_capacity_have_flowed_in() -> None:
    """The time to full of an empty bucket is not enough."""
    buckets = Buckets()
    buckets.reserve(1, 100)
    buckets.settle(1, 200)
    buckets.wait(10)
    assert buckets.level() == 0
    buckets.wait(9.9)
    assert buckets.level() == 99
    buckets.wait(10)
    assert buckets.level() == 100


def test_a_reservation_that_nobody_settles_is_charged_or_released_at_its_end() -> None:
    """At its end, to the microsecond, by the storage's clock."""
    for kind, after in ((CHARGE, 60), (RELEASE, 90)):
        buckets = Buckets()
        buckets.take(50)
        buckets.reserve(1, 30, kind, ttl_s=4)
        buckets.wait(3.999_999)
        assert round(buckets.level(), 4) == 60
        buckets.wait(0.000_001)
        assert buckets.level() == after


def test_a_late_commit_charges_what_is_not_charged_yet_and_returns_nothing() -> None:
    """Of an estimate that counts as spent only the excess is charged; of a released one everything."""
    for kind, cost, charged, left in ((CHARGE, 20, 30, 65), (CHARGE, 45, 45, 50), (RELEASE, 20, 20, 75)):
        buckets = Buckets()
        buckets.take(45)
        buckets.reserve(1, 30, kind, ttl_s=4)
        buckets.wait(4)
        assert buckets.settle(1, cost) == (LATE, charged, 0)
        assert buckets.level() == left
        assert buckets.settle(1, cost) == (NOT_FOUND, 0, 0)


def test_an_unsettled_reservation_is_forgotten_ten_minutes_after_its_end() -> None:
    """A commit after that changes nothing, and memory is bounded."""
    buckets = Buckets()
    buckets.reserve(1, 30, ttl_s=4)
    buckets.wait(4 + KEPT_US / SECOND_US - 0.000_001)
    assert buckets.settle(1, 40)[0] == LATE
    buckets.reserve(2, 30, ttl_s=4)
    buckets.wait(4 + KEPT_US / SECOND_US)
    assert buckets.settle(2, 40) == (NOT_FOUND, 0, 0)


def test_a_return_never_lifts_a_bucket_that_has_refilled_meanwhile() -> None:
    """While a reservation is out the bucket fills; what then finds no room beside it does not come back later."""
    buckets = Buckets()
    buckets.reserve(1, 40)
    buckets.wait(3)
    assert buckets.level() == 90
    assert buckets.take(90)
    assert buckets.settle(1, 0) == (IN_TIME, 0, 10)
    assert buckets.level() == 10


def test_a_long_reservation_costs_no_refill() -> None:
    """A client that has reserved everything for long gets its rate all the same."""
    buckets = Buckets()
    buckets.reserve(1, 100)
    for number in range(2, 12):
        buckets.wait(1)
        assert buckets.reserve(number, 10)
        assert not buckets.take(1)


def test_holds_are_admitted_up_to_the_capacity_and_come_back() -> None:
    """A slot is free as soon as a hold is released or has ended, and never before."""
    spec = BucketSpec(2, 1, 2, 1, 1)
    buckets = Buckets(spec)
    assert buckets.reserve(1, 1, HOLD, ttl_s=10)
    buckets.wait(5)
    assert buckets.reserve(2, 1, HOLD, ttl_s=10)
    denied = buckets.table.reserve((buckets.ask(1),), 3, [ClaimTerms(HOLD, 1)], buckets.now_us)
    assert not denied.allowed
    assert wait_us(spec, 1, denied.levels[0].level, denied.levels[0].effective_in_us) == 5 * SECOND_US
    assert buckets.settle(1, None) == (IN_TIME, 0, 1)
    assert buckets.settle(1, None) == (NOT_FOUND, 0, 0)
    assert buckets.reserve(3, 1, HOLD, ttl_s=10)
    assert not buckets.reserve(4, 1, HOLD, ttl_s=10)
    buckets.wait(10)
    assert buckets.reserve(4, 1, HOLD, ttl_s=10)
    assert buckets.reserve(5, 1, HOLD, ttl_s=10)
    assert not buckets.reserve(6, 1, HOLD, ttl_s=10)


def test_a_claim_is_extended_never_shortened_and_never_revived() -> None:
    """An end moves back; after the end there is nothing to extend."""
    buckets = Buckets(BucketSpec(1, 1, 1, 1, 1))
    buckets.reserve(1, 1, HOLD, ttl_s=10)
    assert buckets.table.extend([buckets.ask(0)], 1, [SECOND_US], buckets.now_us)
    buckets.wait(9)
    assert not buckets.take(1)
    assert buckets.table.extend([buckets.ask(0)], 1, [10 * SECOND_US], buckets.now_us)
    buckets.wait(9.999_999)
    assert not buckets.reserve(2, 1, HOLD)
    buckets.wait(0.000_001)
    assert not buckets.table.extend([buckets.ask(0)], 1, [10 * SECOND_US], buckets.now_us)
    assert buckets.reserve(2, 1, HOLD)
    assert not buckets.table.extend([buckets.ask(0)], 1, [10 * SECOND_US], buckets.now_us)


def test_a_clock_that_steps_back_does_not_prolong_a_claim() -> None:
    """It lasts as long as it was given for, counted from the step at the latest."""
    buckets = Buckets(BucketSpec(1, 1, 1, 1, 1))
    buckets.reserve(1, 1, HOLD, ttl_s=10)
    buckets.wait(-3600)
    assert not buckets.reserve(2, 1, HOLD)
    buckets.wait(10)
    assert buckets.reserve(2, 1, HOLD)


def test_a_reset_ends_holds_and_keeps_what_reservations_may_still_cost() -> None:
    """After it the bucket is full; a reservation's excess is still charged, and nothing of it comes back."""
    buckets = Buckets(BucketSpec(2, 1, 2, 1, 1))
    buckets.reserve(1, 1, HOLD)
    buckets.reserve(2, 1, HOLD)
    buckets.table.reset([buckets.ask(0)], buckets.now_us)
    assert buckets.reserve(3, 1, HOLD)
    assert buckets.reserve(4, 1, HOLD)
    assert not buckets.reserve(5, 1, HOLD)
    buckets = Buckets()
    buckets.reserve(1, 80)
    buckets.table.reset([buckets.ask(0)], buckets.now_us)
    assert buckets.take(50)
    assert buckets.settle(1, 90) == (IN_TIME, 90, 0)
    assert buckets.level() == 40


def test_several_buckets_are_reserved_together_or_not_at_all() -> None:
    """If one of two is short, nothing is reserved in the other, whichever comes first."""
    table = BucketTable(10)
    empty, full = BucketRequest("empty", SPEC, 60 * TOKEN), BucketRequest("full", SPEC, 60 * TOKEN)
    table.take((BucketRequest("empty", SPEC, 50 * TOKEN),), START_US)
    for number, requests in enumerate(((empty, full), (full, empty)), 1):
        assert not table.reserve(requests, number, [ClaimTerms(CHARGE, SECOND_US)] * 2, START_US).allowed
        found = [one.found for one in table.settle(requests, number, [0, 0], START_US)]
        assert found == [NOT_FOUND, NOT_FOUND]
    assert [one.level for one in table.peek((empty, full), START_US)] == [50 * TOKEN, 100 * TOKEN]


def test_a_bucket_with_claims_leaves_the_table_after_the_others() -> None:
    """It is not full while something may be settled: full ones leave before it."""
    table = BucketTable(2)
    request = BucketRequest("reserved", SPEC, TOKEN)
    table.reserve((request,), 1, [ClaimTerms(CHARGE, SECOND_US)], START_US)
    now_us = START_US + 100 * SECOND_US
    for number in range(20):
        table.take((BucketRequest(f"other{number}", SPEC, TOKEN),), now_us + number * 10 * SECOND_US)
    assert table.settle((BucketRequest("reserved", SPEC, 5 * TOKEN),), 1, [0], now_us)[0].found == LATE


LONG_TICKS = [BucketSpec(100, 1, 10, 60_000, 10), BucketSpec(14, 7, 7, 60_000, 2), RateLimitRule(10, 7, "ip").spec]
SPECS = [SPEC, BucketSpec(5, 1, 5, 1, 1), *LONG_TICKS]
Step = tuple[int, str, int, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 30_000, 60_000, 1_000_000, 5_000_000, 700_000_000]),
        st.sampled_from(["take", "reserve", "reserve", "settle", "settle", "extend", "refund", "reset", "deny"]),
        st.integers(1, 6),
        st.integers(0, 10),
        st.sampled_from([CHARGE, RELEASE, HOLD]),
    ),
    min_size=1,
    max_size=40,
)


def _carry_out(table: BucketTable, spec: BucketSpec, step: Step, now_us: int) -> Any:
    _, verb, number, tenths, kind = step
    units = spec.max_tokens * tenths // 10 * spec.units_per_token
    request = BucketRequest("k", spec, units)
    if verb == "take":
        return table.take((request,), now_us)
    if verb == "deny":
        return table.take((BucketRequest("k", spec, spec.capacity),), now_us)
    if verb == "reserve":
        bucket = table._find("k")
        if bucket is not None and bucket.claims is not None and bucket.claims.find(number):
            return None
        return table.reserve((request,), number, [ClaimTerms(kind, 1 + tenths * 700_000)], now_us)
    administrative = {
        "settle": lambda: table.settle([request], number, [spec.capacity], now_us),
        "extend": lambda: table.extend([request], number, [tenths * 700_000], now_us),
        "refund": lambda: table.refund([request], now_us),
        "reset": lambda: table.reset([request], now_us),
    }
    return administrative[verb]()


def _state(bucket: Bucket | None) -> tuple[int, Claims]:
    if bucket is None or bucket.claims is None:
        return 0, Claims()
    return bucket.level, bucket.claims


@given(st.sampled_from(SPECS), steps)
def test_level_and_claims_never_exceed_the_capacity(spec: BucketSpec, sequence: Sequence[Step]) -> None:
    """Whatever happens, what is there and what may come back together fit; sums are kept right; debt is bounded."""
    table, now_us = BucketTable(1), START_US
    for step in sequence:
        now_us += step[0]
        _carry_out(table, spec, step, now_us)
        bucket = table._find("k")
        level, claims = _state(bucket)
        assert level + claims.hard + claims.soft <= spec.capacity
        assert level >= -spec.capacity
        assert claims.hard == sum(claim.units for claim in claims.active if claim.is_hard)
        assert claims.soft == sum(claim.units for claim in claims.active if not claim.is_hard)
        assert all(claim.units >= 0 for claim in claims.active)


@given(st.sampled_from(SPECS), steps, st.integers(1, 10))
def test_the_wait_of_a_denial_is_exact(spec: BucketSpec, sequence: Sequence[Step], tenths: int) -> None:
    """After exactly that wait the same cost is there, a microsecond earlier it is not: ends of claims are counted in."""
    table, now_us = BucketTable(1), START_US
    request = BucketRequest("k", spec, max(1, spec.max_tokens * tenths // 10) * spec.units_per_token)
    for step in sequence:
        now_us += step[0]
        _carry_out(table, spec, step, now_us)
        verdict: Verdict = BucketTable.take(table, (BucketRequest("k", spec, spec.capacity),), now_us)
        if verdict.allowed:
            continue
        level = table.peek([request], now_us)[0].level
        if level >= request.cost_units:
            continue
        denied = table.take((request,), now_us).levels[0]
        wait = wait_us(spec, request.cost_units, denied.level, denied.effective_in_us)
        assert wait >= 1
        assert table.peek([request], now_us + wait)[0].level >= request.cost_units
        assert table.peek([request], now_us + wait - 1)[0].level < request.cost_units


def _lines(work: Callable[[], object]) -> int:
    """Return how many lines of Python something runs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.skipif(compiled(), reason="no line of compiled code is seen")
@pytest.mark.parametrize("kind", [CHARGE, RELEASE])
def test_the_work_of_a_call_does_not_grow_with_the_claims(kind: int) -> None:
    """A check, a denial, a reservation and its settlement, and the first check after one of many reservations has ended."""

    def work(claims: int) -> list[int]:
        buckets = Buckets(RateLimitRule(10**6, 60, "ip").spec)
        for number in range(1, claims + 1):
            assert buckets.reserve(number, 10, kind)
            buckets.wait(0.001)
        buckets.wait(20)  # what has flowed in leaves less to come back
        steps = [
            _lines(lambda: buckets.take(5)),
            _lines(lambda: buckets.take(999_999)),
            _lines(lambda: buckets.reserve(9_999, 1, kind, 30)),
            _lines(lambda: buckets.settle(9_999, 0)),
            _lines(lambda: buckets.settle(claims // 2, 5)),
        ]
        buckets.wait(60 - 20 - claims / 1000 + 0.0005)
        return [*steps, _lines(lambda: buckets.take(1_000_000)), _lines(lambda: buckets.take(5))]

    few, many = work(20), work(2_000)
    assert max(many[at] - few[at] for at in (0, 2, 3, 4, 6)) < 150  # to find its place takes one step for each doubling
    if kind == CHARGE:
        assert many[1] - few[1] < 150
        assert many[5] - few[5] < 150
