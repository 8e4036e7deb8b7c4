"""Alternating rounds: each contestant works in every round, in a turning order, so that a noisy neighbour meets them all."""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

Check = Callable[[str], Awaitable[object]]
"""One check of one client, async."""

PlainCheck = Callable[[str], object]
"""One check of one client, sync."""


@dataclass(slots=True)
class Contestant:
    """Somebody who works in each round.

    Args:
        name: What the table calls it.
        work: Does one round of `checks` and returns what each check took, in microseconds.
        ours: Whether it is this project's.
        peer: Whether it is a rate limiter of others; neither: a yardstick.
        note: What else the table says about it.
    """

    name: str
    work: Callable[[int], Awaitable[float]]
    ours: bool = False
    peer: bool = True
    note: str = ""
    figures: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of its rounds."""
        return statistics.median(self.figures)

    @property
    def spread(self) -> tuple[float, float]:
        """Its fastest and its slowest round."""
        return min(self.figures), max(self.figures)


async def alternate(contestants: Sequence[Contestant], *, rounds: int, checks: int) -> None:
    """Let all contestants work in turn; their figures are kept with them. One round in front warms up.

    Args:
        contestants: Who works.
        rounds: How often.
        checks: Checks per round.
    """
    for contestant in contestants:
        await contestant.work(max(1, checks // 10))
    for number in range(rounds):
        start = number % len(contestants)
        for contestant in (*contestants[start:], *contestants[:start]):
            gc.collect()
            contestant.figures.append(await contestant.work(checks))


def ratio(one: Contestant, other: Contestant) -> float:
    """Return how many times the time of `other` one takes: the median of the rounds' ratios, which noise moves least."""
    return statistics.median(mine / theirs for mine, theirs in zip(one.figures, other.figures, strict=True))


def one_by_one(check: Check, clients: Sequence[str]) -> Callable[[int], Awaitable[float]]:
    """Return the work of a caller that awaits one check after the other, for each client in turn."""

    async def work(checks: int) -> float:
        turns = _turns(clients, checks)
        started_ns = time.perf_counter_ns()
        for client in turns:
            await check(client)
        return (time.perf_counter_ns() - started_ns) / checks / 1000

    return work


def one_by_one_plain(check: PlainCheck, clients: Sequence[str]) -> Callable[[int], Awaitable[float]]:
    """Do the same without a coroutine."""

    async def work(checks: int) -> float:
        turns = _turns(clients, checks)
        started_ns = time.perf_counter_ns()
        for client in turns:
            check(client)
        return (time.perf_counter_ns() - started_ns) / checks / 1000

    return work


def together(
    check: Check, clients: Sequence[str], callers: int, latencies_us: list[float]
) -> Callable[[int], Awaitable[float]]:
    """Return the work of many callers in one event loop, each of which awaits one check after the other.

    Args:
        check: One check.
        clients: The clients, which the callers share out.
        callers: How many tasks.
        latencies_us: Where what each single check took is noted.
    """

    async def caller(turns: Sequence[str]) -> None:
        clock, note = time.perf_counter_ns, latencies_us.append
        for client in turns:
            started_ns = clock()
            await check(client)
            note((clock() - started_ns) / 1000)

    async def work(checks: int) -> float:
        turns = _turns(clients, checks)
        tasks = [caller(turns[number::callers]) for number in range(callers)]
        started_ns = time.perf_counter_ns()
        await asyncio.gather(*tasks)
        return (time.perf_counter_ns() - started_ns) / checks / 1000

    return work


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which so many percent of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _turns(clients: Sequence[str], checks: int) -> list[str]:
    # A stride that shares no factor with the usual numbers of clients: neighbours in time are not neighbours in memory.
    return [clients[number * 7919 % len(clients)] for number in range(checks)]
