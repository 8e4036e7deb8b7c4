"""A signal handler or a finaliser that asks the limiter in the midst of a call neither hangs nor mints a token."""

import gc
import itertools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import sluicegate
from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.testing import FakeClock, RecordingLogger
from support.bucket_requests import bucket_request
from support.down_storage import DownStorage
from support.interruption import interrupted_at

interpreted_only = pytest.mark.skipif(sluicegate.COMPILED, reason="compiled code is not interrupted between its steps")

FIVE, SEVEN = RateLimitRule(5, 5, "ip"), RateLimitRule(7, 1, "ip")
OTHER_SPEC = RateLimitRule(5, 7, "ip")
CASES: dict[str, tuple[tuple[RateLimitRule, ...], int, int]] = {
    # rules, tokens taken before, the greatest number of buckets
    "a new bucket": ((FIVE,), 0, 100),
    "a known bucket": ((FIVE,), 1, 100),
    "the last token": ((FIVE,), 4, 100),
    "an empty bucket": ((FIVE,), 5, 100),
    "new buckets of two rules": ((FIVE, SEVEN), 0, 100),
    "the last token of one of two rules": ((FIVE, SEVEN), 4, 100),
    "a full table": ((FIVE,), 0, 3),
}


def limiter_for(rules: tuple[RateLimitRule, ...], max_keys: int, *, outage: bool) -> SyncTokenBucketAdapter:
    """Return a limiter at a clock that stands still, with the buckets of some other clients."""
    clock = FakeClock()
    limiter = SyncTokenBucketAdapter(
        storage=(DownStorage if outage else MemoryStorage)(clock=clock, max_keys=max_keys),
        rules={"GET /": rules, "GET /slow": RateLimitRule(9, 0.001, "ip")},
        logger=RecordingLogger(),
        on_storage_error="local",
        clock=clock,
    )
    for other in range(3):
        limiter.is_allowed(endpoint="GET /slow", identifier=str(other))
    return limiter


@interpreted_only
@pytest.mark.parametrize("outage", [False, True], ids=["in memory", "in an outage"])
@pytest.mark.parametrize("case", CASES)
def test_a_check_in_the_midst_of_a_check_is_exact(case: str, outage: bool) -> None:
    """At whatever place it comes: what passes, before, meanwhile and afterwards, is the capacity, and no check fails."""
    rules, before, max_keys = CASES[case]
    for nth in itertools.count(1):
        limiter = limiter_for(rules, max_keys, outage=outage)
        passed: list[bool] = []

        def check(limiter: SyncTokenBucketAdapter = limiter, passed: list[bool] = passed) -> None:
            passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed)

        for _ in range(before):
            check()
        came = interrupted_at(nth, check, check)
        for _ in range(9):
            check()
        assert sum(passed) == 5, (nth, passed)
        assert not limiter.failures or outage
        if not came:
            break
    assert nth > 10


@interpreted_only
@pytest.mark.parametrize("verb", ["reset", "refund", "get_remaining"])
def test_an_administrative_call_in_the_midst_of_a_check_is_done(verb: str) -> None:
    """A refund gives one token more, a reset as many as were taken before it, and nothing is lost of either."""
    for nth in itertools.count(1):
        limiter = limiter_for((FIVE,), 100, outage=False)
        passed = [limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed for _ in range(2)]
        call = getattr(limiter, verb)
        came = interrupted_at(
            nth,
            lambda: passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed),  # noqa: B023
            lambda: call(endpoint="GET /", identifier="a"),  # noqa: B023
        )
        passed += [limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed for _ in range(9)]
        given_back = {"reset": {2, 3}, "refund": {1}, "get_remaining": {0}}[verb] if came else {0}
        assert sum(passed) - 5 in given_back, (nth, passed)
        if not came:
            break


@interpreted_only
@pytest.mark.parametrize("verb", ["reset", "refund"])
def test_a_check_in_the_midst_of_an_administrative_call_is_counted(verb: str) -> None:
    """It pays before or after the call, and not with a token that there is not."""
    for nth in itertools.count(1):
        limiter = limiter_for((FIVE,), 100, outage=False)
        passed = [limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed for _ in range(2)]
        call = getattr(limiter, verb)
        came = interrupted_at(
            nth,
            lambda: call(endpoint="GET /", identifier="a"),  # noqa: B023
            lambda: passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed),  # noqa: B023
        )
        passed += [limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed for _ in range(9)]
        assert sum(passed) - 5 in ({2, 3} if verb == "reset" else {1}), (nth, passed)
        if not came:
            break


@interpreted_only
def test_what_interrupts_a_change_of_rules_is_answered_and_kept() -> None:
    """A check, a kill switch, other rules, and rules beside code: the two changes hold, of two rules those of one."""
    for interruption in ("check", "switch", "replace", "declare"):
        for nth in range(1, 2_000, 5):
            limiter = limiter_for((FIVE,), 100, outage=False)
            names: list[str] = []
            calls: dict[str, Callable[[], object]] = {
                "check": lambda: limiter.is_allowed(endpoint="GET /", identifier="a"),  # noqa: B023
                "switch": lambda: limiter.rules.switch_off(for_seconds=60),  # noqa: B023
                "replace": lambda: limiter.rules.replace({"GET /": SEVEN}),  # noqa: B023
                "declare": lambda: names.append(limiter.rules.add_beside_code("view", (SEVEN,))),  # noqa: B023
            }
            if not interrupted_at(nth, lambda: limiter.rules.replace({"GET /": OTHER_SPEC}), calls[interruption]):  # noqa: B023
                break
            assert limiter.is_allowed(endpoint="GET /", identifier="a").value.limit in {5, 7}
            assert limiter.rules.book["GET /"] in (
                {(SEVEN,), (OTHER_SPEC,)} if interruption == "replace" else {(OTHER_SPEC,)}
            )
            assert len(limiter.rules.switched_off) == (interruption == "switch"), nth
            for name in names:
                assert limiter.is_allowed(endpoint=name, identifier="a").value.limit == 7
        assert nth > 100


@interpreted_only
def test_a_loan_is_not_spent_twice_by_an_interruption() -> None:
    """A check in the midst of one that is paid from a loan asks the server, or pays from what is left of the loan."""
    request = bucket_request(FIVE)
    for nth in itertools.count(1):
        clock = FakeClock()
        table = LeaseTable(clock=clock, hot=0)
        lease = table._lease(request, clock.now_us())
        lease.units, lease.until_us = 3 * request.cost_units, clock.now_us() + 1_000_000
        paid: list[object] = []

        def spend(table: LeaseTable = table, paid: list[object] = paid) -> None:
            paid.append(table.spend(request, to_the_end=True))

        came = interrupted_at(nth, spend, spend)
        for _ in range(5):
            spend()
        assert sum(one is not None for one in paid) == 3
        assert lease.units == 0
        if not came:
            break


needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")


@needs_timer
@pytest.mark.parametrize("outage", [False, True], ids=["in memory", "in an outage"])
def test_signal_handlers_that_ask_the_limiter(outage: bool) -> None:
    """An alarm every 100 us whose handler asks, beside two threads that ask: exactly the capacity passes."""
    capacity = 20_000
    clock = FakeClock()
    limiter = SyncTokenBucketAdapter(
        storage=(DownStorage if outage else MemoryStorage)(clock=clock),
        rules={"GET /": (RateLimitRule(capacity, 1, "ip"), RateLimitRule(10**6, 1, "ip"))},
        logger=RecordingLogger(),
        on_storage_error="local",
        clock=clock,
    )
    passed: list[bool] = []  # `append` is one step

    def check(*_: object) -> None:
        passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed)

    interrupted: list[None] = []
    ended = threading.Event()

    def handle(*_: object) -> None:
        interrupted.append(None)
        check()
        if not ended.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.000_1)

    def others() -> None:
        while not ended.is_set():
            check()

    threads = [threading.Thread(target=others) for _ in range(2)]
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for thread in threads:
            thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.000_1)
        while len(passed) < capacity + 1_000 or len(interrupted) < 100:  # a loaded machine has few alarms
            check()
    finally:
        ended.set()  # so that a handler that is still to run sets no timer
        signal.setitimer(signal.ITIMER_REAL, 0)
        for thread in threads:
            thread.join()
        signal.signal(signal.SIGALRM, before)
    assert sum(passed) == capacity


def test_finalisers_that_ask_the_limiter() -> None:
    """Objects in cycles, which the collector ends wherever it runs: each asks, and exactly the capacity passes."""
    limiter = SyncTokenBucketAdapter(
        storage=MemoryStorage(clock=FakeClock()), rules={"GET /": RateLimitRule(500, 1, "ip")}
    )
    passed: list[bool] = []

    class Ending:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed)

    before = gc.get_threshold()
    try:
        for n in range(400):
            gc.disable()
            Ending()
            gc.set_threshold(1 + n % 40)  # objects later
            gc.enable()
            passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed)
    finally:
        gc.enable()
        gc.set_threshold(*before)
    gc.collect()
    assert len(passed) == 800
    assert sum(passed) == 500
    assert limiter.failures == {}


class _Interrupting(FakeClock):
    """A clock whose reading, in the midst of a check, is interrupted once."""

    interruption: Callable[[], object] | None = None

    def now_us(self) -> int:
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()
        return super().now_us()


def test_a_check_under_the_lock_of_its_own_thread() -> None:
    """As compiled code can be interrupted too: where it reads a clock. The check is decided and charged."""
    clock = _Interrupting()
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=clock), rules={"GET /": FIVE})
    passed: list[bool] = []

    def check() -> None:
        passed.append(limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed)

    for _ in range(5):
        clock.interruption = check
        check()
    assert sum(passed) == 5
    assert len(passed) == 10
    clock.interruption = lambda: limiter.reset(endpoint="GET /", identifier="a")
    check()
    assert passed[-1]
    assert limiter.failures == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_signal_handler_may_fork_in_the_midst_of_a_check() -> None:
    """Parent and child both end the check, and both go on."""
    clock = _Interrupting()
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=clock), rules={"GET /": FIVE})
    pids: list[int] = []
    clock.interruption = lambda: pids.append(os.fork())
    allowed = limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed
    if pids == [0]:
        signal.alarm(60)
        again: Any = limiter.is_allowed(endpoint="GET /", identifier="a")
        os._exit(0 if allowed and again.value.remaining == 3 else 1)
    assert allowed
    assert os.waitpid(pids[0], 0)[1] == 0
    assert limiter.is_allowed(endpoint="GET /", identifier="a").value.remaining == 3
