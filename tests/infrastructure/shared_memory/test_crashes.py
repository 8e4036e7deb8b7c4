"""Processes that die at any instant: nothing is torn, nothing is minted, nobody hangs."""

import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from sluicegate import RateLimitRule, SyncTokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.infrastructure.redis.calls import PEEK, REFUND, RESET, TAKE
from support.bucket_model import START_US
from support.bucket_requests import bucket_request
from support.shared_memory import (
    LONG,
    SHARED_MEMORY_FOLDER,
    Killer,
    SharedBucketsAt,
    SharedMemoryStorage,
    different_stripes,
    scribble,
)
from support.trace_check import compiled
from support.worker_storages import PATIENT_MS

RULE = RateLimitRule.per_day(10)
OTHER_RULE = RateLimitRule.per_day(7)


@pytest.mark.skipif(compiled(), reason="compiled code cannot be traced")
@pytest.mark.parametrize(("verb", "torn"), [(TAKE, False), (TAKE, True), (REFUND, True), (RESET, True)])
def test_a_process_killed_at_any_step_leaves_all_or_nothing(tmp_path: Path, verb: int, torn: bool) -> None:
    """Three buckets, one in use, one new, one of another rule, each in a stripe of its own: changed together or not at all.

    A child is killed at the first step, the next one at the second, and so on until one comes to its end.
    """
    shared = SharedBucketsAt(tmp_path / "buckets")
    used, new, changed = different_stripes(shared.storage, 3)
    shared.call(TAKE, [bucket_request(RULE, used, cost=4), bucket_request(OTHER_RULE, changed, cost=2)], START_US)
    requests = [bucket_request(RULE, key, cost=3) for key in (used, new, changed)]
    memory = shared.storage._mapped.table().file.memory
    snapshot = memory[:]
    now_us = START_US + 1_000_000
    before = levels(shared, requests, now_us)
    shared.call(verb, requests, now_us)
    after = levels(shared, requests, now_us)
    assert before != after
    numbers = random.Random(1)
    seen: list[list[int]] = []
    repaired = step = 0
    while True:
        step += 1
        memory[:] = snapshot
        child = os.fork()
        if child == 0:
            sys.settrace(Killer(step, lambda: os.kill(os.getpid(), signal.SIGKILL)))
            shared.call(verb, requests, now_us)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        lines = scribble(shared.storage, numbers) if torn else 0
        found = levels(shared, requests, now_us)
        seen.append(found)
        repaired += lines > 0 and found == after
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert step > 50
    changed_at = seen.index(after)
    assert seen == [before] * changed_at + [after] * (step - changed_at)
    assert 0 < changed_at < step - 1
    assert repaired > 1 or not torn


class Soak:
    """Processes that take tokens as fast as they can.

    Args:
        storage: Where the buckets are.
        keys: How many there are.
        seconds: How long it takes.
        threads: How many threads each process has.
    """

    def __init__(self, storage: SharedMemoryStorage, *, keys: int, seconds: int, threads: int) -> None:
        # Each bucket holds what an hour brings: it will not be full, so that nothing is lost.
        rate = 1000 if keys == 1 else 1
        self.rule = RateLimitRule.per_second(rate, burst=3600 * rate)
        self.spec = self.rule.spec
        self.everything = [
            BucketRequest(f"rate_limit:ip:{n}:GET /", self.spec, self.spec.capacity) for n in range(keys)
        ]
        self.counts = memoryview(mmap.mmap(-1, 8 * 100_000)).cast("q")
        """What each thread of each process got."""
        self.running: list[int] = []
        self.killed = 0
        self._started = 0
        self._storage = storage
        self._threads = threads
        self._end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def start(self) -> None:
        """Start one more process."""
        first = self._started * self._threads
        self._started += 1
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with ThreadPoolExecutor(self._threads) as pool:
                    list(pool.map(self._take, range(first, first + self._threads)))
                status = 0
            finally:
                os._exit(status)
        self.running.append(pid)

    def replace(self, pid: int) -> None:
        """Kill a process, and start another one."""
        self.running.remove(pid)
        os.kill(pid, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
            self.killed += 1
        self.start()

    def join(self) -> None:
        """Wait until all processes have ended by themselves."""
        for pid in self.running:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def _take(self, slot: int) -> None:
        limiter = SyncTokenBucketAdapter(storage=self._storage, rules={"GET /": self.rule}, on_storage_error="deny")
        is_allowed = limiter.is_allowed
        numbers = random.Random(slot)
        clients = [str(n) for n in range(len(self.everything))]
        while not self.is_over:
            for _ in range(20):
                client = clients[int(numbers.random() * len(clients))]
                if is_allowed(endpoint="GET /", identifier=client).value.allowed:
                    self.counts[slot] += 1
        assert limiter.failures == {}


def levels(shared: SharedBucketsAt, requests: Sequence[BucketRequest], now_us: int) -> list[int]:
    """Return what is left in buckets, asked one by one, the highest stripe first."""
    return [shared.call(PEEK, [request], now_us)[0].level for request in reversed(requests)]


class Interrupter:
    """Raise an exception where Python runs the handlers of signals: when a function begins, and after a call of a built-in one.

    Args:
        step: The number of the place.
    """

    def __init__(self, step: int) -> None:
        self._left = step

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Profile."""
        if event in {"call", "c_return"} and frame.f_code.co_filename.startswith(SHARED_MEMORY_FOLDER):
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                raise InterruptedError


@pytest.mark.skipif(compiled(), reason="compiled code cannot be profiled")
def test_a_call_interrupted_at_any_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    """By a signal's handler that raises, in a process that goes on: no lock is left, for nobody, and nothing is torn."""
    shared = SharedBucketsAt(tmp_path / "buckets")
    other = SharedBucketsAt(tmp_path / "buckets")  # with locks of its own, as another process has
    requests = [bucket_request(RULE, key, cost=3) for key in different_stripes(shared.storage, 2)]
    memory = shared.storage._mapped.table().file.memory
    snapshot = memory[:]
    before = levels(shared, requests, START_US)
    seen: list[list[int]] = []
    for step in range(1, 10_000):
        memory[:] = snapshot
        done = False
        sys.setprofile(Interrupter(step))
        try:
            shared.call(TAKE, requests, START_US)
            done = True
        except InterruptedError:
            pass
        finally:
            sys.setprofile(None)
        asked = (other, shared)[step % 2]
        seen.append(levels(asked, requests, START_US))
        if done:
            break
    changed_at = seen.index(seen[-1])
    assert 30 < changed_at < len(seen) - 1
    assert seen == [before] * changed_at + [seen[-1]] * (len(seen) - changed_at)


@pytest.mark.parametrize("keys", [1, 500])
def test_processes_that_are_killed_all_the_time_mint_and_lose_nothing(tmp_path: Path, keys: int) -> None:
    """Four are killed about every 50 ms and replaced; what they got is what was taken, but for the last token of each."""
    with soaking(tmp_path, keys=keys, seconds=120 if LONG else 3, processes=4, threads=2) as soak:
        numbers = random.Random(1)
        while not soak.is_over:
            time.sleep(numbers.random() * 0.1)
            soak.replace(numbers.choice(soak.running))


@pytest.mark.parametrize("keys", [1, 10_000])
def test_many_processes_and_threads_get_exactly_the_rate(tmp_path: Path, keys: int) -> None:
    """Eight processes of four threads each, on one key or on ten thousand: all tokens of the time, and none more."""
    with soaking(tmp_path, keys=keys, seconds=20 if LONG else 2, processes=8, threads=4):
        pass


@contextmanager
def soaking(tmp_path: Path, *, keys: int, seconds: int, processes: int, threads: int) -> Iterator[Soak]:
    """Let processes take tokens for some time from buckets that begin empty, and compare what they got with the time."""
    storage = SharedMemoryStorage(tmp_path / "buckets", size_bytes=8 << 20, deadline_ms=PATIENT_MS)
    clock_us = storage._mapped.table().clock_us
    soak = Soak(storage, keys=keys, seconds=seconds, threads=threads)
    began_us = clock_us()
    for request in soak.everything:
        assert storage.take_blocking([request]).allowed
    all_empty_us = clock_us()
    for _ in range(processes):
        soak.start()
    yield soak
    soak.join()
    ended_us = clock_us()
    left = sum(storage.peek_blocking([request])[0].level for request in soak.everything)
    counted_us = clock_us()

    spec, admitted, killed = soak.spec, sum(soak.counts), soak.killed
    least, most = (
        keys * us * spec.units_per_tick // spec.tick_us for us in (ended_us - all_empty_us, counted_us - began_us)
    )
    taken = admitted * spec.units_per_token
    assert least - killed * threads * spec.units_per_token <= taken + left <= most
    info = storage.info()
    assert info.evicted_unfull == 0
    assert info.buckets == info.unfull == keys
    assert admitted > 0
    left_each = left / spec.units_per_token / keys
    sys.stdout.write(
        f"\n{keys} keys, {seconds} s, {processes} processes of {threads} threads: {admitted} of {most // spec.units_per_token}"
        f" admitted, {left_each:.2f} left each, {killed} killed, {info.repairs} repaired\n"
    )
