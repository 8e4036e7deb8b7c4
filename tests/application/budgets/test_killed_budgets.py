"""Four processes that are killed while they reserve, commit and hold: no budget is exceeded, and nothing stays stranded."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sluicegate import Success, TokenBucketAdapter
from support import budget_worker
from support.budget_worker import CAPACITY, CHAT, EXPORT, MAX_DEBT, PER_SECOND, RULES, SLOTS, TTL_S
from support.redis_servers import RedisServer, wait_until
from support.worker_storages import PATIENT_MS, storage_of

KILLS = 150 if os.environ.get("SLUICEGATE_LONG") else 3
WORKERS = 4


def _lines(folder: Path) -> list[list[str]]:
    """Return what the workers wrote, without a line that a kill has cut."""
    return [
        line.split() for path in folder.iterdir() for line in path.read_text().splitlines() if len(line.split()) > 1
    ]


def _most_at_once(folder: Path) -> int:
    """Return the greatest number of holds that lasted at the same time, as their holders saw it."""
    changes: list[tuple[float, int]] = []
    for path in folder.iterdir():
        since: float | None = None
        for line in path.read_text().splitlines():
            at, _, what = line.partition(" ")
            if what == "held":
                since = float(at)
            elif what == "released" and since is not None:
                changes += [(since, 1), (float(at), -1)]
                since = None
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("kind", ["redis", "shared memory"])
async def test_killed_processes_exceed_no_budget_and_strand_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What all were told they spent is within the bound; after the time they asked for, everything is there again."""
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        address = server.url
    else:
        pytest.importorskip("fcntl")
        address = str(tmp_path / "buckets")
    notes = tmp_path / "notes"
    notes.mkdir()
    command = [sys.executable, "-m", budget_worker.__name__, kind, address]
    numbers = iter(range(100_000))

    def start() -> tuple[subprocess.Popen[bytes], Path]:
        path = notes / f"worker{next(numbers)}"
        return subprocess.Popen([*command, str(path)], cwd=Path(budget_worker.__file__).parents[1]), path

    began = time.monotonic()
    workers = [start() for _ in range(WORKERS)]
    try:
        for _ in range(KILLS):
            victim = random.randrange(WORKERS)
            process, path = workers[victim]
            wait_until(lambda path=path: path.exists() and path.stat().st_size > 500, "a worker works")  # type: ignore[misc]
            await asyncio.sleep(random.uniform(0, 0.2))
            process.kill()
            process.wait()
            workers[victim] = start()
    finally:
        for process, _ in workers:
            process.kill()
            process.wait()
    took_s = time.monotonic() - began
    lines = _lines(notes)
    reserved = sum(int(line[2]) for line in lines if line[1] == "reserved")
    settled = [(int(line[2]), int(line[3])) for line in lines if line[1] == "settled"]
    charged = reserved - sum(cost for cost, _ in settled) + sum(charge for _, charge in settled)
    assert len(settled) >= 2 * KILLS
    assert charged <= CAPACITY + PER_SECOND * took_s + MAX_DEBT
    assert 1 <= _most_at_once(notes) <= SLOTS
    await asyncio.sleep(TTL_S + (CAPACITY + MAX_DEBT) / PER_SECOND + 0.1)
    limiter = TokenBucketAdapter(storage=storage_of(kind, address), rules=RULES, deadline_ms=PATIENT_MS)
    holds = [await limiter.acquire(endpoint=EXPORT, identifier="x") for _ in range(SLOTS + 1)]
    assert [hold.value.allowed for hold in holds if isinstance(hold, Success)] == [True] * SLOTS + [False]
    whole = await limiter.reserve(endpoint=CHAT, identifier="x", cost=CAPACITY)
    assert isinstance(whole, Success)
    assert whole.value.allowed
    await limiter.aclose()
