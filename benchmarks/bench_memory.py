"""Checks on buckets in memory."""

import memory_peers as peers
from memory_costs import compare_costs
from report import KIND, Goal, Plot, Section, at_least, at_most, compare
from rounds import Check, Contestant, SyncCheck, alternate, one_by_one, one_by_one_of_many, one_by_one_sync, ratio
from sizes import Size

_MILLION = 10**6
_IN_USE = (_MILLION, 1)
_FULL_EACH_TIME = (_MILLION, _MILLION * 100)
_WORK = (
    ("allowed, one client", 1, _MILLION, _MILLION),
    ("allowed, 10,000 clients whose buckets are in use", 10_000, *_IN_USE),
    ("allowed, 10,000 clients whose buckets are full each time", 10_000, *_FULL_EACH_TIME),
    ("denied, 10,000 clients", 10_000, 1, 1),
)
_AGAINST_PEERS = {"compiled": (7, 4.4), "pure": (2.5, 1.5)}
"""How many times as fast as throttled-py and as limits."""
_CLIFF = (9_000, 10_000)
"""Two numbers of clients between which there was a cliff once: a check took ten times as long beyond it."""


def client(number: int) -> str:
    """Return the address of one of 2**24 clients."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def clients(count: int) -> list[str]:
    """Return so many addresses."""
    return [client(number) for number in range(count)]


async def run(size: Size) -> Section:
    """Measure."""
    section = Section("In memory" if KIND == "compiled" else "In memory, without compiled modules")
    for title, count, burst, per_hour in _WORK:
        await _compare_peers(title, count, burst, per_hour, size, section)
    await _by_number_of_clients(size, section)
    await compare_costs(clients(10_000), size, section)
    return section


async def _compare_peers(  # noqa: PLR0913, PLR0917 - the conditions of a comparison
    title: str, count: int, burst: int, per_hour: int, size: Size, section: Section
) -> None:
    names = clients(count)
    ours = _async("sluicegate, await", peers.ours(burst, per_hour), names, ours=True)
    ours_sync = _sync("sluicegate, sync", peers.ours_sync(burst, per_hour), names, ours=True)
    limits = _async("limits, await (fixed window)", peers.limits_async(burst, per_hour), names)
    throttled = _async("throttled-py, await (token bucket)", peers.throttled_async(burst, per_hour), names)
    falconry = _sync("falconry token-bucket, sync", peers.falconry_sync(burst, per_hour), names)
    contestants = [
        ours,
        ours_sync,
        limits,
        throttled,
        _async("pyrate-limiter, await (token bucket)", peers.pyrate_async(burst, per_hour), names),
        _sync("limits, sync (fixed window)", peers.limits_sync(burst, per_hour), names),
        _sync("throttled-py, sync (token bucket)", peers.throttled_sync(burst, per_hour), names),
        falconry,
        Contestant("a coroutine that does nothing", one_by_one(_nothing, names), peer=False),
    ]
    await alternate(contestants, rounds=size.rounds, checks=size.memory_checks)
    conditions = f"One caller, one check after the other; {size.rounds} rounds of {size.memory_checks:,} checks each."
    section.tables.append(compare(title, conditions, contestants))
    if count == 1:
        work = f"memory, `await is_allowed`, {KIND}"
        than_throttled, than_limits = _AGAINST_PEERS[KIND]
        section.goals += [
            at_least(work, than_throttled, ratio(throttled, ours), than="throttled-py's token bucket (async)"),
            at_least(work, than_limits, ratio(limits, ours), than="limits (async)"),
        ]
        if KIND == "compiled":
            section.goals += [
                at_least(work, 0.75, ratio(falconry, ours), than="falconry's token-bucket (sync)"),
                at_least("memory, sync, compiled", 1, ratio(falconry, ours_sync), than="falconry's token-bucket"),
            ]


async def _by_number_of_clients(size: Size, section: Section) -> None:
    """Compare our own check among few clients and among many, all of whom have been seen before."""
    series: dict[str, list[tuple[float, float]]] = {}
    conditions = (
        f"sluicegate, await; each client was seen before, and comes again after {size.memory_checks:,} checks of others, or"
        f" after all of them if they are fewer; {size.rounds} rounds of {size.memory_checks:,} checks."
    )
    for state, (burst, per_hour) in (("in use", _IN_USE), ("full each time", _FULL_EACH_TIME)):
        contestants: list[Contestant] = []
        for count in size.clients:
            check = peers.ours(burst, per_hour)
            for number in range(count):
                await check(client(number))
            work = one_by_one_of_many(check, client, count)
            contestants.append(Contestant(f"{count:,} clients", work, ours=True))
        await alternate(contestants, rounds=size.rounds, checks=size.memory_checks)
        section.tables.append(compare(f"by the number of clients, buckets {state}", conditions, contestants))
        series[f"sluicegate, {KIND}, {state}"] = [
            (count, one.median) for count, one in zip(size.clients, contestants, strict=True)
        ]
        section.goals.append(_no_cliff(state, dict(zip(size.clients, contestants, strict=True))))
    section.plots.append(Plot("memory_clients", "A check in memory by the number of clients", "clients", "us", series))


def _no_cliff(state: str, by_count: dict[int, Contestant]) -> Goal:
    fewer, more = _CLIFF
    work = f"{more:,} clients, buckets {state}, {KIND}"
    return at_most(work, 1.5, ratio(by_count[more], by_count[fewer]), unit=f"times the time with {fewer:,}")


async def _nothing(_: str) -> None:
    pass


def _async(name: str, check: Check, names: list[str], *, ours: bool = False) -> Contestant:
    return Contestant(name, one_by_one(check, names), ours=ours)


def _sync(name: str, check: SyncCheck, names: list[str], *, ours: bool = False) -> Contestant:
    return Contestant(name, one_by_one_sync(check, names), ours=ours)
