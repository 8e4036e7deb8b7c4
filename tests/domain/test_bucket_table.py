"""The bounded table of buckets: what leaves, and when."""

import random

from hypothesis import given
from hypothesis import strategies as st
from sluicegate.domain.bucket_at_hand import Timekeeping
from sluicegate.runtime.turn import Turn

from sluicegate.domain.bucket_request import BucketRequest
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.bucket_table import BucketTable
from sluicegate.domain.expiry_queue import ExpiryQueue
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.token_bucket import full_at_us
from support.bucket_requests import bucket_request

S = 1_000_000
START_US = 1_000 * S
MINUTE = RateLimitRule.per_minute(5)


def request(key: str, rule: RateLimitRule = MINUTE, cost: int = 1) -> BucketRequest:
    """Ask a bucket for tokens."""
    return bucket_request(rule, key, cost=cost)


def test_it_never_holds_more_than_max_keys() -> None:
    """Ten thousand clients in a table of a hundred leave a hundred."""
    table = BucketTable(100)
    for n in range(10_000):
        table.take([request(str(n))], START_US + n)
        assert len(table) <= 100
    assert table.evicted_unfull == 9_900


def test_a_full_bucket_leaves_before_any_other() -> None:
    """While full buckets exist, a client that is being limited keeps its state, whatever the flood."""
    table = BucketTable(100)
    honest = request("honest", RateLimitRule.per_hour(5))
    for _ in range(5):
        assert table.take([honest], START_US).allowed
    for n in range(20_000):
        now_us = START_US + n * S  # each flooder's bucket is full again after twelve seconds
        table.take([request(f"flood-{n}")], now_us)
        if n % 50 == 0 and n < 700:
            assert not table.take([honest], now_us).allowed
    assert table.evicted_unfull == 0
    assert len(table) <= 100


def test_without_full_buckets_the_one_nearest_to_full_leaves() -> None:
    """The honest client, far from full, is kept; those who lose their state had little to lose."""
    table = BucketTable(10)
    hungry = request("hungry", cost=5)
    assert table.take([hungry], START_US).allowed
    for n in range(1_000):
        table.take([request(f"flood-{n}")], START_US)
    assert not table.take([hungry], START_US).allowed
    assert table.evicted_unfull == 991


def test_memory_shrinks_after_a_flood() -> None:
    """New clients push out two full buckets each."""
    table = BucketTable(10_000)
    for n in range(5_000):
        table.take([request(f"flood-{n}")], START_US)
    for n in range(2_600):
        table.take([request(f"later-{n}")], START_US + 3600 * S)
    assert len(table) == 2_600


def test_a_few_full_buckets_stay() -> None:
    """Clients who come again are known though their buckets are full, where there is room for many; a crowd is not kept."""
    table = BucketTable(1_000_000)
    for hour in range(3):
        for n in range(100):
            table.take([request(f"regular-{n}")], START_US + hour * 3600 * S)
        assert len(table) == 100
    for n in range(15_000):
        table.take([request(f"crowd-{n}")], START_US + 4 * 3600 * S)
    for n in range(10_000):
        table.take([request(f"later-{n}")], START_US + (5 * 3600 + n * 60) * S)
    assert len(table) == 10_000


def test_a_reset_bucket_counts_as_full() -> None:
    """It is filed until its old time, and leaves then; it can be spent again meanwhile."""
    table = BucketTable(10)
    table.take([request("a", cost=5)], START_US)
    table.reset([request("a"), request("unknown")])
    assert len(table) == 1
    assert table.take([request("a", cost=5)], START_US).allowed
    assert not table.take([request("a")], START_US).allowed
    table.reset([request("a")])
    table.take([request("b")], START_US + 61 * S)
    assert len(table) == 1


def test_denials_and_peeks_make_no_keys() -> None:
    """Asking for a stranger's bucket leaves nothing behind."""
    table = BucketTable(10)
    table.peek([request("a")], START_US)
    table.refund([request("b")], START_US)
    table.take([request("c", cost=5), request("d", cost=5)], START_US)
    assert not table.take([request("c"), request("e")], START_US).allowed
    assert len(table) == 2


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5 * S)), max_size=200), st.randoms(use_true_random=False))
def test_the_calendar_gives_keys_in_the_order_of_fullness(steps: list[tuple[int, int]], rng: random.Random) -> None:
    """However often keys move later, the first one out is the one that is full first."""
    instants: dict[str, int] = {}
    calendar = ExpiryQueue(instants.__getitem__)
    for number, later_us in steps:
        key = str(number)
        if key in instants:
            instants[key] += later_us
        else:
            instants[key] = START_US + later_us
            calendar.file(key, instants[key])
        if instants and rng.random() < 0.2:
            first = calendar.pop_first()
            assert instants[first] == min(instants.values())
            del instants[first]
    now_us = START_US + 4 * S
    full = {key for key, instant in instants.items() if instant <= now_us}
    popped = set()
    while (key := calendar.pop_full(now_us)) is not None:
        popped.add(key)
        del instants[key]
    assert popped == full


def test_full_at_is_the_instant_of_fullness() -> None:
    """A bucket is full at that instant and not a microsecond before."""
    spec = RateLimitRule(3, 7 * 60, "ip").spec
    table, asked = BucketTable(10), BucketRequest("a", spec, spec.units_per_token)
    table.take([asked], START_US)
    full_us = full_at_us(spec, spec.capacity - spec.units_per_token, START_US)
    assert table.peek([asked], full_us - 1)[0].level < spec.capacity
    assert table.peek([asked], full_us)[0].level == spec.capacity


WELDED = [
    RateLimitRule(5, 5, "ip").spec,
    RateLimitRule(7, 11, "ip").spec,
    RateLimitRule(10**9, 999_983 / 1440, "ip").spec,  # a tick of more than a microsecond
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(WELDED),
            st.sampled_from(["a", "b"]),
            st.integers(1, 5),
            st.one_of(st.integers(-3 * S, 30 * S), st.integers(-3, 3), st.just(-200 * S)),
        ),
        max_size=30,
    )
)
def test_the_call_for_one_bucket_and_the_call_for_many_are_one(steps: list[tuple[BucketSpec, str, int, int]]) -> None:
    """Whatever the clock does and whichever rule asks, both give the same answer and leave the same state."""
    assert WELDED[2].tick_us > 1
    now_us = 10 * START_US
    one, many, turn = BucketTable(10), BucketTable(10), Turn()
    take_one = one.build_take_one(Timekeeping(turn, lambda: now_us, 1))
    for spec, key, tokens, passed_us in steps:
        now_us += passed_us
        cost_units = tokens * spec.units_per_token
        verdict = many.take([BucketRequest(key, spec, cost_units)], now_us)
        bucket_level = verdict.levels[0]
        assert take_one(key, spec, cost_units) == (verdict.allowed, bucket_level.level, bucket_level.effective_in_us)
        assert one._states == many._states
        turn.take()  # it was given back
        turn.give(None)


def test_a_bucket_that_made_room_for_another_of_its_check_can_leave_again() -> None:
    """A check whose new bucket pushes out its old one, which was full, writes the old one as a new one."""
    table = BucketTable(2)
    for n in range(10):
        assert table.take([request(f"client-{n}"), request("all")], START_US + n * 3600 * S).allowed
        assert len(table) <= 2
    table.take([request("somebody")], START_US + 20 * 3600 * S)
    table.take([request("somebody else")], START_US + 20 * 3600 * S)
    assert set(table._states) == {"somebody", "somebody else"}
