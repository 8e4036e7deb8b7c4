"""What small parts take, for the pages and comments that name them: `python benchmarks/small_parts.py`.

The bytes that a bucket in memory, a cached denial and a bucket that may be leased take.
"""

import tracemalloc
from collections.abc import Callable

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


def main() -> None:
    """Measure."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": RULE})
    bytes_each("a bucket in memory", lambda n: limiter.is_allowed(endpoint="GET /", identifier=name(n)))
    cache, table = DenialCache(), LeaseTable()
    denial = Verdict(allowed=False, levels=(BucketLevel(0, 0),))
    bytes_each("a cached denial", lambda n: cache.store([request(n)], denial, cache.begin()))
    bytes_each("a bucket that may be leased", lambda n: table.pay(request(n), None))


if __name__ == "__main__":
    main()
