"""The longest single check: new clients among the buckets of a full table that has been used several times over.

    python benchmarks/full_table.py [KEYS [CHECKS]]

Each check is timed by itself, by the wall clock and by the processor time of its thread. A check may be long because the table
has much to do at once, because Python's garbage collector ran in it, or because other processes got the processor. The collector
tells when it runs; a check that took long by the wall clock alone was interrupted; the rest is the table's. The same loop around
an empty coroutine shows what the machine does to any code.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from bench_memory import client
from report import Section, Table, at_most
from sizes import FULL, Size
from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.testing import FakeClock

LONG_NS = 1_000_000
_ENDPOINT = "GET /items"
_TIMES_USED = 3
_RULE = RateLimitRule.per_hour(60, burst=100)
_SECONDS_PER_TOKEN = 60


@dataclass(slots=True)
class Timed:
    """What a loop found.

    Args:
        name: What was done.
        checks: How many checks were timed.
        long: How many took over a millisecond by the wall clock.
        collected: In how many of those the garbage collector ran.
        interrupted: In how many of the others the thread itself ran for less than a millisecond.
        longest_ms: The longest by the wall clock.
        longest_own_ms: The most processor time of a check in which the garbage collector did not run.
        longest_own_at: Which check that was.
    """

    name: str
    checks: int
    long: int = 0
    collected: int = 0
    interrupted: int = 0
    longest_ms: float = 0.0
    longest_own_ms: float = 0.0
    longest_own_at: int = 0

    @property
    def unexplained(self) -> int:
        """How many are neither the collector's nor the machine's."""
        return self.long - self.collected - self.interrupted


async def add_to(section: Section, size: Size) -> None:
    """Measure with the garbage collector and without it, each in a process of its own, and add a table and the goal."""
    timed: list[Timed] = []
    for collector in ("on", "off"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, str(size.full_table), str(size.timed_checks), collector),
            stdout=asyncio.subprocess.PIPE,
        )
        timed += [Timed(**found) for found in json.loads((await process.communicate())[0])]
    conditions = (
        f"A table of {size.full_table:,} keys, full, each used {_TIMES_USED} times; {size.timed_checks:,} checks of new clients"
        " in each of three states: no bucket is full again, each was expected to be but is not, and each is. `own` is the"
        " processor time of the thread, where the garbage collector did not run."
    )
    head = (
        "",
        "checks",
        "over 1 ms",
        "collector",
        "interrupted",
        "unexplained",
        "longest ms",
        "longest own ms",
        "at check",
    )
    rows = [
        (
            one.name,
            f"{one.checks:,}",
            *(str(number) for number in (one.long, one.collected, one.interrupted, one.unexplained)),
            f"{one.longest_ms:.3f}",
            f"{one.longest_own_ms:.3f}",
            f"{one.longest_own_at:,}",
        )
        for one in timed
    ]
    section.tables.append(Table("the longest single check", conditions, head, rows))
    ours = [one for one in timed if not one.name.startswith("nothing")]
    work = f"a full table of {size.full_table:,} keys, the longest check"
    section.goals.append(at_most(work, 1, max(one.longest_own_ms for one in ours), unit="ms of its own"))


async def measure(keys: int, checks: int, *, collector: bool) -> list[Timed]:
    """Fill a table, and time checks of new clients in each of its states.

    Args:
        keys: How many the table holds.
        checks: Timed checks in each state.
        collector: Whether the garbage collector is on.
    """
    clock = FakeClock()
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=clock, max_keys=keys), rules={_ENDPOINT: _RULE})
    is_allowed = limiter.is_allowed
    for _ in range(_TIMES_USED):
        for number in range(keys):
            await is_allowed(endpoint=_ENDPOINT, identifier=client(number))

    async def check(name: str) -> None:
        await is_allowed(endpoint=_ENDPOINT, identifier=name)

    if not collector:
        gc.disable()
    how = f"garbage collector {'on' if collector else 'off'}"
    timed: list[Timed] = []
    next_client = keys
    # Of a bucket that was used three times the queue knows when it is full again after the first: one token's time. Each new
    # client of a state is filed as the first ones were.
    for state, advance_s in (
        ("no bucket is full", 0),
        ("expected to be full, and not full", _SECONDS_PER_TOKEN + 2),
        ("all full", _SECONDS_PER_TOKEN * _TIMES_USED),
    ):
        clock.advance(advance_s)
        names = [client(next_client + number) for number in range(checks)]
        next_client += checks
        timed.append(await _time_each(f"{state}, {how}", check, names))
    timed.append(await _time_each(f"nothing at all, {how}", _nothing, [client(number) for number in range(checks)]))
    gc.enable()
    return timed


async def _time_each(name: str, check: Callable[[str], Awaitable[None]], clients: list[str]) -> Timed:
    found = Timed(name, len(clients))
    wall, own = time.perf_counter_ns, time.thread_time_ns
    collections = [0]

    def count(phase: str, _info: dict[str, int]) -> None:
        collections[0] += phase == "start"

    gc.callbacks.append(count)
    for at, client_name in enumerate(clients):
        before = collections[0]
        own_ns = own()
        wall_ns = wall()
        await check(client_name)
        wall_ns = wall() - wall_ns
        own_ns = own() - own_ns
        collected = collections[0] != before
        found.longest_ms = max(found.longest_ms, wall_ns / 1e6)
        if not collected and own_ns > found.longest_own_ms * 1e6:
            found.longest_own_ms, found.longest_own_at = own_ns / 1e6, at
        if wall_ns > LONG_NS:
            found.long += 1
            found.collected += collected
            found.interrupted += not collected and own_ns < LONG_NS
    gc.callbacks.remove(count)
    return found


async def _nothing(_: str) -> None:
    pass


def main(arguments: list[str]) -> None:
    """Print what `add_to` asks for as JSON, or for a reader one loop a line."""
    keys = int(arguments[0]) if arguments else FULL.full_table
    checks = int(arguments[1]) if arguments[1:] else FULL.timed_checks
    if arguments[2:]:
        print(json.dumps([asdict(one) for one in asyncio.run(measure(keys, checks, collector=arguments[2] == "on"))]))
        return
    for collector in (True, False):
        for one in asyncio.run(measure(keys, checks, collector=collector)):
            print(one, f"unexplained={one.unexplained}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
