"""What small parts take, for the pages and comments that name them: `python benchmarks/small_parts.py`.

The bytes that a bucket at hand, a remembered denial and a watched lease take, and a turn beside a lock.
"""

import timeit
import tracemalloc
from collections.abc import Callable
from threading import Lock

from sluicegate.runtime.turn import Turn

from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.infrastructure.redis.denial_cache import DenialCache
from sluicegate.infrastructure.redis.lease_table import LeaseTable

COUNT = 10_000
RULE = RateLimitRule.per_hour(1000, burst=100)


def name(number: int) -> str:
    """Return an address."""
    return f"10.0.{number // 250}.{number % 250}"


def request(number: int) -> BucketRequest:
    """Ask for a token of an address' bucket."""
    spec = RULE.spec
    return BucketRequest(f"rate_limit:ip:{name(number)}:GET /", spec, spec.units_per_token, 25 * spec.units_per_token)


def bytes_each(what: str, work: Callable[[int], object]) -> None:
    """Print what doing something for each address adds."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(COUNT):
        work(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{what}: {(after - before) / COUNT:.0f} bytes each, names included")


def nanoseconds(
    what: str, one: Callable[[], object], other: Callable[[None], object] | Callable[[], object], how: str
) -> None:
    """Print what two calls take at best, one after the other."""
    best = min(timeit.repeat(how, globals={"one": one, "other": other}, number=100_000, repeat=9)) / 100_000
    print(f"{what}: {best * 1e9:.0f} ns")


def main() -> None:
    """Measure."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": RULE})
    bytes_each("a bucket that is at hand", lambda n: limiter.is_allowed(endpoint="GET /", identifier=name(n)))
    memo, book = DenialCache(), LeaseTable()
    denial = Verdict(allowed=False, levels=(BucketLevel(0, 0),))
    bytes_each("a remembered denial", lambda n: memo.learn([request(n)], denial, memo.asked()))
    bytes_each("a lease that is watched", lambda n: book.pay(request(n), None))
    lock, turn = Lock(), Turn()
    nanoseconds("a lock, taken and given back", lock.acquire, lock.release, "one(); other()")
    nanoseconds("a turn, taken and given back", turn.take, turn.give, "one(); other(None)")


if __name__ == "__main__":
    main()
