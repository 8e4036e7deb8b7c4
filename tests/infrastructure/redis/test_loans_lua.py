"""Loans in the script: what is lent counts against the capacity, so that nothing is admitted that the rule does not allow."""

import itertools
import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_spec import BucketSpec, bucket_spec
from sluicegate.domain.buckets.token_bucket import wait_us
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.redis.calls import LEND, LENT_US, PEEK, REFUND, RESET, TAKE, Call, LeaseTerms
from sluicegate.infrastructure.redis.script import Script
from support.redis_servers import RedisServer
from support.scripted_buckets import ScriptedBuckets, evaluate

START_US = 1_795_000_000_123_456
KEY = "rate_limit:global:GET /"
USED_US = 2_000_000  # how long a process spends a loan, counted from the question
RULE = RateLimitRule(100, 600, "global")


@pytest.fixture(scope="module", params=["redis_7_server", "redis_6_server"])
def lua(request: pytest.FixtureRequest) -> ScriptedBuckets:
    """Return the script on each version of Redis."""
    return ScriptedBuckets(request.getfixturevalue(request.param))


def request(tokens: int, spec: BucketSpec = RULE.spec) -> BucketRequest:
    """Ask the bucket for tokens."""
    return BucketRequest(KEY, spec, tokens * spec.units_per_token)


def tokens(number: int, spec: BucketSpec = RULE.spec) -> int:
    """Return so many tokens in units."""
    return number * spec.units_per_token


def level(lua: ScriptedBuckets, now_us: int, spec: BucketSpec = RULE.spec) -> float:
    """Return the tokens in the bucket, loans not counted."""
    return float(Fraction(lua.call([(PEEK, [request(0, spec)])], now_us)[0][0].level, spec.units_per_token))


def test_a_loan_is_taken_out_of_the_bucket(lua: ScriptedBuckets) -> None:
    """What is lent is not there for others; the cost is paid first."""
    lua.client.flushall()
    loan = lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    assert loan == (Verdict(True, loan.verdict.levels), tokens(20))
    assert loan.verdict.levels[0].level == tokens(79)
    assert level(lua, START_US) == 79
    verdicts = lua.call([(TAKE, [request(1)])] * 80, START_US)
    assert [verdict.allowed for verdict in verdicts] == [True] * 79 + [False]


def test_a_bucket_with_loans_fills_up_to_what_is_not_lent(lua: ScriptedBuckets) -> None:
    """Bucket and loans together never hold more than the capacity: time that passes near full is lost, as ever."""
    lua.client.flushall()
    lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    assert level(lua, START_US + 50_000) == 79.5
    assert level(lua, START_US + 2_000_000) == 80


def test_a_loan_that_ends_unreported_counts_as_spent(lua: ScriptedBuckets) -> None:
    """From its end on the room that it took is filled, and not before."""
    lua.client.flushall()
    lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    assert level(lua, START_US + LENT_US - 1) == 80
    assert level(lua, START_US + LENT_US) == 80
    assert level(lua, START_US + LENT_US + 500_000) == 85
    assert level(lua, START_US + LENT_US + 10_000_000) == 100


def test_what_is_returned_is_in_the_bucket_again(lua: ScriptedBuckets) -> None:
    """Nothing is gained or lost by borrowing and returning; what was spent makes room."""
    lua.client.flushall()
    lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    loan = lua.lend(request(0), START_US, lease_id=0, returned=tokens(15))
    assert loan.units == 0
    assert loan.verdict.levels[0].level == tokens(94)
    assert level(lua, START_US + 600_000) == 100


def test_nothing_comes_back_twice_nor_after_the_end(lua: ScriptedBuckets) -> None:
    """A return counts up to what is lent to this process, and a loan that has ended is worth nothing."""
    lua.client.flushall()
    lua.call([(TAKE, [request(100)])], START_US)
    lua.lend(request(0), START_US + 2_000_000, lease_id=0, wanted=tokens(10))
    assert level(lua, START_US + 2_000_000) == 10
    assert lua.lend(request(0), START_US + 2_000_000, lease_id=1, returned=tokens(10)).verdict.levels[
        0
    ].level == tokens(10)
    assert lua.lend(request(0), START_US + 2_000_000, lease_id=0, returned=tokens(30)).verdict.levels[
        0
    ].level == tokens(20)
    assert lua.lend(request(0), START_US + 2_000_000, lease_id=0, returned=tokens(10)).verdict.levels[
        0
    ].level == tokens(20)
    lua.lend(request(0), START_US + 2_000_000, lease_id=0, wanted=tokens(10))
    late = lua.lend(request(0), START_US + 2_000_000 + LENT_US, lease_id=0, returned=tokens(10))
    assert late.verdict.levels[0].level == tokens(35)


def test_room_is_made_for_what_a_process_keeps_beyond_the_end(lua: ScriptedBuckets) -> None:
    """A report that comes late takes back what was refilled meanwhile, rather than leaving more than the capacity."""
    lua.client.flushall()
    lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    lua.call([(TAKE, [request(1)])], START_US + 60_000_000)
    late = lua.lend(request(0), START_US + 60_000_000, lease_id=0, kept=tokens(20))
    assert late.verdict.levels[0].level == tokens(80)


def test_at_most_half_of_what_is_left_is_lent_and_of_the_capacity(lua: ScriptedBuckets) -> None:
    """One process leaves something to the others, and all loans together leave half of the capacity."""
    lua.client.flushall()
    assert lua.lend(request(1), START_US, lease_id=0, wanted=tokens(1000)).units == tokens(49)
    assert lua.lend(request(1), START_US, lease_id=1, wanted=tokens(1000)).units == tokens(1)
    assert lua.lend(request(1), START_US, lease_id=2, wanted=tokens(1000)).units == 0
    lua.call([(RESET, [request(0)]), (TAKE, [request(45)])], START_US)
    assert level(lua, START_US) == 5
    lua.lend(request(0), START_US, lease_id=0, returned=0)
    assert lua.lend(request(0), START_US, lease_id=0, wanted=tokens(1000)).units == tokens(2)


def test_a_denial_lends_nothing_and_writes_nothing(lua: ScriptedBuckets) -> None:
    """A check that is not paid borrows nothing; the stored value stays as it was."""
    lua.client.flushall()
    lua.call([(TAKE, [request(97)])], START_US)
    before = lua.client.get(KEY)
    loan = lua.lend(request(5), START_US + 1000, lease_id=0, wanted=tokens(2))
    assert (loan.verdict.allowed, loan.units) == (False, 0)
    assert lua.client.get(KEY) == before


def test_too_many_loans_of_one_bucket_are_refused(lua: ScriptedBuckets) -> None:
    """The value at a key stays short, however many processes ask; checks are decided as ever."""
    lua.client.flushall()
    spec = RateLimitRule(100_000, 1, "global").spec
    loans = [lua.lend(request(1, spec), START_US, lease_id=n, wanted=tokens(10, spec)) for n in range(70)]
    assert [loan.units > 0 for loan in loans] == [True] * 64 + [False] * 6
    assert all(loan.verdict.allowed for loan in loans)


def test_a_reset_leaves_what_is_lent_where_it_is(lua: ScriptedBuckets) -> None:
    """Bucket and loans together are full afterwards, not fuller; without loans the key goes."""
    lua.client.flushall()
    lua.lend(request(60), START_US, lease_id=0, wanted=tokens(10))
    lua.call([(RESET, [request(0)])], START_US)
    assert level(lua, START_US) == 90
    lua.call([(RESET, [request(0)])], START_US + LENT_US)
    assert lua.client.exists(KEY) == 0


def test_a_refund_stops_at_what_is_not_lent(lua: ScriptedBuckets) -> None:
    """Tokens are given back up to the capacity less the loans."""
    lua.client.flushall()
    lua.lend(request(5), START_US, lease_id=0, wanted=tokens(10))
    levels = lua.call([(REFUND, [request(50)])], START_US)[0]
    assert levels[0].level == tokens(90)


def test_checks_of_one_call_see_each_others_loans(lua: ScriptedBuckets) -> None:
    """A loan, a payment, another loan and its return in one call are as if each came alone."""
    lua.client.flushall()
    calls = [
        ("lend", request(1), 0, 0, 0, 20),
        ("take", request(9), 0, 0, 0, 0),
        ("lend", request(0), 1, 0, 0, 10),
        ("lend", request(0), 0, 20, 0, 5),
        ("take", request(70), 0, 0, 0, 0),
    ]
    answers = []
    for verb, asked, lease_id, returned, kept, wanted in calls:
        if verb == "take":
            answers.append(lua.call([(TAKE, [asked])], START_US)[0].levels[0].level)
        else:
            loan = lua.lend(
                asked, START_US, lease_id=lease_id, returned=tokens(returned), kept=tokens(kept), wanted=tokens(wanted)
            )
            answers.append(loan.verdict.levels[0].level)
    assert answers == [tokens(79), tokens(70), tokens(60), tokens(75), tokens(5)]
    lua.client.flushall()
    terms = [
        LeaseTerms(lease_id + 1, tokens(returned), tokens(kept), tokens(wanted))
        for _, _, lease_id, returned, kept, wanted in calls
    ]
    together = lua.send(
        [
            Call(LEND, [asked], Future(), 0.0, terms[at]) if verb == "lend" else Call(TAKE, [asked], Future(), 0.0)
            for at, (verb, asked, *_) in enumerate(calls)
        ],
        START_US,
    )
    assert [_verdict(answer).levels[0].level for answer in together] == answers


def test_a_loan_that_has_ended_is_counted_once_in_a_call(lua: ScriptedBuckets) -> None:
    """The second check of a call finds the state that the first one left."""
    lua.client.flushall()
    lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    peeks = lua.call([(PEEK, [request(0)]), (PEEK, [request(0)])], START_US + LENT_US + 500_000)
    assert [levels[0].level for levels in peeks] == [tokens(85)] * 2


def _verdict(answer: object) -> Verdict:
    return answer if isinstance(answer, Verdict) else answer.verdict  # type: ignore[attr-defined]


def test_after_the_clock_stepped_back_a_loan_ends_no_later_than_a_new_one(lua: ScriptedBuckets) -> None:
    """No check waits for hours until a loan from before the step ends."""
    lua.client.flushall()
    lua.lend(request(1), START_US, lease_id=0, wanted=tokens(20))
    earlier = START_US - 3_600_000_000
    lua.call([(TAKE, [request(1)])], earlier)
    assert level(lua, earlier + LENT_US - 1) == 80
    assert level(lua, earlier + LENT_US + 1_000_000) == 90


def _coarse(max_tokens: int, tick_us: int) -> BucketSpec:
    """Return a spec with a tick longer than a microsecond, of seven units a token."""
    return BucketSpec(7 * max_tokens, 7, 3, tick_us, -(-7 * max_tokens // 3))


rules = st.builds(
    bucket_spec,
    st.integers(2, 60),
    st.one_of(
        st.integers(1, 12_000).map(Fraction), st.sampled_from([Fraction(7), Fraction(1, 3), Fraction(60_000_000)])
    ),
) | st.builds(_coarse, st.integers(2, 40), st.sampled_from([3, 1000, 60_000]))


ACTIONS = ("take", "drain", "spend", "spend", "spend_all", "borrow", "borrow", "borrow_late", "give_back", "lose")
PAUSES_US = (0, 0, 0, 700, 50_000, 300_000, 1_300_000, 1_990_000, 2_490_000, 2_600_000)
lending_rules = st.builds(
    bucket_spec, st.integers(2, 30), st.sampled_from([Fraction(7), Fraction(90), Fraction(600)])
) | st.builds(_coarse, st.integers(2, 20), st.sampled_from([3, 60_000]))


@dataclass(slots=True)
class Borrower:
    """A process that borrows: what it may spend, until when, and under which number."""

    number: int
    units: int = 0
    until_us: int = 0


class Borrowers:
    """Some processes that borrow from one bucket, and do with loans whatever processes may do.

    Args:
        lua: The bucket's server.
        spec: Its arithmetic.
    """

    def __init__(self, lua: ScriptedBuckets, spec: BucketSpec) -> None:
        self.lua, self.spec = lua, spec
        self.now_us = START_US
        self.borrowers = [Borrower(0), Borrower(1)]
        self.numbers = itertools.count(2)
        self.admitted: list[tuple[int, int]] = []

    def asked(self, units: int) -> BucketRequest:
        """Ask the bucket for units."""
        return BucketRequest(KEY, self.spec, units)

    @property
    def level(self) -> int:
        """What is in the bucket."""
        level: int = self.lua.call([(PEEK, [self.asked(0)])], self.now_us)[0][0].level
        return level

    @property
    def held(self) -> int:
        """What the processes could spend."""
        return sum(one.units for one in self.borrowers if self.now_us < one.until_us)

    def take(self, _: Borrower, units: int, __: int = 0) -> None:
        """Pay at the server."""
        if units and self.lua.call([(TAKE, [self.asked(units)])], self.now_us)[0].allowed:
            self.admitted.append((self.now_us, units))

    def drain(self, one: Borrower, *_: int) -> None:
        """Pay all there is at the server."""
        self.take(one, self.level)

    def spend_all(self, one: Borrower, *_: int) -> None:
        """Pay all of a loan."""
        if self.now_us < one.until_us:
            self.spend(one, one.units)

    def spend(self, one: Borrower, units: int, _: int = 0) -> None:
        """Pay from a loan."""
        if one.units >= units:
            one.units -= units
            self.admitted.append((self.now_us, units))

    def give_back(self, one: Borrower, *_: int) -> None:
        """Return all."""
        returned, one.units = one.units, 0
        self.lua.lend(self.asked(0), self.now_us, lease_id=one.number, returned=returned)

    def lose(self, one: Borrower, units: int, wanted: int) -> None:
        """End, or lose the reply, which is the same: it asks under another number from then on."""
        self.lua.lend(self.asked(units), self.now_us, lease_id=one.number, kept=one.units, wanted=wanted)
        one.number, one.units = next(self.numbers), 0

    def borrow(self, one: Borrower, units: int, wanted: int) -> None:
        """Pay at the server, and borrow."""
        loan = self.lua.lend(self.asked(units), self.now_us, lease_id=one.number, kept=one.units, wanted=wanted)
        if loan.verdict.allowed and units:
            self.admitted.append((self.now_us, units))
        one.units += loan.units
        one.until_us = self.now_us + USED_US

    def borrow_late(self, one: Borrower, units: int, wanted: int) -> None:
        """Borrow, and go on spending while the call is on its way."""
        sent_us, kept = self.now_us, one.units
        self.now_us += 1000
        self.spend(one, units)
        loan = self.lua.lend(self.asked(0), self.now_us, lease_id=one.number, kept=kept, wanted=wanted)
        one.units += loan.units
        one.until_us = sent_us + USED_US


@example(_coarse(2, 60_000), 59654)
@given(lending_rules, st.integers(0, 2**32))
def test_whatever_processes_do_no_window_admits_more_than_the_rule(
    lua: ScriptedBuckets, spec: BucketSpec, seed: int
) -> None:
    """Payments and what is spent of loans stay within capacity plus refill, through crashes, late reports and lost replies."""
    lua.client.flushall()
    rng = random.Random(seed)
    world = Borrowers(lua, spec)
    for _ in range(60):
        world.now_us += rng.choice(PAUSES_US)
        one = rng.choice(world.borrowers)
        if world.now_us >= one.until_us:
            one.units = 0
        units, wanted = tokens(rng.choice((1, 1, 2, 5)), spec), tokens(rng.choice((0, 3, 30)), spec)
        units = min(units, spec.capacity)
        action = rng.choice(ACTIONS)
        getattr(world, action)(one, units, wanted)
        most = _most_above_refill(world.admitted, spec)
        assert most <= spec.capacity, f"{most} of {spec.capacity} units after {action}"
        assert world.level + world.held <= spec.capacity, f"after {action}"


def _most_above_refill(admitted: Sequence[tuple[int, int]], spec: BucketSpec) -> Fraction:
    """Return the most that any window admitted beyond its refill: a bucket's burst."""
    per_us = Fraction(spec.units_per_tick, spec.tick_us)
    most = running = Fraction(0)
    before_us = 0
    for now_us, units in admitted:
        running = max(Fraction(0), running - per_us * (now_us - before_us)) + units
        most, before_us = max(most, running), now_us
    return most


@given(
    st.integers(0, 60),
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20)), max_size=4),
    st.integers(0, 1_000_000),
)
def test_the_wait_that_a_denial_tells_is_enough_and_not_too_long(
    lua: ScriptedBuckets, spent: int, cost: int, loans: list[tuple[int, int]], later_us: int
) -> None:
    """Loans that must end first are part of it: the check passes then, and a tick earlier it does not."""
    lua.client.flushall()
    spec = RateLimitRule(60, 600, "global").spec
    now_us = START_US
    lua.call([(TAKE, [request(spent, spec)])] if spent else [], now_us)
    for at, (wanted, pause) in enumerate(loans):
        lua.lend(request(0, spec), now_us, lease_id=at, wanted=tokens(wanted, spec))
        now_us += pause * 50_000
    now_us += later_us
    verdict = lua.call([(TAKE, [request(cost, spec)])], now_us)[0]
    if verdict.allowed:
        return
    bucket_level = verdict.levels[0]
    wait = wait_us(spec, tokens(cost, spec), bucket_level.level, bucket_level.effective_in_us)
    assert wait > 0
    assert not lua.call([(TAKE, [request(cost, spec)])], now_us + wait - 1)[0].allowed
    assert lua.call([(TAKE, [request(cost, spec)])], now_us + wait)[0].allowed


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 3), st.integers(0, 10)), min_size=1, max_size=20))
def test_loans_that_are_settled_in_time_change_nothing(lua: ScriptedBuckets, steps: list[tuple[int, int, int]]) -> None:
    """Bucket and loan together hold to the unit what a bucket without loans holds, as long as neither is full."""
    lua.client.flushall()
    spec = RULE.spec
    plain = BucketRequest("plain", spec, 0)
    lua.call([(TAKE, [request(90)]), (TAKE, [BucketRequest("plain", spec, tokens(90))])], START_US)
    now_us, held = START_US, 0
    for later_us, cost, wanted in steps:
        now_us += later_us
        spent = min(held, tokens(cost))
        held -= spent
        lua.call([(TAKE, [BucketRequest("plain", spec, spent)])], now_us)
        loan = lua.lend(request(0), now_us, lease_id=0, kept=held, wanted=tokens(wanted))
        held += loan.units
        assert loan.verdict.levels[0].level + held == lua.call([(PEEK, [plain])], now_us)[0][0].level


@given(rules, rules, st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 20)), min_size=1, max_size=6))
def test_a_changed_rule_mints_nothing(
    lua: ScriptedBuckets, old: BucketSpec, new: BucketSpec, loans: list[tuple[int, int]]
) -> None:
    """Bucket and loans together hold at most as many tokens as before, or as the new capacity has."""
    lua.client.flushall()
    now_us, held = START_US, Fraction(0)
    for at, (later_us, wanted) in enumerate(loans):
        now_us += later_us
        loan = lua.lend(BucketRequest(KEY, old, old.units_per_token), now_us, lease_id=at, wanted=tokens(wanted, old))
        held += Fraction(loan.units, old.units_per_token)
    before = Fraction(lua.call([(PEEK, [request(0, old)])], now_us)[0][0].level, old.units_per_token)
    after = Fraction(lua.call([(PEEK, [request(0, new)])], now_us)[0][0].level, new.units_per_token)
    assert after <= before
    assert after + held <= max(new.max_tokens, held)
    lua.call([(TAKE, [request(1, new)])], now_us)
    for later_us in (0, 1000, LENT_US // 2, LENT_US - 2_000_000 * len(loans)):
        level_then = Fraction(
            lua.call([(PEEK, [request(0, new)])], now_us + max(0, later_us))[0][0].level, new.units_per_token
        )
        in_force = held if later_us <= 0 else 0
        assert level_then + in_force <= max(new.max_tokens, held)


@given(st.integers(1, 99), st.integers(1, 50))
def test_a_key_with_loans_outlives_its_refill(redis_7_server: RedisServer, cost: int, wanted: int) -> None:
    """The expiry is not before the last loan has ended and the bucket is full."""
    client = redis_7_server.client()
    client.flushall()
    rule = RateLimitRule(100, 6000, "global")
    script = Script()
    call = Call(LEND, [request(cost, rule.spec)], Future(), 0.0, LeaseTerms(1, 0, 0, tokens(wanted, rule.spec)))
    (loan,) = evaluate(client, "EVAL", script.text, [call])
    lent = loan.units // rule.spec.units_per_token
    refill_ms = max(cost * 10, LENT_US // 1000 + lent * 10) if lent else cost * 10
    ttl_ms = int(client.pttl(KEY))  # type: ignore[arg-type]
    assert refill_ms < ttl_ms <= refill_ms + 2_100 + 10
