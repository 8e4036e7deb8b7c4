"""The storage on SQLite keeps what the port promises, also between processes and when the file is gone."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sluicegate import RateLimitRule, StorageProtocol, Success, TokenBucketAdapter
from sluicegate.testing import FakeClock, RecordingLogger, StorageContract
from support.bucket_requests import bucket_request
from support.examples import APPS, load_example

SQLiteStorage = load_example("custom_storage.py").SQLiteStorage


class TestSQLiteStorage(StorageContract):
    """The conformance suite."""

    exact_clock = True

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        """Put the file where the test's files are."""
        self._path = tmp_path / "limits.db"

    async def make_storage(self) -> StorageProtocol:
        """Return a storage on a clock of its own."""
        self._clock = FakeClock()
        storage: StorageProtocol = SQLiteStorage(self._path, clock=self._clock)
        return storage

    async def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._clock.advance(seconds)


def test_processes_share_a_bucket(tmp_path: Path) -> None:
    """Run twice, as its first lines say: the second run finds the bucket empty."""
    command = [sys.executable, APPS / "custom_storage.py", tmp_path / "limits.db"]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs == ["True 2\nTrue 1\nTrue 0\nFalse 0\n", "False 0\n" * 4]


async def test_rows_of_full_buckets_go(tmp_path: Path) -> None:
    """Clients that never come back leave nothing that lasts."""
    clock = FakeClock()
    path = tmp_path / "limits.db"
    storage = SQLiteStorage(path, clock=clock)
    rule = RateLimitRule.per_second(1)
    for _ in range(300):
        await storage.take([bucket_request(rule)])
        clock.advance(0.5)
    await storage.aclose()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM buckets").fetchone()[0] <= 3


async def test_a_file_that_cannot_be_used_is_the_failure_policys(tmp_path: Path) -> None:
    """An error of SQLite is a storage error: the check passes, and is counted."""
    path = tmp_path / "limits.db"
    storage = SQLiteStorage(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE buckets")
    limiter = TokenBucketAdapter(
        storage=storage, rules={"a": RateLimitRule.per_day(1)}, logger=RecordingLogger(), deadline_ms=60_000
    )
    result = await limiter.is_allowed(endpoint="a", identifier="x")
    assert isinstance(result, Success)
    assert result.value.allowed
    assert limiter.failures == {"server_error": 1}
    await limiter.aclose()
