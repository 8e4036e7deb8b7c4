"""Checks on buckets that the processes of one host share."""

import multiprocessing
import tempfile
import time
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import shared_peers as peers
from bench_memory import client, clients
from bench_redis import binary
from report import KIND, Section, at_least, at_most, compare
from rounds import Contestant, SyncCheck, alternate, one_by_one, one_by_one_sync, ratio
from sizes import Size
from support.redis_servers import RedisServer

_MILLION = 10**6
_MOST_US = {"compiled": 5, "pure": 7}
_SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of this run's own is made in it


async def run(size: Size) -> Section:
    """Measure."""
    section = Section("Shared by the processes of one host")
    with (
        tempfile.TemporaryDirectory(dir=_SHARED_MEMORY) as folder,
        RedisServer(binary=binary()) as server,
    ):
        await _compare_peers(Path(folder), server, size, section)
        await _compare_processes(Path(folder), size, section)
    return section


async def _compare_peers(folder: Path, server: RedisServer, size: Size, section: Section) -> None:
    names = clients(1_000)
    ours = _sync("sluicegate, sync", peers.ours_sync(folder / "sync", _MILLION, _MILLION), names, ours=True)
    others = [
        _sync("limits on Redis, sync (fixed window)", peers.limits_on_redis(server.url, _MILLION), names),
        _sync("pyrate-limiter on SQLite, file lock (log)", peers.pyrate_sqlite(folder / "pyrate"), names[:1]),
        _sync("pyrate-limiter, multiprocess (log)", peers.pyrate_multiprocess(), names[:1]),
    ]
    bare = peers.bare_sqlite(folder / "bare", _MILLION, _MILLION)
    yardstick = Contestant("bare SQLite, one statement by hand", one_by_one_sync(bare, names), peer=False)
    contestants = [
        ours,
        Contestant("sluicegate, await", one_by_one(peers.ours(folder / "await", _MILLION, _MILLION), names), ours=True),
        *others,
        yardstick,
    ]
    await alternate(contestants, rounds=size.rounds, checks=size.lone_checks)
    conditions = (
        "One process, one check after the other, 1,000 clients, allowed; pyrate-limiter: one bucket of 100 a second;"
        f" files in /dev/shm; {size.rounds} rounds of {size.lone_checks:,} checks each."
    )
    section.tables.append(compare("one process", conditions, contestants))
    best = min([*others, yardstick], key=lambda contestant: contestant.median)
    work = f"shared memory, sync, {KIND}"
    section.goals += [
        at_most(work, _MOST_US[KIND], ours.median, unit="us a check"),
        at_least(work, 10, ratio(best, ours), than=f"the best of the others: {best.name}"),
    ]


async def _compare_processes(folder: Path, size: Size, section: Section) -> None:
    """Compare one process with two, on clients of their own and on one client."""
    check = peers.ours_sync(folder / "processes", _MILLION * 100, _MILLION)
    apart = [
        Contestant(f"{count} with clients of their own", partial(_together, check, count, same=False), ours=True)
        for count in (1, 2)
    ]
    same = Contestant("2 with one client", partial(_together, check, 2, same=True), ours=True)
    await alternate([*apart, same], rounds=size.rounds, checks=size.memory_checks)
    conditions = (
        f"sluicegate, sync; {size.rounds} rounds of {size.memory_checks:,} checks per process; the wall clock of the slowest"
        " process per check of all of them."
    )
    section.tables.append(compare("several processes", conditions, [*apart, same]))
    section.goals.append(
        at_least("two processes, clients of their own", 1.7, ratio(apart[0], apart[1]), than="one process")
    )


async def _together(check: SyncCheck, processes: int, checks: int, *, same: bool) -> float:
    """Return the microseconds per check of processes that are forked and start at once."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    results = context.SimpleQueue()
    workers = [
        context.Process(
            target=_work, args=(check, 0 if same else number, 1 if same else 1_000, checks, barrier, results)
        )
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    slowest_ns = max(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return slowest_ns / 1000 / checks / processes


def _work(  # noqa: PLR0913, PLR0917 - what a process is told
    check: SyncCheck,
    number: int,
    count: int,
    checks: int,
    barrier: Barrier,
    results: "multiprocessing.SimpleQueue[int]",
) -> None:
    names = [client((number + 1) * 100_000 + nth) for nth in range(count)]
    turns = [names[nth % count] for nth in range(checks)]
    barrier.wait()
    started_ns = time.perf_counter_ns()
    for name in turns:
        check(name)
    results.put(time.perf_counter_ns() - started_ns)


def _sync(name: str, check: SyncCheck, names: list[str], *, ours: bool = False) -> Contestant:
    return Contestant(name, one_by_one_sync(check, names), ours=ours)
