"""Threads that wait get a turn, in order, and never more turns than the rule has."""

import math
import time
from collections.abc import Callable
from threading import Thread

import pytest

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitResult,
    RateLimitRule,
    SlotTimeoutError,
    SyncTokenBucketAdapter,
)
from sluicegate.application.sync_wait_queue import SyncWaitQueue
from support.down_storage import DownStorage

FAST = RateLimitRule(1, 60 * 50, "ip")  # one every 20 ms
SLOW = RateLimitRule(1, 1, "ip")
RULES = {"fast": FAST, "slow": SLOW}


@pytest.fixture
def limiter() -> SyncTokenBucketAdapter:
    """A limiter by the real clock: waiting is what is tested."""
    return SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES)


def started(target: Callable[[], object]) -> Thread:
    """Return a thread that runs."""
    thread = Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_waits_until_there_are_tokens(limiter: SyncTokenBucketAdapter) -> None:
    """Six turns at one in 20 ms take at least 100 ms, and all come."""
    began = time.monotonic()
    for _ in range(6):
        with limiter.slot(endpoint="fast", identifier="x") as result:
            assert result.allowed
    assert time.monotonic() - began >= 0.099


def test_first_come_first_served() -> None:
    """Threads get their turns in the order in which they asked, even if somebody in the middle gives up."""
    queue = SyncWaitQueue()
    open_gate = [False]
    order: list[int] = []
    late: list[int] = []

    def ask() -> RateLimitResult:
        return RateLimitResult(open_gate[0], 0.0 if open_gate[0] else 0.005, 1, 1, 1)

    def caller(number: int) -> None:
        try:
            queue.wait(ask, "fast", "x", 0.05 if number == 4 else None)
        except SlotTimeoutError:
            late.append(number)
        else:
            order.append(number)

    threads: list[Thread] = []
    for number in range(8):
        threads.append(started(lambda number=number: caller(number)))
        while number and len(next(iter(queue._queues.values()))._waiting) < number:
            time.sleep(0.001)
    threads[4].join()
    open_gate[0] = True
    for thread in threads:
        thread.join()
    assert (order, late) == ([0, 1, 2, 3, 5, 6, 7], [4])
    assert len(queue._queues) == 0


def test_one_key_does_not_hold_up_another(limiter: SyncTokenBucketAdapter) -> None:
    """A queue that stands does not stop the others."""
    limiter.wait(endpoint="slow", identifier="x")
    stuck = started(lambda: limiter.wait(endpoint="slow", identifier="x"))
    assert limiter.wait(endpoint="slow", identifier="y", timeout_s=5).allowed
    assert stuck.is_alive()


def test_gives_up_at_once_if_the_turn_would_come_too_late(limiter: SyncTokenBucketAdapter) -> None:
    """A wait that is known to be too long is not begun, and takes no token."""
    limiter.wait(endpoint="slow", identifier="x")
    with pytest.raises(SlotTimeoutError) as caught:
        limiter.wait(endpoint="slow", identifier="x", timeout_s=30)
    assert 55 < caught.value.retry_after <= 60


def test_gives_up_in_the_queue(limiter: SyncTokenBucketAdapter) -> None:
    """Who stands behind others gives up when the time is over."""
    limiter.wait(endpoint="slow", identifier="x")
    first = started(lambda: limiter.wait(endpoint="slow", identifier="x"))
    while not limiter._wait_queue._queues:
        time.sleep(0.001)
    with pytest.raises(SlotTimeoutError, match="others are before it"):
        limiter.wait(endpoint="slow", identifier="x", timeout_s=0.02)
    assert first.is_alive()


def test_an_error_leaves_the_line() -> None:
    """If asking fails the next thread gets its turn."""
    queue = SyncWaitQueue()

    def fail() -> RateLimitResult:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        queue.wait(fail, "fast", "x", None)
    assert queue.wait(lambda: RateLimitResult(True, 0.0, 1, 1, 1), "fast", "x", 1).allowed


def test_what_can_never_be(limiter: SyncTokenBucketAdapter) -> None:
    """A cost beyond the capacity is not waited for, however long the timeout."""
    with pytest.raises(SlotTimeoutError) as caught:
        limiter.wait(endpoint="fast", identifier="x", cost=2)
    assert math.isinf(caught.value.retry_after)


def test_nobody_waits_for_a_storage_that_fails() -> None:
    """The failure policy answers, as everywhere."""
    limiter = SyncTokenBucketAdapter(storage=DownStorage(), rules=RULES)
    assert limiter.wait(endpoint="slow", identifier={"ip": "x"}, timeout_s=0).allowed


@pytest.mark.parametrize("timeout_s", [-1, math.nan, math.inf, "1", True])
def test_bad_timeouts(limiter: SyncTokenBucketAdapter, timeout_s: float) -> None:
    """A timeout that is none is an error that names it."""
    with pytest.raises(InvalidInputError, match="timeout_s="):
        limiter.wait(endpoint="fast", identifier="x", timeout_s=timeout_s)
