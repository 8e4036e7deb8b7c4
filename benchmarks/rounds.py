"""Alternating rounds: each contestant works in every round, in a rotating order, so that other load on the machine hits all."""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

Check = Callable[[str], Awaitable[object]]
"""One check of one client, async."""

SyncCheck = Callable[[str], object]
"""One check of one client, sync."""

Work = Callable[[int], Awaitable[float]]
"""One round: the number of checks in, the microseconds that each took out."""


@dataclass(slots=True)
class Contestant:
    """What is measured in each round.

    Args:
        name: What the table calls it.
        work: Does one round.
        ours: Whether it is this project's.
        peer: Whether it is another project's rate limiter; neither: a yardstick.
    """

    name: str
    work: Work
    ours: bool = False
    peer: bool = True
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
    """Let all contestants work in turn, and keep their figures with them. A shorter round in front warms up.

    Args:
        contestants: What is measured.
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


def one_by_one(check: Check, clients: Sequence[str]) -> Work:
    """Return the work of a caller that awaits one check after the other, for each client in turn."""

    async def work(checks: int) -> float:
        return await _await_each(check, _turns(clients, checks))

    return work


def one_by_one_sync(check: SyncCheck, clients: Sequence[str]) -> Work:
    """Return the work of a caller that does one check after the other without a coroutine."""

    async def work(checks: int) -> float:
        turns = _turns(clients, checks)
        started_ns = time.perf_counter_ns()
        for client in turns:
            check(client)
        return (time.perf_counter_ns() - started_ns) / checks / 1000

    return work


def one_by_one_of_many(check: Check, client: Callable[[int], str], number_of_clients: int) -> Work:
    """Return the work of a caller that awaits one check after the other, each round for other ones of very many clients.

    Each check gets a fresh text, as a request brings one: one that is kept for each client would have to be fetched from memory
    as well.

    Args:
        check: One check.
        client: Returns the name of the client with a number below `number_of_clients`.
        number_of_clients: How many there are.
    """
    numbers = count()

    async def work(checks: int) -> float:
        return await _await_each(check, [client(next(numbers) * _STRIDE % number_of_clients) for _ in range(checks)])

    return work


def together(check: Check, clients: Sequence[str], callers: int, latencies_us: list[float]) -> Work:
    """Return the work of many callers in one event loop, each of which awaits one check after the other.

    Args:
        check: One check.
        clients: The clients, which are divided among the callers.
        callers: How many tasks.
        latencies_us: Gets what each single check took.
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


async def _await_each(check: Check, turns: Sequence[str]) -> float:
    started_ns = time.perf_counter_ns()
    for client in turns:
        await check(client)
    return (time.perf_counter_ns() - started_ns) / len(turns) / 1000


# It shares no factor with the numbers of clients used here: neighbours in time are not neighbours in memory.
_STRIDE = 7919


def _turns(clients: Sequence[str], checks: int) -> list[str]:
    return [clients[number * _STRIDE % len(clients)] for number in range(checks)]
