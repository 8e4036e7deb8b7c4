"""What the parts of a check take, for the pages that name them: `python benchmarks/small_parts.py`.

First the steps of a plain check in memory, each with all that it calls; then what a lock costs, and the list that replaces it;
then the longest single insertion into dictionaries; then the bytes that a bucket, a cached denial and a counted lease take. With
the interpreter of `benchmarks/.venv` the parts are compiled, as in a wheel; with that of `.venv` they are not. Calls are made
from this interpreted file in either case.
"""

import asyncio
import time
import timeit
import tracemalloc
from collections.abc import Callable
from threading import Lock

import sluicegate
from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.application.check import prepare
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import refill, result
from sluicegate.domain.claims.claim import RELEASE
from sluicegate.domain.claims.claims import Claims
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.infrastructure.redis.denial_cache import DenialCache
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.runtime.system_clock import utc_now
from sluicegate.testing import FakeClock

COUNT = 10_000
CALLS = 50_000
ROUNDS = 9
ENDPOINT = "GET /items"
RULE = RateLimitRule.per_hour(1_000_000, burst=1_000_000)


def main() -> None:
    """Print all of it."""
    kind = "compiled" if sluicegate.COMPILED else "not compiled"
    print(f"{kind}; nanoseconds a call, the least mean of {ROUNDS} rounds of {CALLS:,} calls")
    steps()
    lock()
    print("microseconds, the longest insertion into a dictionary that grows to a number of keys")
    growth()
    print("bytes each, texts included")
    sizes()


def steps() -> None:
    """Print the steps of a plain check, from the whole to the smallest."""
    rules = {ENDPOINT: RULE}
    storage = MemoryStorage()
    limiter, sync_limiter = (
        kind(storage=storage, rules=rules) for kind in (TokenBucketAdapter, SyncTokenBucketAdapter)
    )
    key_format = KeyFormat()
    compiled = CompiledRules(rules, key_format)
    request = request_of("10.1.2.3")
    requests = (request,)
    spec = request.spec
    table = BucketTable(COUNT)
    now_us = time.monotonic_ns() // 1000
    is_allowed = sync_limiter.is_allowed
    print(
        f"  {awaited_ns(lambda: limiter.is_allowed(endpoint=ENDPOINT, identifier='10.1.2.3')):6.0f}  await is_allowed"
    )
    print(f"  {awaited_ns(nothing):6.0f}  await a coroutine that does nothing")
    nanoseconds("is_allowed, sync", lambda: is_allowed(endpoint=ENDPOINT, identifier="10.1.2.3"))
    nanoseconds(
        "  prepare: look-up, validation, key, request",
        lambda: prepare(compiled, key_format, ENDPOINT, "10.1.2.3", 0, utc_now),
    )
    nanoseconds("    the look-up of the endpoint", lambda: compiled.find(ENDPOINT))
    nanoseconds("    the encoding of the identifier", lambda: key_format.encode("10.1.2.3"))
    nanoseconds("  take_nowait: lock, clock, table", lambda: storage.take_nowait(requests))
    nanoseconds("    the table", lambda: table.take(requests, now_us))
    nanoseconds("      the arithmetic: refill", lambda: refill(spec, 1, now_us - 1, now_us))
    nanoseconds("    a reading of the clock", time.monotonic_ns)
    nanoseconds("  the answer", lambda: result(spec, request.cost_units, spec.capacity - 1, 0, allowed=True))
    nanoseconds("(of each of these: the call of a lambda)", lambda: None)


def lock() -> None:
    """Print what a lock takes in interpreted code, in two ways, and the list with one item that is the lock of `LockToken`."""
    mutex, free = Lock(), [None]
    acquire, release = mutex.acquire, mutex.release

    def with_statement() -> None:
        with mutex:
            pass

    def methods() -> None:
        acquire()
        release()

    def list_operations() -> None:
        del free[-1]
        free.append(None)

    nanoseconds("a lock in a `with`", with_statement)
    nanoseconds("a lock's acquire and release", methods)
    nanoseconds("an item taken out of a list and put back", list_operations)


def growth() -> None:
    """Print how long one insertion waits for a dictionary to be built anew: for all keys, and for one of 256 parts of them."""
    for keys in (1_000_000, 1_000_000 // 256):
        longest_ns = min(_longest_insertion_ns(keys) for _ in range(3))
        print(f"  {longest_ns / 1000:6.0f}  {keys:,} keys")


def _longest_insertion_ns(keys: int) -> int:
    names = [str(number) for number in range(keys)]
    grown: dict[str, None] = {}
    longest_ns = 0
    for name in names:
        started_ns = time.perf_counter_ns()
        grown[name] = None
        longest_ns = max(longest_ns, time.perf_counter_ns() - started_ns)
    return longest_ns


def sizes() -> None:
    """Print what is kept for each client."""
    # A clock that stands still: buckets that are full again would leave while they are counted.
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={ENDPOINT: RULE})
    bytes_each("a bucket in memory", lambda name: limiter.is_allowed(endpoint=ENDPOINT, identifier=name))
    table = BucketTable(COUNT)
    characters = sum(len(request_of(address(number)).key) for number in range(COUNT)) / COUNT
    in_bytes_each(
        f"the same without the {characters:.0f} characters of its key, which `BucketStore` counts apart",
        lambda number: table.take((request_of(address(number)),), 10**15),
        without=characters,
    )
    claims = Claims()
    in_bytes_each(
        "a claim on a bucket",
        lambda number: claims.add(10**14 + number, 10**7 + number, RELEASE, 10**15 + number, 60_000_000),
    )
    denials, leases = DenialCache(), LeaseTable()
    denied = Verdict(allowed=False, levels=(BucketLevel(0, 0),))
    bytes_each("a cached denial", lambda name: denials.store([request_of(name)], denied, denials.begin()))
    bytes_each("a counted lease", lambda name: leases.pay(request_of(name), None))


def request_of(name: str) -> BucketRequest:
    """Return a request for one token of an address's bucket, which may be leased."""
    spec = RULE.spec
    return BucketRequest(f"rate_limit:ip:{name}:{ENDPOINT}", spec, spec.units_per_token, 25 * spec.units_per_token)


def nanoseconds(what: str, call: Callable[[], object]) -> None:
    """Print what a call takes."""
    print(f"  {min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e9:6.0f}  {what}")


def awaited_ns(call: Callable[[], object]) -> float:
    """Return the nanoseconds that awaiting what a call returns takes."""

    async def one_round() -> float:
        started_ns = time.perf_counter_ns()
        for _ in range(CALLS):
            await call()
        return (time.perf_counter_ns() - started_ns) / CALLS

    return min(asyncio.run(one_round()) for _ in range(ROUNDS))


async def nothing() -> None:
    """Do nothing."""


def bytes_each(what: str, work: Callable[[str], object]) -> None:
    """Print how many bytes doing something for an address adds."""
    in_bytes_each(what, lambda number: work(address(number)))


def address(number: int) -> str:
    """Return one of many addresses."""
    return f"10.0.{number // 250}.{number % 250}"


def in_bytes_each(what: str, work: Callable[[int], object], *, without: float = 0) -> None:
    """Print how many bytes each of many calls adds, beside some that are counted apart."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(COUNT):
        work(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"  {(after - before) / COUNT - without:6.0f}  {what}")


if __name__ == "__main__":
    main()
