"""The servers in `examples/servers` start, serve a storage, and end."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluicegate import RateLimitRule, RedisStorage, StorageError
from support.bucket_requests import bucket_request

EXAMPLES = Path(__file__).parents[2] / "examples" / "servers"

OFFSETS = {"redis": [0], "sentinel": [0, 1, 2, 20_000, 20_001, 20_002], "cluster": [*range(6), *range(10_000, 10_006)]}


@contextlib.contextmanager
def served(name: str) -> Iterator[str]:
    """Run an example and yield the URL that it prints."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip("no redis-server or no redis-cli in PATH")
    base = next(base for base in range(12_000, 30_000, 7) if all(_free(base + offset) for offset in OFFSETS[name]))
    process = subprocess.Popen(
        [EXAMPLES / name / "serve"], stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin", "PORT": str(base)}
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()
    assert _free(base)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("name", ["redis", "sentinel", "cluster"])
async def test_an_example_serves_a_storage(name: str) -> None:
    """The printed URL is all that a storage needs."""
    with served(name) as url:
        async with RedisStorage.from_url(url, deadline_ms=5_000) as storage:
            one = bucket_request(RateLimitRule.per_day(5))
            end = time.monotonic() + 30
            while True:
                try:
                    assert (await storage.take([one])).allowed
                    break
                except StorageError:  # it has printed its URL, but its nodes may still be finding each other
                    assert time.monotonic() < end
                    await asyncio.sleep(0.05)
            assert sum([(await storage.take([one])).allowed for _ in range(9)]) == 4
