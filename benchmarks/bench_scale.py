"""Several processes on one redis-server, one client against many, and shares of denied checks."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import redis_peers as peers  # noqa: E402
from bench_memory import clients  # noqa: E402
from bench_redis import CONNECT, binary  # noqa: E402
from report import Plot, Section, compare  # noqa: E402
from rounds import Check, Contestant, alternate, together  # noqa: E402
from sizes import Size  # noqa: E402
from support.redis_servers import RedisServer  # noqa: E402

_CALLERS = 50
_MILLION = 10**6
_SHARES = (0, 50, 99)


async def run(size: Size) -> Section:
    """Measure."""
    section = Section("Scale")
    with RedisServer(binary=binary()) as server:
        await _processes(server, size, section)
        for title, names in (("one client", clients(1)), ("100,000 clients", clients(100_000))):
            await _compare(server, size, section, f"hot or spread: {title}", names, 0)
        for share in _SHARES:
            await _compare(server, size, section, f"{share} % denied, 1,000 clients", clients(1_000), share)
    return section


async def _processes(server: RedisServer, size: Size, section: Section) -> None:
    """Compare by the number of processes, each with 50 callers, on one server."""
    series: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in CONNECT}
    for count in size.processes:
        contestants = [
            Contestant(
                name,
                partial(_work_in_processes, server.url, at, count),
                ours=name.startswith("sluicegate"),
                peer=not name.startswith("bare"),
            )
            for at, (name, _) in enumerate(CONNECT)
        ]
        await alternate(contestants, rounds=3, checks=size.joint_checks)
        conditions = (
            f"Each process runs 50 callers, allowed, 1,000 clients; 3 rounds of {size.joint_checks:,} checks per process; the"
            " wall clock of the slowest process per check of all of them. The server has a core to itself at best."
        )
        section.tables.append(compare(f"{count} process{'' if count == 1 else 'es'}", conditions, contestants))
        for contestant in contestants:
            series[contestant.name].append((count, 1e6 / contestant.median))
    section.plots.append(
        Plot("redis_processes", "Throughput by processes, 50 callers each", "processes", "checks/s", series)
    )


async def _work_in_processes(url: str, contestant: int, count: int, checks: int) -> float:
    command = [sys.executable, __file__, url, str(contestant), str(checks)]
    workers = [
        await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    for worker in workers:
        assert worker.stdout is not None
        await worker.stdout.readline()  # connected and warm
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"go\n")
    replies = [json.loads((await worker.communicate())[0]) for worker in workers]
    return (max(end for _, end in replies) - min(start for start, _ in replies)) / (checks * count) * 1e6


async def _worker(url: str, contestant: int, checks: int) -> None:
    connected = await CONNECT[contestant][1](url, _MILLION, _MILLION)
    work = together(connected.check, clients(1_000), _CALLERS, [])
    await work(500)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    started = time.monotonic()
    await work(checks)
    print(json.dumps([started, time.monotonic()]))
    await connected.aclose()


async def _compare(  # noqa: PLR0913, PLR0917 - the conditions of a comparison
    server: RedisServer, size: Size, section: Section, title: str, names: list[str], denied_percent: int
) -> None:
    server.client().flushall()
    connected: list[peers.Connected] = []
    contestants: list[Contestant] = []
    for name, connect in CONNECT:
        allowing = await connect(server.url, _MILLION, _MILLION)
        connected.append(allowing)
        check = allowing.check
        if denied_percent:
            denying = await connect(server.url, 1, 1)
            connected.append(denying)
            check = _mixed(allowing.check, denying.check, denied_percent)
        work = together(check, names, _CALLERS, [])
        contestants.append(Contestant(name, work, ours=name.startswith("sluicegate"), peer=not name.startswith("bare")))
    await alternate(contestants, rounds=5, checks=size.joint_checks)
    conditions = f"One process, 50 callers; 5 rounds of {size.joint_checks:,} checks."
    section.tables.append(compare(title, conditions, contestants))
    for one in connected:
        await one.aclose()


def _mixed(allowing: Check, denying: Check, denied_percent: int) -> Check:
    """Return a check of which the given percentage goes to empty buckets, those of ten clients."""
    turn: Callable[[], int] = cycle(range(100)).__next__

    def check(client: str) -> object:
        number = turn()
        return denying(f"flood-{number % 10}") if number < denied_percent else allowing(client)

    return check


if __name__ == "__main__":
    asyncio.run(_worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
