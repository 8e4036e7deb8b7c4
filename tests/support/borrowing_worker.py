"""A process that checks one hot bucket as fast as it goes, and may be killed at any time: what it was allowed is in a file.

`python borrowing_worker.py URL RULE TALLY SLOT START SECONDS`: the file has a slot for each worker, with a count for each bin of
time since START (an instant of the monotonic clock), and behind them the longest that a check took, in microseconds.
"""

import asyncio
import contextlib
import json
import mmap
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sluicegate import RateLimitRule, RedisStorage, Success, TokenBucketAdapter

BIN_S = 0.01
_ENDPOINT = "GET /hot"
_TASKS = 32
_BYTES = 8


@dataclass(frozen=True, slots=True)
class Hot:
    """A rule for a bucket that all workers ask for.

    Args:
        max_tokens: Its capacity.
        per_second: Its rate.
        lease: Its lease.
    """

    max_tokens: int
    per_second: int
    lease: bool | int = True

    @property
    def rule(self) -> RateLimitRule:
        """The rule."""
        return RateLimitRule(self.max_tokens, self.per_second * 60, "global", lease=self.lease)


class Tally:
    """Counts by bin of time, in a file that processes share.

    Args:
        path: The file.
        slots: How many workers it has room for.
        seconds: How long they run at most.
    """

    def __init__(self, path: Path, slots: int, seconds: float) -> None:
        self._bins = int(seconds / BIN_S) + 200
        size = slots * (self._bins + 1) * _BYTES
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")

    def add(self, slot: int, elapsed_s: float) -> None:
        """Count one."""
        self._numbers[slot * (self._bins + 1) + min(self._bins - 1, int(elapsed_s / BIN_S))] += 1

    def took(self, slot: int, took_s: float) -> None:
        """Note how long a check took."""
        at = slot * (self._bins + 1) + self._bins
        self._numbers[at] = max(self._numbers[at], int(took_s * 1e6))

    @property
    def by_bin(self) -> list[int]:
        """The counts of all slots together."""
        width = self._bins + 1
        return [sum(self._numbers[at::width]) for at in range(self._bins)]

    @property
    def longest_s(self) -> float:
        """The longest that a check took."""
        return max(self._numbers[self._bins :: self._bins + 1]) / 1e6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Args:
        by_bin: What was admitted, by bin of time.
        longest_s: The longest that a check took.
        kills: How many workers were killed.
    """

    by_bin: list[int]
    longest_s: float
    kills: int

    @property
    def lasted_s(self) -> float:
        """When the last was admitted."""
        return BIN_S * max((at + 1 for at, count in enumerate(self.by_bin) if count), default=0)

    def most_above(self, hot: Hot) -> float:
        """Return by how many tokens the worst window exceeds what the rule allows; negative: none does.

        A check is counted when its answer is at hand, at most `longest_s` after it was paid, so a window may have what was
        paid so much earlier.
        """
        per_bin = hot.per_second * BIN_S
        worst = running = 0.0
        for count in self.by_bin:
            running = max(0.0, running - per_bin) + count
            worst = max(worst, running)
        return worst - hot.max_tokens - per_bin - hot.per_second * self.longest_s

    def most_above_from_start(self, hot: Hot) -> float:
        """Return the same for windows that begin with the run: these need no allowance, late counts make them smaller."""
        total, worst = 0, float("-inf")
        for at, count in enumerate(self.by_bin):
            total += count
            worst = max(worst, total - hot.max_tokens - hot.per_second * BIN_S * (at + 1))
        return worst


def run(  # noqa: PLR0913 - a run's conditions
    url: str, hot: Hot, path: Path, *, workers: int, seconds: float, kill_every_s: float
) -> Outcome:
    """Let workers run, kill one of them at random now and then, and start another in its place.

    Args:
        url: The storage.
        hot: The rule.
        path: Where the tally is to be.
        workers: How many run at a time.
        seconds: How long.
        kill_every_s: The mean time between kills.
    """
    slots = workers + int(4 * seconds / kill_every_s) + 10
    tally = Tally(path, slots, seconds)
    rng = random.Random(int(seconds * 1000))
    start = time.monotonic() + 1.0
    used = iter(range(slots))

    def spawn() -> "subprocess.Popen[bytes]":
        arguments = [url, json.dumps(asdict(hot)), str(path), str(next(used)), str(start), str(seconds), str(slots)]
        return subprocess.Popen([sys.executable, __file__, *arguments])

    running = [spawn() for _ in range(workers)]
    kills = 0
    with _ending(running):
        while (now := time.monotonic()) < start + seconds:
            time.sleep(min(rng.expovariate(1 / kill_every_s), start + seconds - now))
            if time.monotonic() < start + seconds - 0.5 and time.monotonic() > start:
                victim = rng.randrange(workers)
                running[victim].kill()
                running[victim].wait()
                kills += 1
                running[victim] = spawn()
    return Outcome(tally.by_bin, tally.longest_s, kills)


@contextlib.contextmanager
def _ending(running: "list[subprocess.Popen[bytes]]") -> Iterator[None]:
    try:
        yield
        for process in running:
            if process.wait(timeout=30):
                raise AssertionError(f"a worker ended with {process.returncode}")
    finally:
        for process in running:
            process.kill()
            process.wait()


async def _work(url: str, hot: Hot, tally: Tally, slot: int, times: tuple[float, float]) -> None:
    start, seconds = times
    storage = RedisStorage.from_url(url, deadline_ms=5_000)
    limiter = TokenBucketAdapter(storage=storage, rules={_ENDPOINT: hot.rule}, deadline_ms=5_000)
    await limiter.get_remaining(endpoint=_ENDPOINT, identifier="anybody")
    await asyncio.sleep(max(0.0, start - time.monotonic()))

    async def ask() -> None:
        while (asked := time.monotonic()) < start + seconds:
            answer = await limiter.is_allowed(endpoint=_ENDPOINT, identifier="anybody")
            answered = time.monotonic()
            if isinstance(answer, Success) and answer.value.allowed:
                tally.add(slot, answered - start)
            tally.took(slot, answered - asked)
            await asyncio.sleep(0)

    await asyncio.gather(*[ask() for _ in range(_TASKS)])
    if limiter.failures:
        raise AssertionError(f"failures: {limiter.failures}")
    await limiter.aclose()


def main() -> None:
    """Be a worker."""
    url, rule, path, slot, start, seconds, slots = sys.argv[1:]
    tally = Tally(Path(path), int(slots), float(seconds))
    asyncio.run(_work(url, Hot(**json.loads(rule)), tally, int(slot), (float(start), float(seconds))))


if __name__ == "__main__":
    main()
