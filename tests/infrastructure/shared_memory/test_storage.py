"""Processes, threads and forks that share buckets, and the deadline."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sluicegate import RateLimitRule, StorageError, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.infrastructure.shared_memory import file
from sluicegate.testing import FakeClock
from support.alarms import interrupt_checks
from support.bucket_requests import bucket_request
from support.shared_memory import SharedMemoryStorage, stopped_holder
from support.worker_storages import PATIENT_MS

SIZE = 1 << 20
DAILY = RateLimitRule.per_day(50)


@pytest.fixture(params=["OFD", "flock"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a file that is not there yet; with each kind of lock."""
    monkeypatch.setattr(file, "_HAS_OFD_LOCKS", request.param == "OFD")
    return tmp_path / "buckets"


def patient(path: Path) -> SharedMemoryStorage:
    """Return a storage that waits for a busy machine."""
    return SharedMemoryStorage(path, size_bytes=SIZE, deadline_ms=PATIENT_MS)


def forked(work: Callable[[], int]) -> int:
    """Return what a forked child's work returns, 0 to 255."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def admitted(storage: SharedMemoryStorage, tries: int, key: str = "one") -> int:
    """Return how many of some checks pass."""
    return sum(storage.take_blocking([bucket_request(DAILY, key)]).allowed for _ in range(tries))


def test_processes_and_threads_admit_exactly_the_capacity(path: Path) -> None:
    """Four processes of four threads each, forked before and after the first use, pass the limit between them."""
    before = patient(path)
    pids = []
    own = 0
    for n in range(4):
        if n == 2:
            own = admitted(before, 1)  # none, if the children were quick
        pid = os.fork()
        if pid == 0:
            storage = before if n % 2 else patient(path)
            results: list[int] = []
            threads = [threading.Thread(target=lambda: results.append(admitted(storage, 10))) for _ in range(4)]  # noqa: B023 - run at once
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os._exit(sum(results))
        pids.append(pid)
    assert own + sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids) == 50


def test_threads_of_one_process_admit_exactly_the_capacity(path: Path) -> None:
    """Locks of the kernel do not keep them apart."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE, clock=FakeClock(), deadline_ms=PATIENT_MS)
    limiter = SyncTokenBucketAdapter(storage=storage, rules={"GET /": RateLimitRule.per_minute(50)})
    with ThreadPoolExecutor(50) as pool:
        results = pool.map(lambda _: limiter.is_allowed(endpoint="GET /", identifier="one").value.allowed, range(500))
        assert sum(results) == 50


async def test_tasks_admit_exactly_the_capacity(path: Path) -> None:
    """On one event loop nobody waits."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE, clock=FakeClock())
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /": RateLimitRule.per_minute(50)})
    results = await asyncio.gather(*[limiter.is_allowed(endpoint="GET /", identifier="one") for _ in range(500)])
    assert sum(result.value.allowed for result in results) == 50
    assert limiter.failures == {}


def test_two_storages_of_one_process_share_their_buckets(path: Path) -> None:
    """Each has locks of its own."""
    one, other = patient(path), patient(path)
    assert admitted(one, 30) + admitted(other, 30) == 50


def test_a_new_process_finds_the_buckets_as_they_were(path: Path) -> None:
    """A reload of the workers is no new beginning."""
    assert forked(lambda: admitted(patient(path), 45)) == 45
    assert forked(lambda: admitted(patient(path), 45)) == 5


def test_a_child_that_lives_on_keeps_no_lock_of_its_parent_that_is_killed(path: Path) -> None:
    """What a child inherits would keep the lock: it lets go of it when it is forked."""
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        storage = patient(path)
        locks = storage._mapped.table().file.locks
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(60)
            os._exit(0)
        stripe = storage._mapped.table().slots.locate("one").stripe
        assert locks.try_lock(16 + stripe)
        os.write(write_end, str(grandchild).encode())
        time.sleep(60)
        os._exit(0)
    grandchild = int(os.read(read_end, 100))
    storage = SharedMemoryStorage(path, size_bytes=SIZE, deadline_ms=50)
    try:
        with pytest.raises(StorageError):
            admitted(storage, 1)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert admitted(storage, 1) == 1
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_child_and_its_parent_exclude_each_other(path: Path) -> None:
    """After a fork each of them has locks of its own."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE, deadline_ms=20)
    stripe = storage._mapped.table().slots.locate("one").stripe
    assert storage._mapped.table().file.locks.try_lock(16 + stripe)

    def child() -> int:
        try:
            return admitted(storage, 1)
        except StorageError as error:
            return 77 if error.reason == "timeout" else 78

    assert forked(child) == 77
    storage._mapped.table().file.locks.unlock(16 + stripe)
    assert forked(child) == 1


def test_a_check_waits_no_longer_than_the_deadline_for_a_stopped_process(path: Path) -> None:
    """Then the failure policy answers; the event loop is free meanwhile; when the process goes on, so does everybody."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE, deadline_ms=300)
    rules = {"GET /": RateLimitRule.per_day(50, scope="ip")}
    limiter = SyncTokenBucketAdapter(storage=storage, rules=rules)
    async_limiter = TokenBucketAdapter(storage=storage, rules=rules, deadline_ms=200)
    key = "rate_limit:ip:one:GET /"
    with stopped_holder(path, key):
        assert storage.take_nowait([bucket_request(DAILY, key)]) is None
        began = time.monotonic()
        assert limiter.is_allowed(endpoint="GET /", identifier="one").value.allowed
        assert 0.3 <= time.monotonic() - began < 5
        assert limiter.failures == {"timeout": 1}

        async def ticks_during_a_check() -> int:
            check = asyncio.create_task(async_limiter.is_allowed(endpoint="GET /", identifier="one"))
            ticks = 0
            while not check.done():
                await asyncio.sleep(0.001)
                ticks += 1
            return ticks

        began = time.monotonic()
        assert asyncio.run(ticks_during_a_check()) > 2
        assert 0.2 <= time.monotonic() - began < 5
        assert async_limiter.failures == {"timeout": 1}
        for verb in (storage.peek_blocking, storage.refund_blocking, storage.reset_blocking):
            with pytest.raises(StorageError):
                verb([bucket_request(DAILY, key)])
        with pytest.raises(StorageError):
            storage.clear()
    assert limiter.is_allowed(endpoint="GET /", identifier="one").value.remaining == 49
    assert limiter.failures == {"timeout": 1}


def test_a_stopped_process_delays_only_those_that_need_the_same_lock(path: Path) -> None:
    """Other clients are decided at once."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE)
    with stopped_holder(path, "one"):
        slots = storage._mapped.table().slots
        others = [f"other-{n}" for n in range(200) if slots.locate(f"other-{n}").stripe != slots.locate("one").stripe]
        assert len(others) > 100
        for key in others:
            assert storage.take_nowait([bucket_request(DAILY, key)]) is not None
        assert storage.take_nowait([bucket_request(DAILY, others[0]), bucket_request(DAILY, "one")]) is None
        level = storage.peek_blocking([bucket_request(DAILY, others[0])])[0].level
        assert level // DAILY.spec.units_per_token == 49  # paid once, not twice


@pytest.mark.parametrize("rules", [1, 3])
def test_a_signals_handler_that_raises_leaves_the_storage_usable(path: Path, rules: int) -> None:
    """An alarm that interrupts checks at random instants leaves nobody locked out, in this process and in others."""
    storage = patient(path)
    limiter = SyncTokenBucketAdapter(
        storage=storage, rules={"GET /": [RateLimitRule.per_minute(10**6 * (n + 1)) for n in range(rules)]}
    )
    assert interrupt_checks(limiter, 300) == 300
    for other in (storage, SharedMemoryStorage(path, deadline_ms=PATIENT_MS)):
        for key in range(200):
            assert other.take_blocking([bucket_request(DAILY, str(key))]).allowed
    assert limiter.is_allowed(endpoint="GET /", identifier="one").value.allowed
    assert limiter.failures == {}


def test_a_closed_storage_says_so_and_the_file_stays(path: Path) -> None:
    """Copies with a shorter deadline are closed with it."""
    storage = patient(path)
    shorter = storage.with_deadline(0.01)
    assert (storage.traits.deadline_s, shorter.traits.deadline_s) == (10, 0.01)
    assert storage.with_deadline(99).traits.deadline_s == 10
    assert admitted(shorter, 1) == admitted(storage, 1) == 1
    shorter.close()
    with pytest.raises(StorageError, match="closed") as raised:
        admitted(storage, 1)
    assert raised.value.reason == "connection"
    assert path.exists()


def test_it_lets_go_of_its_descriptors(path: Path) -> None:
    """A storage that is closed, or forgotten, leaves no file open."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    patient(path).close()
    before = descriptors()
    for _ in range(5):
        admitted(patient(path), 1)
    assert descriptors() == before
