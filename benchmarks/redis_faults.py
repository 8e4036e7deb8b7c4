"""What a check costs its caller while Redis fails: `python benchmarks/redis_faults.py [scenario …]`.

Checks arrive at a fixed rate, whatever becomes of earlier ones; real servers are stopped, killed, filled, demoted. Each line
tells how long callers waited, who decided, and how soon the storage decided again. The event loop's own delay is measured beside
it: what the machine adds is not what the limiter adds.
"""

import asyncio
import contextlib
import gc
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sluicegate import RateLimitRule, RedisStorage, StorageError, TokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.testing import RecordingLogger
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisServer, SentinelSet

DEADLINE_MS = int(os.environ.get("DEADLINE_MS", "50"))
CHECKS_PER_S = 400
RULE = RateLimitRule.per_day(100_000_000)


class Watched:
    """A storage that notes who decided the check that ended last: itself, or the reason why it did not.

    It leaves out `take_nowait`, so that every check comes through `take`.

    Args:
        storage: The storage.
    """

    def __init__(self, storage: RedisStorage) -> None:
        self._storage = storage
        self.traits = storage.traits
        self.peek, self.refund, self.reset, self.aclose = storage.peek, storage.refund, storage.reset, storage.aclose
        self.outcome = ""

    def with_deadline(self, deadline_s: float) -> "Watched":
        """Return itself: the storage keeps the limiter's deadline already."""
        assert deadline_s == self.traits.deadline_s
        return self

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Take from the storage."""
        try:
            verdict = await self._storage.take(requests)
        except StorageError as error:
            self.outcome = error.reason
            raise
        self.outcome = "storage"
        return verdict


class Load:
    """Checks at a fixed rate, and what became of each."""

    def __init__(self, storage: RedisStorage) -> None:
        self._storage = Watched(storage)
        self._limiter = TokenBucketAdapter(
            storage=self._storage,  # type: ignore[arg-type]
            rules={"GET /": RULE},
            logger=RecordingLogger(),
            deadline_ms=DEADLINE_MS,
        )
        self.checks: list[tuple[float, float, str]] = []
        self.lags: list[float] = []
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def check(self) -> None:
        """Check once."""
        started = time.perf_counter()
        try:
            await self._limiter.is_allowed(endpoint="GET /", identifier="192.0.2.1")
        except Exception as error:  # noqa: BLE001 - a check must raise none, of whatever kind
            self.errors.append(error)
        # The outcome is this check's: between the storage's answer and this line there is no await that could switch tasks.
        self.checks.append((started, time.perf_counter() - started, self._storage.outcome))

    async def run(self, seconds: float) -> None:
        """Send checks for a number of seconds."""
        start = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - start) < seconds:
            while sent < now * CHECKS_PER_S:
                task = asyncio.ensure_future(self.check())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                sent += 1
            before = time.perf_counter()
            await asyncio.sleep(0.002)
            self.lags.append(time.perf_counter() - before - 0.002)

    async def finish(self) -> None:
        """Wait for the last ones."""
        await asyncio.gather(*self._tasks)


def report(name: str, load: Load, fault_s: float, heal_s: float, leaks: str) -> None:
    """Print a scenario's line."""
    lags = sorted(load.lags)
    during = sorted(latency for started, latency, _ in load.checks if fault_s <= started < heal_s)
    opened = sorted(
        latency for started, latency, reason in load.checks if fault_s <= started < heal_s and reason == "breaker_open"
    )
    reasons = Counter(reason for started, _, reason in load.checks if fault_s <= started < heal_s)
    back = [
        started + latency - heal_s
        for started, latency, reason in load.checks
        if started >= heal_s and reason == "storage"
    ]
    late = Counter(reason for started, _, reason in load.checks if started >= heal_s + 2)
    print(
        f"{name:34} p50 {quantile(during, 0.5):6.2f}  p99 {quantile(during, 0.99):6.2f}  max {quantile(during, 1):6.2f} ms"
        f" | open p50 {quantile(opened, 0.5):5.3f} p99 {quantile(opened, 0.99):5.2f}"
        f" | loop p99 {quantile(lags, 0.99):4.1f} max {quantile(lags, 1):5.1f}"
        f" | back after {min(back, default=float('nan')):5.3f} s | {dict(reasons)} | 2 s later {dict(late)}"
        f" | errors {len(load.errors)} | {leaks}",
        flush=True,
    )


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return a quantile in milliseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 if ordered else float("nan")


def sockets() -> int:
    """Count this process's open sockets."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


async def measure(  # noqa: PLR0913 - a scenario
    name: str,
    url: str,
    fault: Callable[[], Awaitable[object] | object],
    heal: Callable[[], Awaitable[object] | object],
    *,
    before_s: float = 1.0,
    during_s: float = 3.0,
    proxy: FaultProxy | None = None,
) -> None:
    """Run the load through a fault and its end."""
    sockets_before = sockets()
    async with RedisStorage.from_url(url, deadline_ms=DEADLINE_MS) as storage:
        load = Load(storage)
        if before_s:
            await load.run(before_s)
        fault_s = time.perf_counter()
        await asyncio.gather(load.run(during_s), _call(fault))
        heal_s = time.perf_counter()
        await asyncio.gather(load.run(3.0), _call(heal))
        await load.finish()
        open_now = 0 if proxy is None else proxy.connections
    await asyncio.sleep(0.3)
    left = [task for task in asyncio.all_tasks() if "sluicegate" in str(task.get_coro())]
    leaks = f"connections {open_now}, tasks left {len(left)}"
    if proxy is None:
        leaks = f"sockets left {sockets() - sockets_before}, tasks left {len(left)}"
    report(name, load, fault_s, heal_s, leaks)


async def _call(step: Callable[[], Awaitable[object] | object]) -> None:
    await asyncio.sleep(0.05)
    returned = step()
    if isinstance(returned, Awaitable):
        await returned


async def control() -> None:
    """No fault at all."""
    with RedisServer() as server:
        await measure("control (no fault)", server.url, lambda: None, lambda: None)


async def stopped() -> None:
    """The server's process is stopped under load."""
    with RedisServer() as server:
        await measure("SIGSTOP under load", server.url, server.pause, server.resume)


async def stopped_first() -> None:
    """The server's process is stopped before the first check."""
    with RedisServer() as server:
        server.pause()
        await measure("SIGSTOP before the first check", server.url, lambda: None, server.resume, before_s=0)


async def killed() -> None:
    """The server is killed and comes back empty."""
    with RedisServer() as server:
        await measure("SIGKILL, restart empty", server.url, server.kill, lambda: server.start(ready=False))


async def flushed() -> None:
    """The script cache is flushed every 50 ms."""
    with RedisServer() as server:
        client = server.client()
        client.ping()  # opens this client's socket before sockets are counted
        stop = asyncio.Event()

        async def flush() -> None:
            while not stop.is_set():
                client.script_flush()
                await asyncio.sleep(0.05)

        task: list[asyncio.Task[None]] = []
        await measure(
            "SCRIPT FLUSH every 50 ms", server.url, lambda: task.append(asyncio.ensure_future(flush())), stop.set
        )
        await task[0]


async def full() -> None:
    """The server's memory is full and nothing may be evicted."""
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        client = server.client()
        client.ping()  # opens this client's socket before sockets are counted
        await measure(
            "maxmemory, noeviction",
            server.url,
            lambda: client.config_set("maxmemory", "1"),
            lambda: client.config_set("maxmemory", "0"),
        )


async def password() -> None:
    """The password is wrong from the first check on."""
    with RedisServer("--requirepass", "right") as server:
        client = server.client(password="right")
        client.ping()
        await measure(
            "wrong password",
            f"redis://:wrong@127.0.0.1:{server.port}",
            lambda: None,
            lambda: client.config_set("requirepass", "wrong"),
            before_s=0,
        )


async def readonly() -> None:
    """The server becomes a replica and then a master again."""
    with RedisServer() as other, RedisServer() as server:
        client = server.client()
        client.ping()  # opens this client's socket before sockets are counted
        await measure(
            "READONLY (demoted)",
            server.url,
            lambda: client.execute_command("REPLICAOF", "127.0.0.1", other.port),
            lambda: client.execute_command("REPLICAOF", "NO", "ONE"),
        )


async def sentinel_failover() -> None:
    """The sentinels promote another master."""
    with SentinelSet() as servers:
        await measure(
            "Sentinel: planned failover", servers.url, lambda: asyncio.to_thread(servers.fail_over), lambda: None
        )


async def sentinel_kill() -> None:
    """The master is killed."""
    with SentinelSet(down_after_ms=300) as servers:
        master = servers.master()
        await measure(
            "Sentinel: master killed",
            servers.url,
            master.kill,
            lambda: None,
            during_s=5.0,
        )


async def busy(busy_ms: int, pause_ms: int) -> None:
    """Two tasks compute for so long at a time on the event loop of the checks; the server is silent at first, or not at all."""
    with RedisServer() as server:
        client = server.client()
        client.ping()  # opens this client's socket before sockets are counted
        stop = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def compute() -> None:
            while not stop.is_set():
                until = time.perf_counter() + busy_ms / 1000
                while time.perf_counter() < until:
                    pass
                await asyncio.sleep(random.uniform(0, busy_ms / 1000))

        def begin() -> None:
            if pause_ms:
                client.execute_command("CLIENT", "PAUSE", pause_ms)
            tasks.extend(asyncio.ensure_future(compute()) for _ in range(2))

        name = f"busy 2 x {busy_ms} ms" + (f", server paused {pause_ms} ms" if pause_ms else "")
        await measure(name, server.url, begin, stop.set)
        await asyncio.gather(*tasks)


async def proxied(name: str, **faults: object) -> None:
    """A fault of the network."""
    with RedisServer() as server:
        async with FaultProxy(*server.address) as proxy:

            def begin() -> None:
                for fault, value in faults.items():
                    if fault == "reset":
                        proxy.reset()
                    else:
                        setattr(proxy.faults, fault, value)

            def end() -> None:
                proxy.faults = type(proxy.faults)()

            await measure(name, proxy.url, begin, end, proxy=proxy)


SCENARIOS: dict[str, Callable[[], Awaitable[None]]] = {
    "control": control,
    "sigstop": stopped,
    "sigstop-first": stopped_first,
    "sigkill": killed,
    "script-flush": flushed,
    "noeviction": full,
    "wrong-password": password,
    "readonly": readonly,
    "sentinel-failover": sentinel_failover,
    "sentinel-kill": sentinel_kill,
    **{f"busy-{ms}": partial(busy, ms, 0) for ms in (5, 30, 60, 200)},
    **{f"busy-{ms}-paused": partial(busy, ms, 300) for ms in (5, 30, 60, 200)},
    "blackhole": lambda: proxied("blackhole", blackhole=True),
    "half-open": lambda: proxied("half-open", half_open=True),
    "latency-200": lambda: proxied("latency 200 ms", latency_s=0.2),
    "latency-20": lambda: proxied("latency 10 ms each way", latency_s=0.01),
    "latency-60": lambda: proxied("latency 30 ms each way", latency_s=0.03),
    "slicer": lambda: proxied("replies byte by byte", slice_bytes=1),
    "garbage": lambda: proxied("garbage", garbage=b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "wrong-reply": lambda: proxied("wrong reply", garbage=b"+OK\r\n"),
    "huge": lambda: proxied("huge bulk header", garbage=b"$2000000000\r\nxxxx"),
    "reset": lambda: proxied("reset and refuse", reset=True, refuse=True),
}


async def main(names: Sequence[str]) -> None:
    """Run scenarios one after another."""
    print(f"deadline {DEADLINE_MS} ms, {CHECKS_PER_S} checks a second, Python {sys.version.split()[0]}")
    for name in names or SCENARIOS:
        await SCENARIOS[name]()
        gc.collect()


if __name__ == "__main__":
    warnings.simplefilter("error", ResourceWarning)
    asyncio.run(main(sys.argv[1:]))
