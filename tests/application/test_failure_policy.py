"""What a check answers while the storage cannot, whatever goes wrong."""

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from sluicegate import (
    Failure,
    InvalidTypeError,
    MemoryStorage,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitResult,
    RateLimitRule,
    RateLimitRulesChanged,
    StorageError,
    Success,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.application.background_worker import BackgroundWorker
from sluicegate.application.check import Check, requests_for
from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.application.notifier import Notifier
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.protocols import StorageTraits
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.runtime import system_clock
from sluicegate.testing import FailingStorage, FakeClock, RecordingEventBus, RecordingLogger
from support.awaited_storage import AwaitedStorage

LOGIN = "POST /login"
RULE = RateLimitRule(5, 5, "ip")

FAULTS = {
    "refused": (FailingStorage(error=ConnectionRefusedError("refused")), "connection"),
    "storage error": (FailingStorage(error=StorageError("readonly", "a replica")), "readonly"),
    "timeout": (FailingStorage(error=TimeoutError()), "timeout"),
    "hung": (FailingStorage("hang"), "timeout"),
    "wrong reply": (FailingStorage("garbage"), "bug"),
    "a bug": (FailingStorage(error=KeyError("10.1.2.3")), "bug"),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> tuple[FailingStorage, str]:
    """Name a storage that fails in one way, and the reason that should be counted."""
    return FAULTS[request.param]


async def test_it_fails_open_loudly(fault: tuple[FailingStorage, str]) -> None:
    """The check passes with a full bucket; a warning, a counter and an event say why, and no address is in the log."""
    storage, reason = fault
    bus, logger = RecordingEventBus(), RecordingLogger()
    limiter = TokenBucketAdapter(storage=storage, rules={LOGIN: RULE}, event_bus=bus, logger=logger, deadline_ms=20)
    result = await limiter.is_allowed(endpoint=LOGIN, identifier="10.1.2.3")
    assert result == Success(RateLimitResult(True, 0.0, 5, 5, 0))
    assert limiter.failures == {reason: 1}
    level, _, context = logger.records[-1]
    assert (level, context["reason"], context["policy"]) == ("warning", reason, "allow")
    assert "10.1.2.3" not in str(logger.records)
    opened = bus.events[-1]
    assert isinstance(opened, RateLimitFailedOpen)
    assert (opened.reason, opened.policy, opened.allowed, opened.scope) == (reason, "allow", True, "ip")


async def test_remaining_is_the_capacity_while_the_storage_fails(fault: tuple[FailingStorage, str]) -> None:
    """`get_remaining` and `peek` assume full buckets."""
    limiter = TokenBucketAdapter(storage=fault[0], rules={LOGIN: RULE}, logger=RecordingLogger(), deadline_ms=20)
    assert await limiter.get_remaining(endpoint=LOGIN, identifier="a") == Success(5)
    assert (await limiter.peek(endpoint=LOGIN, identifier="a")).value.allowed
    assert sum(limiter.failures.values()) == 2


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "wrong reply"])  # a reset's reply is not read
async def test_reset_and_refund_never_fail_open(name: str) -> None:
    """The operator gets the reason, and an error line is written."""
    storage, reason = FAULTS[name]
    logger = RecordingLogger()
    limiter = TokenBucketAdapter(storage=storage, rules={LOGIN: RULE}, logger=logger, deadline_ms=20)
    for call in (limiter.reset, limiter.refund):
        result = await call(endpoint=LOGIN, identifier="10.1.2.3")
        assert isinstance(result, Failure)
        assert (result.error.reason, result.error.endpoint) == (reason, LOGIN)
        assert logger.records[-1][0] == "error"
    assert "10.1.2.3" not in str(logger.records)


async def test_local_limits_with_a_bucket_of_its_own() -> None:
    """The same rule, starting full: five pass, the sixth waits, another client is not affected."""
    clock, bus = FakeClock(), RecordingEventBus()
    limiter = TokenBucketAdapter(
        storage=FailingStorage(),
        rules={LOGIN: RULE},
        event_bus=bus,
        logger=RecordingLogger(),
        on_storage_error="local",
        clock=clock,
    )
    results = [(await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value for _ in range(7)]
    assert [result.allowed for result in results] == [True] * 5 + [False] * 2
    assert results[-1].retry_after == 12.0
    assert (await limiter.is_allowed(endpoint=LOGIN, identifier="b")).value.remaining == 4
    clock.advance(12)
    assert (await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed
    opened = [event for event in bus.events if isinstance(event, RateLimitFailedOpen)]
    assert [event.allowed for event in opened] == [True] * 5 + [False] * 2 + [True] * 2


def test_local_memory_is_bounded() -> None:
    """An outage under attack does not become an out-of-memory."""
    policy = FailurePolicy("local", FakeClock(), max_local_keys=50)
    rules = CompiledRules({LOGIN: RULE}, KeyFormat()).find(LOGIN)
    assert rules is not None
    for n in range(500):
        check = Check(rules, requests_for(rules.limits, KeyFormat(), str(n), 0), str(n), 0)
        assert policy.answer(check, rules, "timeout").result.allowed
    assert policy.local_keys <= 50


async def test_deny_refuses_and_asks_to_come_back_in_a_second() -> None:
    """Nothing passes, the event says that it failed closed."""
    bus = RecordingEventBus()
    limiter = TokenBucketAdapter(
        storage=FailingStorage(), rules={LOGIN: RULE}, event_bus=bus, logger=RecordingLogger(), on_storage_error="deny"
    )
    result = (await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value
    assert result == RateLimitResult(False, 1.0, 0, 5, 0)
    assert isinstance(bus.events[-1], RateLimitFailedClosed)


async def test_a_rules_own_policy_comes_first_and_the_strictest_wins() -> None:
    """A login rule may refuse or count locally where the limiter lets pass."""
    rules = {
        "deny": RateLimitRule(5, 5, "ip", on_storage_error="deny"),
        "local": (RateLimitRule(9, 9, "ip"), RateLimitRule(1, 1, "ip", on_storage_error="local")),
        "both": (
            RateLimitRule(1, 1, "ip", on_storage_error="local"),
            RateLimitRule(2, 2, "ip", on_storage_error="deny"),
        ),
        "allow": RULE,
    }
    limiter = TokenBucketAdapter(storage=FailingStorage(), rules=rules, logger=RecordingLogger())

    async def verdicts(endpoint: str) -> list[bool]:
        return [(await limiter.is_allowed(endpoint=endpoint, identifier="a")).value.allowed for _ in range(3)]

    assert await verdicts("deny") == [False, False, False]
    assert await verdicts("local") == [True, False, False]
    assert await verdicts("both") == [False, False, False]
    assert await verdicts("allow") == [True, True, True]


async def test_the_decision_names_the_rule_that_answered() -> None:
    """Several rules may have the same capacity: the one whose policy decided is told, not the first of that size."""
    minute, hour = RateLimitRule.parse("10/minute"), RateLimitRule.parse("10/hour")
    refusing, counting = replace(hour, on_storage_error="deny"), replace(hour, on_storage_error="local")
    for rules, told in (
        ((minute, refusing), refusing),
        ((minute, counting), counting),
        ((minute, hour), minute),
        ((RateLimitRule.parse("20/hour"), minute), minute),
    ):
        limiter = TokenBucketAdapter(storage=FailingStorage(), rules={LOGIN: rules}, logger=RecordingLogger())
        decision = await limiter.check(endpoint=LOGIN, identifier="a")
        assert decision.degraded == (told.on_storage_error or "allow")
        assert decision.binding is not None
        assert decision.binding.spec == told.spec
        assert decision.binding.on_storage_error == told.on_storage_error


async def test_a_reset_means_the_local_bucket_too() -> None:
    """When the storage is back and an operator resets a client, an outage's denials are forgotten as well."""

    class Flaky(AwaitedStorage):
        async def take(self, requests: object, /) -> Any:
            raise StorageError("connection")

    storage = Flaky()
    limiter = TokenBucketAdapter(
        storage=storage, rules={LOGIN: RULE}, logger=RecordingLogger(), on_storage_error="local", clock=FakeClock()
    )
    for _ in range(6):
        last = await limiter.is_allowed(endpoint=LOGIN, identifier="a")
    assert not last.value.allowed
    assert await limiter.reset(endpoint=LOGIN, identifier="a") == Success(None)
    assert (await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed


async def test_warnings_are_sparing() -> None:
    """A thousand failures in a second are one line; the next second's line tells how many were left out."""
    clock, logger = FakeClock(), RecordingLogger()
    limiter = TokenBucketAdapter(storage=FailingStorage(), rules={LOGIN: RULE}, logger=logger, clock=clock)
    for _ in range(1000):
        await limiter.is_allowed(endpoint=LOGIN, identifier="a")
    clock.advance(1)
    await limiter.is_allowed(endpoint=LOGIN, identifier="a")
    assert [context["left_out"] for _, _, context in logger.records] == [0, 999]
    assert limiter.failures == {"connection": 1001}


async def test_identifiers_can_be_logged_on_request() -> None:
    """Raw identifiers are an operator's decision."""
    logger = RecordingLogger()
    limiter = TokenBucketAdapter(storage=FailingStorage(), rules={LOGIN: RULE}, logger=logger, log_identifiers=True)
    await limiter.is_allowed(endpoint=LOGIN, identifier="10.1.2.3")
    assert logger.records[0][2]["identifier"] == "10.1.2.3"


def test_the_sync_face_fails_the_same_way() -> None:
    """Open with a reason, and never on a reset."""

    class Broken:
        def _fail(self, _: object) -> object:
            raise StorageError("connection")

        traits = StorageTraits()
        take_blocking = peek_blocking = refund_blocking = reset_blocking = _fail

    limiter = SyncTokenBucketAdapter(storage=Broken(), rules={LOGIN: RULE}, logger=RecordingLogger())
    assert limiter.is_allowed(endpoint=LOGIN, identifier="a").value.allowed
    assert limiter.get_remaining(endpoint=LOGIN, identifier="a") == Success(5)
    assert limiter.reset(endpoint=LOGIN, identifier="a").error.reason == "connection"


@pytest.mark.parametrize(
    ("here", "name"), [("linux", "CLOCK_BOOTTIME"), ("darwin", "CLOCK_MONOTONIC")], ids=["Linux", "macOS"]
)
async def test_local_buckets_refill_while_the_machine_sleeps(
    monkeypatch: pytest.MonkeyPatch, here: str, name: str
) -> None:
    """They go by the clock that the system has for it, which is not the one of `time.monotonic`."""
    slept_ns = [0]
    read = time.clock_gettime_ns
    wanted = getattr(time, name, None)
    if wanted is None:
        pytest.skip(f"no {name}")
    monkeypatch.setattr(
        time, "clock_gettime_ns", lambda clock_id: read(clock_id) + (slept_ns[0] if clock_id == wanted else 0)
    )
    monkeypatch.setattr(system_clock, "platform", here)
    limiter = TokenBucketAdapter(
        storage=FailingStorage(), rules={LOGIN: RULE}, on_storage_error="local", logger=RecordingLogger()
    )
    verdicts = [(await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed for _ in range(6)]
    slept_ns[0] = 3_600_000_000_000
    verdicts.append((await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed)
    assert verdicts == [True] * 5 + [False, True]


class _Raising:
    inline = True

    def listens(self, _: type) -> bool:
        raise RuntimeError

    def publish(self, _: RateLimitEvent) -> None:
        raise RuntimeError

    def __getattr__(self, name: str) -> object:
        raise RuntimeError


class _Blocking:
    """A bus and a logger that never return."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def listens(self, _: type) -> bool:
        return True

    def publish(self, _: RateLimitEvent) -> None:
        self.release.wait(30)

    def debug(self, message: str, **_: object) -> None:
        self.release.wait(30)

    info = warning = error = debug


class _Awaiting(_Blocking):
    """A bus whose publish is a coroutine that never ends."""

    async def publish(self, _: RateLimitEvent) -> None:
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("observer", [_Raising(), _Blocking(), _Awaiting()], ids=lambda o: type(o).__name__)
async def test_observers_never_change_nor_delay_a_decision(observer: object) -> None:
    """A bus or logger that raises, blocks or never ends: the same verdicts, and 2,000 checks do not wait for one of them."""
    limiter = TokenBucketAdapter(
        storage=MemoryStorage(clock=FakeClock()), rules={LOGIN: RULE}, event_bus=observer, logger=observer
    )
    started = time.monotonic()
    verdicts = [(await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed for _ in range(2_000)]
    assert verdicts == [True] * 5 + [False] * 1_995
    broken = TokenBucketAdapter(storage=FailingStorage(), rules={LOGIN: RULE}, event_bus=observer, logger=observer)
    assert (await broken.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed
    assert time.monotonic() - started < 20  # a hang, not a timing
    if isinstance(observer, _Blocking):
        observer.release.set()
    quiet = 0
    while quiet < 10:  # the observers' threads may still be handing coroutines over
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        quiet = 0 if tasks else quiet + 1
        await asyncio.sleep(0.01)


def test_what_an_observer_cannot_keep_up_with_is_dropped_and_counted() -> None:
    """A bus that blocks has one event; a thousand wait, and the others are lost."""
    bus = _Blocking()
    notifier = Notifier(bus, RecordingLogger(), FakeClock(), log_identifiers=False)
    for _ in range(2_000):
        notifier.publish(RateLimitRulesChanged(rules_version="b", previous_version="a"))
    assert 999 <= notifier.dropped <= 1_000
    bus.release.set()


async def test_an_async_bus_is_served_on_the_checks_loop() -> None:
    """A bus whose publish is a coroutine gets its events, a moment later."""
    got: list[RateLimitEvent] = []

    class AsyncBus:
        def listens(self, _: type) -> bool:
            return True

        async def publish(self, event: RateLimitEvent) -> None:
            await asyncio.sleep(0)
            got.append(event)

    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={LOGIN: RULE}, event_bus=AsyncBus())
    await limiter.is_allowed(endpoint=LOGIN, identifier="a")
    for _ in range(1000):
        if len(got) == 2:
            break
        await asyncio.sleep(0.005)
    assert len(got) == 2


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_loop_that_ended_does_not_count_against_others() -> None:
    """Coroutines of listeners whose event loop was stopped for good take no place from those of a later loop."""
    worker, ran = BackgroundWorker(), threading.Event()

    async def set_it() -> None:
        ran.set()

    async def fill() -> None:
        for _ in range(200):
            worker.submit(_never)
        while worker.dropped < 100:
            await asyncio.sleep(0.001)

    async def use() -> None:
        worker.submit(set_it)
        while not ran.is_set():
            await asyncio.sleep(0.001)

    with asyncio.Runner() as runner:
        runner.run(fill())
    with asyncio.Runner() as runner:
        runner.run(asyncio.wait_for(use(), 10))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_a_queue_of_its_own() -> None:
    """A fork while the queue is used and filled: the child neither hangs nor repeats what the parent will do."""
    worker, release, called = BackgroundWorker(), threading.Event(), []
    worker.submit(release.wait, 30)
    worker.submit(called.append, "of the parent")
    ended = threading.Event()

    def use() -> None:
        while not ended.is_set():
            worker.submit(int)

    user = threading.Thread(target=use)
    user.start()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # ends it if it hangs
        done = threading.Event()
        worker.submit(called.append, "of the child")
        worker.submit(done.set)
        os._exit(0 if done.wait(10) and called == ["of the child"] else 1)
    ended.set()
    user.join()
    release.set()
    assert os.waitpid(pid, 0)[1] == 0


class _Patient(FailingStorage):
    """A storage that keeps a deadline of its own, of a minute as long as it is told no other."""

    traits = StorageTraits(deadline_s=60.0)

    def with_deadline(self, deadline_s: float, /) -> "_Patient":
        told = _Patient("raise", error=StorageError("timeout", f"after {deadline_s} s"))
        told.traits = StorageTraits(deadline_s=deadline_s)
        return told


async def test_the_shorter_deadline_counts() -> None:
    """A limiter with 20 ms does not wait for a storage with a minute."""
    limiter = TokenBucketAdapter(
        storage=_Patient("hang"), rules={LOGIN: RULE}, logger=RecordingLogger(), deadline_ms=20
    )
    async with asyncio.timeout(10):
        assert (await limiter.is_allowed(endpoint=LOGIN, identifier="a")).value.allowed
    assert limiter.failures == {"timeout": 1}


def test_a_deadline_that_cannot_be_shortened_is_refused() -> None:
    """The error names what the storage lacks, when the limiter is built and not in its first check."""

    class Stubborn(FailingStorage):
        traits = StorageTraits(deadline_s=0.01)

    with pytest.raises(InvalidTypeError, match=r"storage=Stubborn: has `traits\.deadline_s`, but no `with_deadline`"):
        TokenBucketAdapter(storage=Stubborn(), rules={LOGIN: RULE})
