"""The buckets in the file against the arithmetic in Python: the same sequences, the same answers, to the bit."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import RateLimitRule, StorageError
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.infrastructure.redis.calls import TAKE
from sluicegate.infrastructure.shared_memory.layout import GROUP_SLOTS, MAX_REQUESTS
from sluicegate.testing import FakeClock, RecordingLogger
from support.bucket_model import START_US, Buckets, Step, drawn_request, specs, steps
from support.bucket_requests import bucket_request
from support.shared_memory import SharedBucketsAt, SharedMemoryStorage


@pytest.fixture
def shared(tmp_path: Path) -> SharedBucketsAt:
    """Return empty buckets."""
    return SharedBucketsAt(tmp_path / "buckets")


@pytest.fixture(scope="module")
def shared_by_examples(tmp_path_factory: pytest.TempPathFactory) -> SharedBucketsAt:
    """Return buckets that the examples of a test clear themselves."""
    return SharedBucketsAt(tmp_path_factory.mktemp("table") / "buckets")


@given(st.lists(specs, min_size=3, max_size=3), st.lists(steps, min_size=1, max_size=25))
def test_shared_memory_and_the_arithmetic_agree_to_the_bit(
    shared_by_examples: SharedBucketsAt, given_specs: list[BucketSpec], sequence: list[Step]
) -> None:
    """Levels and verdicts are the same through refills, denials, rule changes and clocks that step back."""
    shared_by_examples.storage.clear()
    buckets = Buckets()
    now_us = START_US
    for verb, later_us, requests in sequence:
        now_us += later_us
        asked = [drawn_request(given_specs, *request) for request in requests]
        assert shared_by_examples.call(verb, asked, now_us) == buckets.call(verb, asked, now_us)


def test_as_many_rules_as_a_journal_holds_are_paid_together(shared: SharedBucketsAt) -> None:
    """32 rules of one check are charged or not as one; a check of 33 is no decision."""
    rule = RateLimitRule.per_day(2)
    requests = [bucket_request(rule) for _ in range(MAX_REQUESTS)]
    assert [shared.call(TAKE, requests, START_US).allowed for _ in range(3)] == [True, True, False]
    levels = shared.storage.peek_blocking(requests)
    assert {level.level for level in levels} == {0}
    with pytest.raises(StorageError, match="33 rules in one check") as raised:
        shared.call(TAKE, [*requests, bucket_request(rule)], START_US)
    assert raised.value.reason == "too_many_rules"


def test_full_buckets_leave_before_any_other(shared: SharedBucketsAt) -> None:
    """Three times as many clients as there is room for, each of them soon full again, wash no limited client out."""
    slots = shared.storage.info().slots
    limited = [bucket_request(RateLimitRule.per_day(3), cost=3) for _ in range(slots // GROUP_SLOTS // 4)]
    for request in limited:
        assert shared.call(TAKE, [request], START_US).allowed
    passing = RateLimitRule.per_second(1000)
    now_us = START_US
    for _ in range(3 * slots):
        now_us += 1001
        assert shared.call(TAKE, [bucket_request(passing)], now_us).allowed
    assert shared.storage.evicted_unfull == 0
    assert not any(shared.call(TAKE, [request], now_us).allowed for request in limited)


def test_where_none_is_full_the_next_to_be_full_leaves_and_is_counted(shared: SharedBucketsAt) -> None:
    """A flood of clients in debt for seconds does not wash out those that are denied for a day, and what is lost is told."""
    info = shared.storage.info()
    limited = [bucket_request(RateLimitRule.per_day(3), cost=3) for _ in range(info.slots // GROUP_SLOTS // 4)]
    for request in limited:
        assert shared.call(TAKE, [request], START_US).allowed
    flood = RateLimitRule.per_minute(10)
    for _ in range(2 * info.slots):
        assert shared.call(TAKE, [bucket_request(flood)], START_US).allowed
    assert not any(shared.call(TAKE, [request], START_US).allowed for request in limited)
    info = shared.storage.info()
    lost = len(limited) + 2 * info.slots - info.buckets
    assert info.evicted_unfull == shared.storage.evicted_unfull == lost > 0
    assert info.unfull == info.buckets <= info.slots


def test_a_check_of_several_new_clients_gives_each_a_slot_of_its_own(shared: SharedBucketsAt) -> None:
    """However full their groups are, no bucket of a check takes the place of another one of it."""
    rule = RateLimitRule.per_day(5)
    for _ in range(shared.storage.info().slots // MAX_REQUESTS + 1):  # more than there is room for, wherever they fall
        requests = [bucket_request(rule) for _ in range(MAX_REQUESTS)]
        assert shared.call(TAKE, requests, START_US).allowed
        assert {level.level for level in shared.storage.peek_blocking(requests)} == {4 * rule.spec.units_per_token}
    assert shared.storage.evicted_unfull > 0


def test_losses_are_told_once_a_minute(tmp_path: Path) -> None:
    """One line says how many buckets were lost since the last one, and which file is too small."""
    clock, logger = FakeClock(), RecordingLogger()
    storage = SharedMemoryStorage(tmp_path / "buckets", size_bytes=1 << 20, clock=clock, logger=logger)
    rule = RateLimitRule.per_day(5)

    def flood() -> None:
        for _ in range(20_000):
            storage.take_blocking([bucket_request(rule)])
        for _ in range(3):
            clock.advance(1.5)
            storage.take_blocking([bucket_request(rule)])

    def lines() -> list[int]:
        for thread in threading.enumerate():
            if thread.name == "sluicegate-notice":
                thread.join()
        assert {message for _, message, _ in logger.records} <= {
            "Shared memory is full: some clients got their tokens back early. Use a larger file."
        }
        return [int(str(context["buckets_lost"])) for _, _, context in logger.records]

    flood()
    flood()
    assert len(lines()) == 1
    clock.advance(60)
    flood()
    assert len(lines()) == 2
    assert sum(lines()) <= storage.evicted_unfull
    assert lines()[1] > 15_000
