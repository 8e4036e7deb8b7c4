"""The bounded table of buckets: what leaves, and when."""

import sys
from types import FrameType

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.expiry_queue import ExpiryQueue
from sluicegate.domain.buckets.token_bucket import full_at_us
from sluicegate.domain.rules.rule import RateLimitRule
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
        table.take((request(str(n)),), START_US + n)
        assert len(table) <= 100
    assert table.evicted_unfull == 9_900


def test_a_full_bucket_leaves_before_any_other() -> None:
    """While full buckets exist, a client that is being limited keeps its state, whatever the flood."""
    table = BucketTable(100)
    honest = request("honest", RateLimitRule.per_hour(5))
    for _ in range(5):
        assert table.take((honest,), START_US).allowed
    for n in range(20_000):
        now_us = START_US + n * S  # each flooder's bucket is full again after twelve seconds
        table.take((request(f"flood-{n}"),), now_us)
        if n % 50 == 0 and n < 700:
            assert not table.take((honest,), now_us).allowed
    assert table.evicted_unfull == 0
    assert len(table) <= 100


def test_without_full_buckets_the_one_nearest_to_full_leaves() -> None:
    """The honest client, far from full, is kept; those who lose their state had little to lose."""
    table = BucketTable(10)
    hungry = request("hungry", cost=5)
    assert table.take((hungry,), START_US).allowed
    for n in range(1_000):
        table.take((request(f"flood-{n}"),), START_US)
    assert not table.take((hungry,), START_US).allowed
    assert table.evicted_unfull == 991


def test_memory_shrinks_after_a_flood() -> None:
    """New clients push out two full buckets each."""
    table = BucketTable(10_000)
    for n in range(5_000):
        table.take((request(f"flood-{n}"),), START_US)
    for n in range(2_600):
        table.take((request(f"later-{n}"),), START_US + 3600 * S)
    assert len(table) == 2_600


def test_full_buckets_stay_until_new_ones_come() -> None:
    """Clients who come again are known though their buckets are full; it is new clients that push full buckets out."""
    table = BucketTable(1_000_000)
    for hour in range(3):
        for n in range(100):
            table.take((request(f"regular-{n}"),), START_US + hour * 3600 * S)
        assert len(table) == 100
    for n in range(100):
        table.take((request(f"later-{n}"),), START_US + 4 * 3600 * S)
    assert len(table) == 100


def test_no_call_looks_at_more_than_a_few_buckets() -> None:
    """A full table whose buckets were all used again, so that every filed time is stale, costs a new client no more."""
    table = BucketTable(2_000)
    for second in range(3):
        for n in range(2_000):
            table.take((request(f"regular-{n}"),), START_US + second * S)
    looks = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal looks
        looks += event == "call" and frame.f_code.co_name == "_full_at_us"

    sys.setprofile(count)
    try:
        table.take((request("new"),), START_US + 30 * S)
    finally:
        sys.setprofile(None)
    assert looks <= 40
    assert len(table) == 2_000


def test_a_reset_bucket_counts_as_full() -> None:
    """It is filed until its old time, and leaves then; it can be spent again meanwhile."""
    table = BucketTable(10)
    table.take((request("a", cost=5),), START_US)
    table.reset([request("a"), request("unknown")], START_US)
    assert len(table) == 1
    assert table.take((request("a", cost=5),), START_US).allowed
    assert not table.take((request("a"),), START_US).allowed
    table.reset([request("a")], START_US)
    table.take((request("b"),), START_US + 63 * S)
    assert len(table) == 1


def test_denials_and_peeks_make_no_keys() -> None:
    """Asking for a stranger's bucket leaves nothing behind."""
    table = BucketTable(10)
    table.peek([request("a")], START_US)
    table.refund([request("b")], START_US)
    table.take((request("c", cost=5), request("d", cost=5)), START_US)
    assert not table.take((request("c"), request("e")), START_US).allowed
    assert len(table) == 2


@given(st.lists(st.integers(0, 400 * 86_400 * S), max_size=50), st.integers(0, 400 * 86_400 * S))
def test_the_queue_gives_each_key_once_and_none_before_its_time(filed: list[int], passed_us: int) -> None:
    """What is due was filed for an instant that has passed; what is not due comes out of `pop_first`."""
    queue = ExpiryQueue()
    for number, later_us in enumerate(filed):
        queue.add(str(number), START_US + later_us, START_US)
    now_us = START_US + passed_us
    popped: list[str] = []
    looks = 0
    while (key := queue.pop_due(now_us)) is not None:
        looks += 1
        full_us = START_US + filed[int(key)]
        if full_us <= now_us:
            popped.append(key)
        else:  # filed under a coarse page: it comes again, nearer to its time
            queue.add(key, full_us, now_us)
    assert looks <= 8 * len(filed)
    assert {int(key) for key in popped} >= {n for n, later_us in enumerate(filed) if later_us + 2 * S < passed_us}
    rest = [queue.pop_first() for _ in range(len(filed) - len(popped))]
    assert sorted(popped + rest, key=int) == [str(n) for n in range(len(filed))]


def test_full_at_is_the_instant_of_fullness() -> None:
    """A bucket is full at that instant and not a microsecond before."""
    spec = RateLimitRule(3, 7 * 60, "ip").spec
    table, asked = BucketTable(10), BucketRequest("a", spec, spec.units_per_token)
    table.take((asked,), START_US)
    full_us = full_at_us(spec, spec.capacity - spec.units_per_token, START_US)
    assert table.peek([asked], full_us - 1)[0].level < spec.capacity
    assert table.peek([asked], full_us)[0].level == spec.capacity


def test_a_bucket_that_made_room_for_another_of_its_check_can_leave_again() -> None:
    """A check whose new bucket pushes out its old one, which was full, writes the old one as a new one."""
    table = BucketTable(2)
    for n in range(10):
        assert table.take((request(f"client-{n}"), request("all")), START_US + n * 3600 * S).allowed
        assert len(table) <= 2
    table.take((request("somebody"),), START_US + 20 * 3600 * S)
    table.take((request("somebody else"),), START_US + 20 * 3600 * S)
    assert [
        table.peek([request(name)], START_US + 20 * 3600 * S)[0].level for name in ("somebody", "somebody else")
    ] == [4 * MINUTE.spec.units_per_token] * 2
