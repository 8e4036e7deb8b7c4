"""The short way to buckets in memory: what it has at hand never makes a difference."""

from collections.abc import Mapping
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.application import held_buckets
from sluicegate.domain import bucket_table
from sluicegate.domain.bucket_at_hand import Bucket
from sluicegate.testing import FakeClock

ONE, TWO, SLOW = "GET /one", "GET /two", "GET /slow"
COARSE = RateLimitRule(10**9, 999_983 / 1440, "ip")  # a tick of more than a microsecond
BOOKS = (
    {
        ONE: RateLimitRule.per_minute(3),
        TWO: [RateLimitRule.per_minute(4), RateLimitRule.per_hour(7, scope="global"), RateLimitRule.per_day(9)],
        SLOW: [RateLimitRule.per_minute(2), COARSE],
    },
    {
        ONE: RateLimitRule(5, 5 / 60, "ip", cost=2),
        TWO: [RateLimitRule(4, 4, "ip", cost=3), RateLimitRule.per_minute(4, scope="user")],
        SLOW: COARSE,
    },
)

VERBS = ["check"] * 8 + ["costly", "refund", "reset", "peek", "rules"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(VERBS),
        st.sampled_from([ONE, ONE, TWO, TWO, SLOW]),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(
            st.integers(0, 3_000_000),
            st.sampled_from([0, 0, 1, 12_000_000, 60_000_000, 3_600_000_000]),
            st.sampled_from([-1, -500_000, -30_000_000, -7_200_000_000, -200_000_000_000]),
        ),
    ),
    max_size=60,
)


def states(storage: MemoryStorage) -> Mapping[str, tuple[int, int, int] | None]:
    """Return each bucket's shape number, level and instant, whatever form it has; None: it was reset."""
    table = storage._table
    return {
        key: None if state == bucket_table._FULL else (spec.number, level, last)
        for key, state in table._states.items()
        for spec, level, last in [(None, 0, 0) if state == bucket_table._FULL else table._read(state)]
    }


@pytest.mark.parametrize("max_keys", [3, 1_000])
@pytest.mark.parametrize(("at_hand", "remembered"), [(2, 100), (100, 3), (100, 100)])
def test_buckets_at_hand_change_no_answer_and_no_state(at_hand: int, remembered: int, max_keys: int) -> None:
    """Through steps of the clock, costs, refunds, resets, rule changes and evictions, both ways are one."""

    @given(STEPS)
    def check(steps: list[tuple[str, str, str, int]]) -> None:
        clocks = FakeClock(10**15), FakeClock(10**15)
        storages = [MemoryStorage(clock=clock, max_keys=max_keys) for clock in clocks]
        short, long = (SyncTokenBucketAdapter(storage=storage, rules=BOOKS[0]) for storage in storages)
        book = 0
        for verb, endpoint, identifier, passed_us in steps:
            for clock in clocks:
                clock._now_us += passed_us
            long.rules.quick_checks = {}
            answers: list[object] = []
            for limiter in (short, long):
                ask = {"refund": limiter.refund, "reset": limiter.reset, "peek": limiter.peek}
                if verb == "rules":
                    answers.append(limiter.rules.replace(BOOKS[1 - book]))
                elif verb == "costly":
                    answers.append(limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=2))
                else:
                    answers.append(ask.get(verb, limiter.is_allowed)(endpoint=endpoint, identifier=identifier))
            if verb == "rules":
                book = 1 - book
            assert answers[0] == answers[1]
            assert states(storages[0]) == states(storages[1])
        assert not any(isinstance(state, Bucket) for state in storages[1]._table._states.values())

    with (
        patch.object(bucket_table, "MAX_AT_HAND", at_hand),
        patch.object(bucket_table, "_FEW", 2),
        patch.object(held_buckets, "MAX_REMEMBERED", remembered),
        patch.object(held_buckets, "_ONE_IN", 2),
    ):
        check()


def limiter_of(storage: MemoryStorage, **rules: RateLimitRule) -> SyncTokenBucketAdapter:
    """Return a limiter with the rules of endpoints by their names."""
    return SyncTokenBucketAdapter(storage=storage, rules=rules)


def at_hand(storage: MemoryStorage) -> int:
    """Return how many buckets of a storage are at hand."""
    return sum(isinstance(state, Bucket) for state in storage._table._states.values())


def test_the_buckets_of_those_who_ask_are_at_hand() -> None:
    """The first check brings a client's bucket to hand."""
    storage = MemoryStorage(clock=FakeClock())
    limiter = limiter_of(storage, items=RateLimitRule.per_minute(5))
    for _ in range(3):
        limiter.is_allowed(endpoint="items", identifier="a")
    assert at_hand(storage) == 1


def test_limiters_that_share_a_storage_share_what_is_at_hand() -> None:
    """Two limiters spend from one bucket by turns, at the same cost or at different ones."""
    for cost in (1, 2):
        storage = MemoryStorage(clock=FakeClock())
        one = limiter_of(storage, items=RateLimitRule.per_minute(9))
        two = limiter_of(storage, items=RateLimitRule(9, 9, "ip", cost=cost))
        left = 9
        while left > 2:
            for limiter, spent in ((one, 1), (two, cost)):
                left -= spent
                assert limiter.is_allowed(endpoint="items", identifier="a").value.remaining == left
        assert at_hand(storage) == 1


def test_a_crowd_of_strangers_leaves_regulars_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room only some of those who come are taken to hand, in place of the oldest, and their number is bounded."""
    monkeypatch.setattr(held_buckets, "MAX_REMEMBERED", 100)
    monkeypatch.setattr(bucket_table, "MAX_AT_HAND", 100)
    storage = MemoryStorage(clock=FakeClock())
    limiter = limiter_of(storage, items=RateLimitRule.per_minute(5))
    for n in range(4_000):
        limiter.is_allowed(endpoint="items", identifier=f"stranger-{n}")
        assert at_hand(storage) <= 100
    assert at_hand(storage) == 100
    table = storage._table
    oldest = next(key for key, state in table._states.items() if isinstance(state, Bucket))
    # Of 3,900 without room one in 32 was taken, so that these hundred are of some 3,200.
    assert 500 < int(oldest.split(":")[2].removeprefix("stranger-")) < 1_200
    assert len(table._at_hand) == 100
