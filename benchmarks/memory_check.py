"""Time one check on the embedded storage: `make bench`.

Prints the median and the fastest of several rounds, because the machine is shared; and a bare coroutine beside them, because a
figure without a yardstick says nothing.
"""

import asyncio
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter, TokenBucketAdapter

ROUNDS = 60
CHECKS = 5_000

RULES = {
    "slow refill": RateLimitRule.per_day(10**6),
    "allowed": RateLimitRule.per_second(1_000_000),
    "denied": RateLimitRule.per_day(1),
    "three rules": (RateLimitRule.per_second(1_000_000), RateLimitRule.per_hour(10**9), RateLimitRule.per_day(10**9)),
}


async def nothing() -> None:
    """Be awaited."""


async def rounds(call: Callable[[int], Awaitable[object]]) -> list[float]:
    """Return microseconds per call, a figure for each round."""
    figures: list[float] = []
    for _ in range(ROUNDS):
        started_ns = time.perf_counter_ns()
        for n in range(CHECKS):
            await call(n)
        figures.append((time.perf_counter_ns() - started_ns) / CHECKS / 1000)
    return figures


def show(name: str, figures: list[float]) -> None:
    """Print a line of the table."""
    print(f"{name:<44} median {statistics.median(figures):6.2f} us   fastest {min(figures):6.2f} us")


async def main() -> None:
    """Measure."""
    print(f"Python {platform.python_version()} on {platform.machine()}, {ROUNDS} rounds of {CHECKS} checks")
    show("a bare coroutine", await rounds(lambda _: nothing()))
    identifiers = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(100_000)]
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=RULES)
    for endpoint in RULES:
        check = await rounds(
            lambda _, endpoint=endpoint: limiter.is_allowed(endpoint=endpoint, identifier="192.168.1.1")
        )
        show(f"await is_allowed, {endpoint}, one client", check)
    for endpoint in ("slow refill", "allowed"):  # buckets that stay; buckets that are full, and forgotten, at once
        spread = await rounds(
            lambda n, endpoint=endpoint: limiter.is_allowed(endpoint=endpoint, identifier=identifiers[n * 17 % 100_000])
        )
        show(f"await is_allowed, {endpoint}, 5,000 clients", spread)
    sync = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES)
    figures: list[float] = []
    for _ in range(ROUNDS):
        started_ns = time.perf_counter_ns()
        for _ in range(CHECKS):
            sync.is_allowed(endpoint="allowed", identifier="192.168.1.1")
        figures.append((time.perf_counter_ns() - started_ns) / CHECKS / 1000)
    show("sync is_allowed, allowed, one client", figures)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
