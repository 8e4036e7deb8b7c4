"""Long runs against real servers: `python benchmarks/redis_soak.py [processes] [leases] [cancel] [cluster]`.

- `processes`: 4 processes with 64 tasks each on one key for 20 s: admitted is never above `max_tokens + rate * t`, and not
  below 99.9 % of it.
- `leases`: the same with a lease, and one of the processes is killed every second or so, at random: no window admits more than
  the rule does. What is not admitted is what was lent to those that were killed.
- `cancel`: 100,000 checks through a slow proxy, many of them cancelled at random: every other one gets its own answer, and
  no task and no connection is left over.
- `cluster`: slots move back and forth under load, then a master is killed: no exception, every key within its bound as
  long as no state was lost.

Each prints what it measured and ends with an error if a bound is broken.
"""

import asyncio
import gc
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from redis.crc import key_slot

from sluicegate import RateLimitRule, RedisStorage, StorageError
from sluicegate.domain.buckets.bucket_request import BucketRequest
from support.borrowing_worker import Hot, run
from support.fault_proxy import FaultProxy
from support.redis_servers import ClusterSet, RedisServer

PROCESSES, TASKS, SECONDS = 4, 64, 20.0
# Capacities of one second: a bucket that holds less is full, and rightly gains nothing, whenever the scheduler of a busy machine
# runs none of the processes for that long.
RULES = {f"{n}/s": RateLimitRule(max_tokens=n, refill_rate=n * 60, scope="global") for n in (500, 20_000)}


def request(key: str, rule: RateLimitRule, cost: int = 1) -> BucketRequest:
    """Return a request for some tokens."""
    return BucketRequest(key, rule.spec, cost * rule.spec.units_per_token)


async def worker(url: str, key: str, rule: RateLimitRule, start: float) -> None:
    """Take as fast as possible from an instant on; print what was admitted and until when."""
    counts: Counter[str] = Counter()
    async with RedisStorage.from_url(url, deadline_ms=5_000) as storage:
        await storage.peek([request(key, rule)])
        await asyncio.sleep(start - time.monotonic())
        first = time.monotonic()
        end = start + SECONDS

        async def task() -> None:
            while time.monotonic() < end:
                try:
                    counts["allowed" if (await storage.take([request(key, rule)])).allowed else "denied"] += 1
                except StorageError as error:
                    counts[error.reason] += 1

        await asyncio.gather(*[task() for _ in range(TASKS)])
        print(json.dumps({"counts": counts, "first": first, "last": time.monotonic()}))


def processes() -> None:
    """Four processes on one key."""
    for name, rule in RULES.items():
        with RedisServer() as server:
            start = time.monotonic() + 3
            command = [sys.executable, __file__, "worker", server.url, "soak", name, str(start)]
            running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]  # noqa: S603 - ourselves
            answers = [json.loads(process.communicate()[0]) for process in running]
        counts: Counter[str] = sum((Counter(answer["counts"]) for answer in answers), Counter())
        longest = max(a["last"] for a in answers) - min(a["first"] for a in answers)
        shortest = min(a["last"] for a in answers) - max(a["first"] for a in answers)
        per_s = rule.refill_rate / 60
        bound, least = rule.max_tokens + per_s * longest, rule.max_tokens + per_s * shortest
        print(
            f"processes: {PROCESSES} x {TASKS} tasks, {name}: {sum(counts.values())} checks in {longest:.2f} s, {dict(counts)};"
            f" bound {bound:.0f}, admitted {counts['allowed'] / bound:.2%} of it",
            flush=True,
        )
        assert counts["allowed"] <= bound
        assert set(counts) == {"allowed", "denied"}
        assert counts["allowed"] >= 0.999 * least, (counts, least)


def leases() -> None:
    """Four processes that spend leases, and are killed at random."""
    for hot in (Hot(500, 500), Hot(20_000, 20_000), Hot(1_000_000, 1_000_000)):
        for kill_every_s in (1.0, 1e9):
            with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
                outcome = run(
                    server.url,
                    hot,
                    Path(folder) / "tally",
                    workers=PROCESSES,
                    seconds=SECONDS,
                    kill_every_s=kill_every_s,
                )
                calls = server.client().info("commandstats")["cmdstat_evalsha"]["calls"]
            admitted, bound = sum(outcome.by_bin), hot.max_tokens + hot.per_second * outcome.lasted_s
            print(
                f"leases: {PROCESSES} processes, {hot.per_second}/s, {outcome.kills} killed in {outcome.lasted_s:.2f} s: admitted"
                f" {admitted}, {admitted / bound:.2%} of the bound {bound:.0f}; {calls} script calls; longest check"
                f" {outcome.longest_s * 1000:.0f} ms; worst window {outcome.most_above(hot):+.0f} of what is allowed",
                flush=True,
            )
            assert outcome.most_above_from_start(hot) <= 0
            assert outcome.most_above(hot) <= 0


async def cancel() -> None:
    """A hundred thousand checks, many of them cancelled."""
    total, width = 100_000, 500
    rng = random.Random(1)
    rule = RateLimitRule.per_day(1_000_000)
    cancelled = answered = 0
    loop_errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    with RedisServer() as server:
        async with FaultProxy(*server.address) as proxy:
            proxy.faults.latency_s, proxy.faults.jitter_s = 0.002, 0.004
            async with RedisStorage.from_url(proxy.url, deadline_ms=5_000) as storage:

                async def one(number: int) -> bool:
                    asked = request(f"k{number}", rule, number % 9973 + 1)
                    verdict = await storage.take([asked])
                    return verdict.levels[0].level == rule.spec.capacity - asked.cost_units

                for start in range(0, total, width):
                    tasks = [asyncio.create_task(one(start + i)) for i in range(width)]
                    await asyncio.sleep(rng.random() * 0.02)  # a batch takes 4 to 12 ms, and some wait for it
                    for task in tasks:
                        if rng.random() < 0.7:  # noqa: PLR2004 - those that are not done yet
                            task.cancel()
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    assert not [r for r in results if r is not True and not isinstance(r, asyncio.CancelledError)], (
                        results
                    )
                    answered += results.count(True)
                    cancelled += width - results.count(True)
            connections = proxy.accepted
        gc.collect()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    print(
        f"cancel: {total} checks, {cancelled} cancelled, {answered} answered, each with its own answer;"
        f" connections {connections}, tasks left {len(left)}, errors that the event loop reported {len(loop_errors)}",
        flush=True,
    )
    assert connections <= 4  # noqa: PLR2004 - what a far server gets
    assert not left
    assert not loop_errors


async def cluster() -> None:  # noqa: PLR0915 - one story, told in order
    """Slots that move between nodes under load, then a master that is killed."""
    rule = RateLimitRule(max_tokens=50, refill_rate=600, scope="ip")
    keys = [f"rate_limit:ip:{{client-{number}}}:GET /" for number in range(300)]
    with ClusterSet(node_timeout_ms=1500) as nodes:
        stop = threading.Event()
        moves: Counter[str] = Counter()

        def move() -> None:
            masters = nodes.masters()
            slots = sorted({key_slot(key.encode()) for key in keys})
            while not stop.is_set():
                slot = random.choice(slots)
                source = next(m for m in masters if _owns(m, slot))
                target = random.choice([m for m in masters if m is not source])
                for step in nodes.move_slot(slot, source, target):
                    moves[step] += 1

        admitted: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        latencies: list[float] = []
        async with RedisStorage.from_url(nodes.url, deadline_ms=50) as storage:
            end = 0.0

            async def task(number: int) -> None:
                rng = random.Random(number)
                while time.monotonic() < end:
                    key = rng.choice(keys)
                    started = time.monotonic()
                    try:
                        verdict = await storage.take([request(key, rule)])
                        reasons["allowed" if verdict.allowed else "denied"] += 1
                        admitted[key] += verdict.allowed
                    except StorageError as error:
                        reasons[error.reason] += 1
                        await asyncio.sleep(
                            0
                        )  # an open breaker answers at once: the event loop must get to reconnecting
                    latencies.append(time.monotonic() - started)

            async def load(seconds: float) -> float:
                nonlocal end
                begun = time.monotonic()
                end = begun + seconds
                await asyncio.gather(*[task(number) for number in range(32)])
                return time.monotonic() - begun

            mover = threading.Thread(target=move)
            mover.start()
            took = await load(20.0)
            stop.set()
            await asyncio.to_thread(mover.join)
            bound = rule.max_tokens + rule.refill_rate / 60 * took
            worst = max(admitted.values())
            _cluster_line(
                "slots moving",
                reasons,
                latencies,
                f"{moves['done']} slots moved; most admitted of a key {worst}, bound {bound:.0f}",
            )
            assert worst <= bound
            assert set(reasons) <= {"allowed", "denied", "timeout"}, reasons
            reasons.clear()
            latencies.clear()
            killed = nodes.masters()[0]
            asyncio.get_running_loop().call_later(2.0, killed.kill)
            await load(12.0)
            before = Counter(reasons)
            reasons.clear()
            _cluster_line("a master killed", before, latencies, "")
            await load(2.0)
            print(f"cluster, after the failover: {dict(reasons)}", flush=True)
            assert set(reasons) <= {"allowed", "denied", "timeout"}


def _cluster_line(name: str, reasons: Counter[str], latencies: Sequence[float], rest: str) -> None:
    ordered = sorted(latencies)
    p50, p99 = (ordered[int(len(ordered) * q)] * 1000 for q in (0.5, 0.99))
    print(
        f"cluster, {name}: {dict(reasons)}; p50 {p50:.2f} p99 {p99:.2f} max {ordered[-1] * 1000:.1f} ms; {rest}",
        flush=True,
    )


def _owns(node: RedisServer, slot: int) -> bool:
    client = node.client()
    my_id = client.execute_command("CLUSTER", "MYID")
    ranges = client.execute_command("CLUSTER", "SLOTS")
    return any(low <= slot <= high and master[2] == my_id for low, high, master, *_ in ranges)


def main(arguments: Sequence[str]) -> None:
    """Run the named parts, or all."""
    if arguments[:1] == ["worker"]:
        _, url, key, name, start = arguments
        asyncio.run(worker(url, key, RULES[name], float(start)))
        return
    for name in arguments or ["processes", "leases", "cancel", "cluster"]:
        if name in {"processes", "leases"}:
            {"processes": processes, "leases": leases}[name]()
        else:
            asyncio.run({"cancel": cancel, "cluster": cluster}[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
