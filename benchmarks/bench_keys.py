"""How much memory a key takes, what a check takes among many keys, and the longest single check in a full table."""

import asyncio
import gc
import json
import random
import resource
import statistics
import sys
import time
from pathlib import Path

import full_table
from bench_memory import client
from report import Plot, Section, Table, at_most
from sizes import Size

_BYTES_PER_KEY = 250
_CHECKS = 20_000
_ROUNDS = 15


async def run(size: Size) -> Section:
    """Measure, each number of keys in a process of its own."""
    figures: dict[int, dict[str, float]] = {}
    for keys in size.keys:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, str(keys)), stdout=asyncio.subprocess.PIPE
        )
        figures[keys] = json.loads((await process.communicate())[0])
    rows = [
        (f"{keys:,}", *(f"{found[name]:.2f}" for name in ("check_us", "first_us")), f"{found['bytes']:.0f}")
        for keys, found in figures.items()
    ]
    conditions = (
        f"Buckets that are not full, identifiers such as `10.1.2.3`; a key's own text included. A check of a random known key"
        f" (median of {_ROUNDS} rounds of {_CHECKS:,}), the first check of each key (mean), growth of the process per key."
    )
    table = Table("keys in memory", conditions, ("keys", "check us", "first check us", "bytes per key"), rows)
    section = Section("Many keys in memory", [table])
    million = figures.get(1_000_000)
    if million is not None:
        times = million["check_us"] / figures[1_000]["check_us"]
        section.goals = [
            at_most("1,000,000 keys in memory", _BYTES_PER_KEY, million["bytes"], unit="bytes a key"),
            at_most("1,000,000 keys in memory", 2.5, times, unit="times the time with 1,000 keys"),
        ]
    series = {"sluicegate": [(keys, found["check_us"]) for keys, found in figures.items()]}
    section.plots.append(Plot("memory_keys", "A check in memory by the number of keys", "keys", "us", series))
    await full_table.add_to(section, size)
    return section


async def _measure(keys: int) -> dict[str, float]:
    from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter  # noqa: PLC0415 - counted as late as it can be

    rules = {"GET /items": RateLimitRule.per_day(1, burst=1_000)}
    is_allowed = TokenBucketAdapter(storage=MemoryStorage(max_keys=keys), rules=rules).is_allowed
    names = [client(number) for number in range(keys)]
    gc.collect()
    before = _resident_bytes()
    started = time.perf_counter()
    for name in names:
        await is_allowed(endpoint="GET /items", identifier=name)
    first_us = (time.perf_counter() - started) / keys * 1e6
    gc.collect()
    grown = _resident_bytes() - before
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        # Fresh texts, as a request brings them: those in `names` would have to be fetched from memory as well.
        some = ["".join(list(name)) for name in random.choices(names, k=_CHECKS)]
        started = time.perf_counter()
        for name in some:
            await is_allowed(endpoint="GET /items", identifier=name)
        rounds.append((time.perf_counter() - started) / _CHECKS * 1e6)
    return {"bytes": grown / keys, "first_us": first_us, "check_us": statistics.median(rounds)}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1])))))
