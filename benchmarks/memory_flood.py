"""Send ten million different identifiers through a bounded storage and watch the memory: `make soak`.

An honest client is limited meanwhile: 5 a minute, one check a second of the storage's clock. The flood's own buckets are full
again after 12 seconds, so there are always full ones to forget, and the honest client must never gain a token from it.
"""

import asyncio
import resource
import sys
from pathlib import Path

from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.testing import FakeClock

IDENTIFIERS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
MAX_KEYS = 100_000
PER_SECOND = 5_000  # of the storage's clock: 60,000 buckets that are not full yet


def resident_mb() -> float:
    """Return this process's resident memory in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def main() -> int:
    """Flood, and compare the honest client's admissions with what its rule promises."""
    clock = FakeClock()
    storage = MemoryStorage(clock=clock, max_keys=MAX_KEYS)
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /": RateLimitRule.per_minute(5)})
    before_mb = resident_mb()
    admitted = 0
    for n in range(IDENTIFIERS):
        await limiter.is_allowed(endpoint="GET /", identifier=f"flood-{n}")
        if n % PER_SECOND == 0:
            clock.advance(1)
            result = await limiter.is_allowed(endpoint="GET /", identifier="honest")
            admitted += result.value.allowed
        if n % (IDENTIFIERS // 10) == 0:
            print(
                f"{n:>11,} identifiers  {len(storage):>8,} keys  {resident_mb() - before_mb:7.1f} MB more", flush=True
            )
    seconds = IDENTIFIERS // PER_SECOND
    promised = 5 + (seconds - 1) * 5 // 60
    print(f"{IDENTIFIERS:>11,} identifiers  {len(storage):>8,} keys  {resident_mb() - before_mb:7.1f} MB more")
    print(f"honest client: {admitted} admitted in {seconds} s, {promised} promised")
    print(f"buckets forgotten before they were full: {storage.evicted_unfull}")
    return 0 if admitted == promised and storage.evicted_unfull == 0 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
