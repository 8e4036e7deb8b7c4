"""A check on Redis beside a bare redis-py EVALSHA of the same script: `python benchmarks/redis_check.py [callers …]`.

Both run in the same process against the same server, in alternating rounds, for each number of concurrent callers; printed are
the medians of the rounds. `server` is Redis' own time per check, from its command statistics.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from redis.asyncio import Redis

from sluicegate import RateLimitRule, RedisStorage, TokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.infrastructure.redis.calls import TAKE, Call
from sluicegate.infrastructure.redis.script import Script, arguments
from support.redis_servers import RedisServer

ROUNDS, SECONDS = 5, 0.7
RULE = RateLimitRule(max_tokens=1_000_000, refill_rate=60_000_000, scope="ip")
TIGHT = RateLimitRule.per_day(1)
THREE = tuple(RateLimitRule(max_tokens=1_000_000, refill_rate=rate, scope="ip") for rate in (6e7, 5e7, 4e7))


async def run(check: Callable[[int], Awaitable[object]], callers: int) -> tuple[float, float, float]:
    """Let callers check as fast as they get answers. Return checks a second, and p50 and p99 in microseconds."""
    latencies: list[float] = []
    start = time.perf_counter()

    async def caller(number: int) -> None:
        while (begun := time.perf_counter()) < start + SECONDS:
            await check(number)
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*[caller(number) for number in range(callers)])
    took = time.perf_counter() - start
    latencies.sort()
    return len(latencies) / took, latencies[len(latencies) // 2] * 1e6, latencies[int(len(latencies) * 0.99)] * 1e6


async def main(numbers: Sequence[int]) -> None:
    """Measure."""
    with RedisServer() as server:
        script = Script()
        client = Redis(port=server.port, max_connections=2_000)
        plain: Any = server.client()
        plain.script_load(script.text)
        calls = [
            arguments(
                [
                    Call(
                        TAKE,
                        [BucketRequest(f"bare:{number}", RULE.spec, RULE.spec.units_per_token)],
                        asyncio.Future(),
                        0.0,
                    )
                ],
                1,
            )
            for number in range(max(numbers))
        ]
        storage = RedisStorage.from_url(server.url, deadline_ms=5_000)
        rules = {"GET /": RULE, "GET /denied": TIGHT, "GET /three": THREE}
        limiter = TokenBucketAdapter(storage=storage, rules=rules, deadline_ms=5_000)

        async def bare(number: int) -> None:
            await client.evalsha(script.digest, *calls[number])  # type: ignore[arg-type]

        def check_of(endpoint: str, spread: int) -> Callable[[int], Awaitable[object]]:
            names = [f"client-{number % spread}" for number in range(max(numbers))]
            return lambda number: limiter.is_allowed(endpoint=endpoint, identifier=names[number])

        work = {
            "bare EVALSHA": bare,
            "check": check_of("GET /", max(numbers)),
            "check, one key": check_of("GET /", 1),
            "check, denied": check_of("GET /denied", 1),
            "check, 3 rules": check_of("GET /three", max(numbers)),
        }
        for callers in numbers:
            rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in work}
            server_us: dict[str, list[float]] = {name: [] for name in work}
            for _ in range(ROUNDS):
                for name, one in work.items():
                    plain.config_resetstat()
                    result = await run(one, callers)
                    rows[name].append(result)
                    server_us[name].append(plain.info("commandstats")["cmdstat_evalsha"]["usec"] / result[0] / SECONDS)
            base = [statistics.median(column) for column in zip(*rows["bare EVALSHA"], strict=True)]
            for name, results in rows.items():
                rate, p50, p99 = (statistics.median(column) for column in zip(*results, strict=True))
                print(
                    f"{callers:5} callers  {name:16} {rate:8.0f}/s ({rate / base[0]:5.2f}x)"
                    f"  p50 {p50:7.0f} us ({p50 / base[1]:4.2f}x)  p99 {p99:7.0f} us"
                    f"  server {statistics.median(server_us[name]):5.1f} us",
                    flush=True,
                )
        assert not limiter.failures, limiter.failures
        await limiter.aclose()
        await client.aclose()


if __name__ == "__main__":
    asyncio.run(main([int(argument) for argument in sys.argv[1:]] or [1, 10, 50, 200, 1_000]))
