"""What of the embedded storage is not in the contract: threads, bounds, arguments."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluicegate import (
    InvalidInputError,
    InvalidTypeError,
    MemoryStorage,
    RateLimitRule,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.testing import FakeClock
from support.alarms import interrupt_checks

RULES = {"GET /": RateLimitRule.per_minute(50)}


def test_a_hundred_threads_admit_exactly_the_capacity() -> None:
    """At a frozen clock 100 threads x 20 checks on one key pass 50 times."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES)
    barrier = threading.Barrier(100)

    def client() -> int:
        barrier.wait()
        return sum(limiter.is_allowed(endpoint="GET /", identifier="one").value.allowed for _ in range(20))

    with ThreadPoolExecutor(100) as pool:
        admitted = sum(future.result() for future in [pool.submit(client) for _ in range(100)])
    assert admitted == 50


async def test_a_thousand_tasks_admit_exactly_the_capacity() -> None:
    """At a frozen clock 1,000 tasks on one key pass 50 times."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES)
    results = await asyncio.gather(*[limiter.is_allowed(endpoint="GET /", identifier="one") for _ in range(1000)])
    assert sum(result.value.allowed for result in results) == 50


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
@pytest.mark.parametrize("rules", [1, 2])
def test_a_signals_handler_that_raises_leaves_the_storage_usable(rules: int) -> None:
    """An alarm that interrupts checks at random instants leaves nobody locked out, and the next check is decided."""
    storage = MemoryStorage()
    limiter = SyncTokenBucketAdapter(
        storage=storage, rules={"GET /": [RateLimitRule.per_minute(10**6 * (n + 1)) for n in range(rules)]}
    )
    assert interrupt_checks(limiter, 300) == 300
    passed: list[bool] = []
    last = threading.Thread(
        target=lambda: passed.append(limiter.is_allowed(endpoint="GET /", identifier="two").value.allowed), daemon=True
    )
    last.start()
    last.join(10)  # a lock that was left locked would keep it for ever
    assert passed == [True]


def test_several_event_loops_share_one_storage() -> None:
    """Four loops in four threads use one limiter and admit the capacity between them."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=RULES)

    async def clients() -> int:
        results = await asyncio.gather(*[limiter.is_allowed(endpoint="GET /", identifier="one") for _ in range(100)])
        return sum(result.value.allowed for result in results)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: asyncio.run(clients()), range(4))) == 50


def test_wrong_bounds_are_named() -> None:
    """`max_keys` is checked when the storage is made."""
    with pytest.raises(InvalidInputError, match="max_keys=0: expected at least 1"):
        MemoryStorage(max_keys=0)
    with pytest.raises(InvalidTypeError, match="max_keys=True: expected a whole number"):
        MemoryStorage(max_keys=True)


@pytest.mark.parametrize("clock", [FakeClock, object(), 5, print])
def test_what_is_no_clock_is_refused(clock: object) -> None:
    """When the storage is made: in a check it would be a failure of the storage, and everything would pass."""
    with pytest.raises(InvalidTypeError, match="clock=.*: expected a Clock"):
        MemoryStorage(clock=clock)  # type: ignore[arg-type]


async def test_its_repr_tells_how_full_it_is() -> None:
    """Operators see keys and bound."""
    storage = MemoryStorage(clock=FakeClock(), max_keys=7)
    limiter = TokenBucketAdapter(storage=storage, rules=RULES)
    for n in range(9):
        await limiter.is_allowed(endpoint="GET /", identifier=str(n))
    assert repr(storage) == "MemoryStorage(keys=7, max_keys=7)"
    assert len(storage) == 7
    assert storage.evicted_unfull == 2


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock that goes on while the machine sleeps")
def test_tokens_flow_in_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default clock goes on while the machine sleeps or its virtual machine is stopped: a moment later that shows."""
    slept_ns = [0]
    read = time.clock_gettime_ns

    def clock_gettime_ns(clock_id: int) -> int:
        return read(clock_id) + (slept_ns[0] if clock_id == time.CLOCK_BOOTTIME else 0)

    monkeypatch.setattr(time, "clock_gettime_ns", clock_gettime_ns)
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": RateLimitRule(1, 0.001, "ip")})
    assert limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed
    assert not limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed
    slept_ns[0] = 60_000 * 10**9
    while not limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed:
        time.sleep(0.01)


def test_where_there_is_no_such_clock_the_monotonic_one_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, whose Python lacks `CLOCK_BOOTTIME`."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES)
    assert limiter.is_allowed(endpoint="GET /", identifier="a").value.allowed
