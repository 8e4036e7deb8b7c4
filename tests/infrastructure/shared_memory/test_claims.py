"""Reservations and holds in the file: as in memory, to the bit, and neither torn nor leaked when a process dies."""

import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import RateLimitRule, StorageError
from sluicegate.domain.buckets.bucket import Bucket
from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.claims.claim import CHARGE, HOLD, PAID, RELEASE
from sluicegate.infrastructure.shared_memory.claim_cells import MAX_CHAIN
from sluicegate.infrastructure.shared_memory.layout import CHAIN_COUNT_BITS
from sluicegate.testing import FakeClock
from support.bucket_model import coarse_specs
from support.shared_memory import LONG, Killer, SharedMemoryStorage, different_stripes, scribble
from support.trace_check import compiled

SIZE = 1 << 20
SECOND_US = 1_000_000
RULE = RateLimitRule.per_minute(60, burst=100)
TOKEN = RULE.spec.units_per_token

plain_specs = st.sampled_from(
    [RULE.spec, RateLimitRule.per_second(10).spec, RateLimitRule.per_day(7).spec, RateLimitRule(3, 420, "ip").spec]
)
call = st.tuples(
    st.sampled_from(["reserve", "reserve", "reserve", "settle", "extend", "take", "peek", "refund", "reset"]),
    st.one_of(st.integers(0, 5), st.integers(0, 3 * SECOND_US), st.integers(0, 900 * SECOND_US)),
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 2), st.integers(0, 4), st.sampled_from([PAID, CHARGE, RELEASE, HOLD])
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda asked: asked[0],
    ),
    st.integers(1, 4),
    st.sampled_from([1, SECOND_US // 2, 2 * SECOND_US, 1000 * SECOND_US]),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[SharedMemoryStorage, FakeClock]:
    """Return a storage and its clock."""
    clock = FakeClock()
    path = tmp_path_factory.mktemp("claims") / "buckets"
    return SharedMemoryStorage(path, size_bytes=SIZE, clock=clock, deadline_ms=10_000), clock


class KeptBuckets:
    """Buckets in this process that are never forgotten: a table in memory may forget a full one earlier.

    Args:
        clock: What time decides.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def call(self, verb: str, requests: Sequence[BucketRequest], extra: tuple[Any, ...]) -> Any:
        """Carry a verb out."""
        table = BucketTable(1000)
        for key, bucket in self._buckets.items():
            table.put(key, bucket)
        answer = getattr(table, verb)(tuple(requests), *extra, self._clock.now_us())
        for request in requests:
            bucket = table.get(request.key)
            if bucket is not None:
                self._buckets[request.key] = bucket
        return None if verb == "reset" else answer


@given(st.lists(plain_specs | coarse_specs(), min_size=3, max_size=3), st.lists(call, min_size=1, max_size=25))
def test_claims_are_counted_as_in_memory(
    shared: tuple[SharedMemoryStorage, FakeClock], specs: list[BucketSpec], calls: list[Any]
) -> None:
    """Every verdict, level, settlement and number of extended claims is the same."""
    storage, clock = shared
    storage.clear()
    memory = KeptBuckets(clock)
    latest = 0
    for verb, later_us, asked, back, ttl_us in calls:
        latest += verb == "reserve"  # each reservation has a number of its own
        number = latest if verb == "reserve" else max(1, latest + 1 - back)
        clock.advance(later_us / SECOND_US)
        requests = [request(specs[spec], f"k{key}", share, verb) for key, spec, share, _ in asked]
        extra: tuple[Any, ...] = ()
        if verb == "reserve":
            extra = (number, [ClaimTerms(kind, ttl_us) for *_, kind in asked])
        elif verb == "settle":
            extra = (number, [10 * one.spec.units_per_token for one in requests])
        elif verb == "extend":
            extra = (number, [ttl_us] * len(requests))
        in_file = outcome(getattr(storage, f"{verb}_blocking"), requests, *extra)
        assert in_file == outcome(memory.call, verb, requests, extra)
    check_cells(storage, ["k0", "k1", "k2"])


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns; a number of claims that is there already raises."""
    try:
        return call(*arguments)
    except (StorageError, ValueError) as error:
        return type(error), str(error)


def request(spec: BucketSpec, key: str, share: int, verb: str) -> BucketRequest:
    """Return a request for a share of a bucket's capacity."""
    tokens = [1, spec.max_tokens, max(1, spec.max_tokens // 2), min(3, spec.max_tokens), 0][share]
    return BucketRequest(key, spec, max(tokens, verb in {"take", "refund"}) * spec.units_per_token)


def check_cells(storage: SharedMemoryStorage, keys: Sequence[str] = ()) -> int:
    """Check that each cell that was ever used is free or in the chain of one bucket; return how many are in chains.

    Args:
        storage: The storage.
        keys: The only buckets that there are; none: look for all.
    """
    table = storage._mapped.table()
    first, count, used = table.cells.free_cells()
    free: list[int] = []
    while len(free) < count:
        free.append(int(first) - 1)
        first = table.cells.next_of(first - 1)
    held: list[int] = []
    slots = (
        [slot for stripe in range(table.file.layout.stripes) for slot in table.slots.claimed_in(stripe)]
        if not keys
        else []
    )
    for key in keys:
        bucket = table.slots.locate(key)
        table.slots.look(bucket, RULE.spec, 0)
        slots += [bucket.slot] * (bucket.slot >= 0)
    for slot in slots:
        chain = table.slots.chain_of(slot)
        cell = (chain >> CHAIN_COUNT_BITS) - 1
        for _ in range(chain & MAX_CHAIN):
            held.append(int(cell))
            cell = table.cells.next_of(cell) - 1
    assert sorted(free + held) == list(range(used))
    return len(held)


def test_claims_are_seen_by_other_processes_and_outlive_their_own(tmp_path: Path) -> None:
    """A hold that a process took is released by another; a reservation of a dead one is settled."""
    path = tmp_path / "buckets"
    storage = SharedMemoryStorage(path, size_bytes=SIZE)
    in_flight = [request(RateLimitRule.in_flight(1, hold_seconds=60).spec, "hold", 0, "take")]
    budget = [BucketRequest("budget", RULE.spec, 80 * TOKEN)]
    child = os.fork()
    if child == 0:
        allowed = storage.reserve_blocking(in_flight, 1, [ClaimTerms(HOLD, 60 * SECOND_US)]).allowed
        allowed &= storage.reserve_blocking(budget, 2, [ClaimTerms(CHARGE, 60 * SECOND_US)]).allowed
        os._exit(0 if allowed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    other = SharedMemoryStorage(path)
    assert not other.reserve_blocking(in_flight, 3, [ClaimTerms(HOLD, 60 * SECOND_US)]).allowed
    assert not other.take_nowait(budget).allowed  # type: ignore[union-attr]
    assert other.info().claims == 2
    (settled,) = other.settle_blocking([budget[0].with_cost(30 * TOKEN)], 2, [0])
    assert settled.returned_units == 50 * TOKEN
    other.settle_blocking(in_flight, 1, [0])
    assert other.reserve_blocking(in_flight, 3, [ClaimTerms(HOLD, 60 * SECOND_US)]).allowed
    assert check_cells(other) == 1


def test_cells_come_back_whatever_becomes_of_their_buckets(tmp_path: Path) -> None:
    """Settled, ended and forgotten, pushed out by others, or cleared: none is lost. Where there are no more, a call says so."""
    clock = FakeClock()
    storage = SharedMemoryStorage(tmp_path / "buckets", size_bytes=SIZE, clock=clock, deadline_ms=10_000)
    info = storage.info()
    for number in range(1, info.claim_cells + 1):
        asked = [BucketRequest(f"r{number}", RULE.spec, TOKEN)]
        assert storage.reserve_blocking(asked, number, [ClaimTerms(RELEASE, SECOND_US)]).allowed
    with pytest.raises(StorageError, match="no room for more reservations") as raised:
        storage.reserve_blocking([BucketRequest("more", RULE.spec, TOKEN)], 1, [ClaimTerms(RELEASE, SECOND_US)])
    assert raised.value.reason == "overload"
    assert check_cells(storage) == info.claim_cells
    for one in range(1, 100):
        storage.settle_blocking([BucketRequest(f"r{one}", RULE.spec, 0)], one, [0])
    assert check_cells(storage) == info.claim_cells - 99
    clock.advance(2000)  # all are over, and equal to absent ones
    plain = RateLimitRule.per_day(5)
    for one in range(3 * info.slots):
        storage.take_blocking([BucketRequest(f"p{one}", plain.spec, plain.spec.units_per_token)])
    assert check_cells(storage) == 0
    for one in range(50):
        storage.reserve_blocking([BucketRequest(f"r{one}", RULE.spec, TOKEN)], 1, [ClaimTerms(HOLD, 10**9)])
    storage.clear()
    assert check_cells(storage) == 0
    assert storage.info().claims == storage.info().buckets == 0


def reserve(storage: SharedMemoryStorage, keys: list[str]) -> None:
    """Reserve from three buckets."""
    requests = [BucketRequest(key, RULE.spec, 5 * TOKEN) for key in keys]
    storage.reserve_blocking(requests, 77, [ClaimTerms(kind, 60 * SECOND_US) for kind in (CHARGE, HOLD, PAID)])


def settle(storage: SharedMemoryStorage, keys: list[str]) -> None:
    """Settle what the test has reserved from two of the buckets."""
    storage.settle_blocking([BucketRequest(key, RULE.spec, 2 * TOKEN) for key in keys], 7, [0, 0, 0])


def take(storage: SharedMemoryStorage, keys: list[str]) -> None:
    """Pay from buckets with claims."""
    storage.take_blocking([BucketRequest(key, RULE.spec, 2 * TOKEN) for key in keys])


@pytest.mark.skipif(compiled(), reason="compiled code cannot be traced")
@pytest.mark.parametrize("work", [reserve, settle, take])
def test_a_process_killed_at_any_step_tears_and_leaks_no_claim(
    tmp_path: Path, work: Callable[[SharedMemoryStorage, list[str]], None]
) -> None:
    """Buckets with claims and without, in stripes of their own: changed together or not at all, and no cell is lost."""
    storage = SharedMemoryStorage(tmp_path / "buckets", size_bytes=SIZE, clock=FakeClock(), deadline_ms=10_000)
    keys = different_stripes(storage, 3)
    for number, key in ((7, keys[0]), (8, keys[0]), (7, keys[1]), (9, "other")):
        storage.reserve_blocking(
            [BucketRequest(key, RULE.spec, 4 * TOKEN)], number, [ClaimTerms(RELEASE, 60 * SECOND_US)]
        )
    storage.settle_blocking([BucketRequest("other", RULE.spec, 0)], 9, [0])  # so that there is a free cell
    memory = storage._mapped.table().file.memory
    snapshot = memory[:]

    def state() -> tuple[list[int], int]:
        levels = [storage.peek_blocking([BucketRequest(key, RULE.spec, 0)])[0].level for key in reversed(keys)]
        return levels, check_cells(storage, [*keys, "other"])

    before = state()
    work(storage, keys)
    after = state()
    assert before != after
    numbers = random.Random(1)
    stride = 1 if LONG else 5
    seen: list[tuple[list[int], int]] = []
    while True:
        memory[:] = snapshot
        child = os.fork()
        if child == 0:
            sys.settrace(Killer(1 + len(seen) * stride, lambda: os.kill(os.getpid(), signal.SIGKILL)))
            work(storage, keys)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        scribble(storage, numbers)
        seen.append(state())
        if status == 0:
            break
        assert status == -signal.SIGKILL
    changed_at = seen.index(after)
    assert seen == [before] * changed_at + [after] * (len(seen) - changed_at)
    assert 50 / stride < changed_at < len(seen) - 1
