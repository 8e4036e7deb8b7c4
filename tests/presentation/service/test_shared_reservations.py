"""Reservations and calls in flight of a service with several workers, which share Redis or a file of the host."""

import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.redis_servers import RedisServer
from support.serving import Serving, eventually

RULES = """
[policies]
tokens = "100/day"
brief = { rate = "100/day", on_expiry = "release" }
calls = { in_flight = 1, hold_seconds = 2, scope = "user" }
long = { in_flight = 1, scope = "user" }

[endpoints]
"POST /chat" = "tokens"
"POST /brief" = "brief"
"POST /run" = "calls"
"POST /long" = "long"
"""


class Connection:
    """A connection to one of the workers.

    Args:
        serving: The service.
    """

    def __init__(self, serving: Serving) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", serving.port("http"), timeout=30)
        self.ask("check", endpoint="none", identifier="x")
        self.worker = self._find(serving.process.pid)
        """The process at its other end."""

    def ask(self, verb: str, **body: Any) -> Any:
        """Post JSON, and return the answer."""
        self._connection.request("POST", f"/v1/{verb}", json.dumps(body))
        return json.loads(self._connection.getresponse().read())

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _find(self, supervisor: int) -> int:
        own = self._connection.sock.getsockname()[1]
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inode = next(row[9] for row in rows if row[2].endswith(f":{own:04X}") and row[9] != "0")
        for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
            for file in Path(f"/proc/{pid}/fd").iterdir():
                if str(file.readlink()) == f"socket:[{inode}]":
                    return int(pid)
        raise AssertionError("no worker has the connection")


@pytest.fixture(params=["redis", "shm"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    """Run a service with two workers."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    else:
        url = f"shm://{tmp_path / 'buckets'}?size=1MiB"
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    options = (
        "--rules",
        str(rules),
        "--grpc",
        "off",
        "--http",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--leave-seconds",
        "0.1",
    )
    environ = {"SLUICEGATE_STORAGE_URL": url, "SLUICEGATE_DEADLINE_MS": "5000"}
    with Serving(*options, log=tmp_path / "log", environ=environ) as running:
        assert f"2 workers, buckets in {request.param}" in running.line
        yield running


@pytest.fixture
def workers(serving: Serving) -> Iterator[tuple[Connection, Connection]]:
    """Return a connection to each worker: the kernel chooses."""
    made = [Connection(serving)]
    while made[-1].worker == made[0].worker:
        made.append(Connection(serving))
    yield made[0], made[-1]
    for one in made:
        one.close()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks for the worker in /proc")
def test_what_one_worker_reserves_any_other_settles(workers: tuple[Connection, Connection]) -> None:
    """It counts for all, it outlives a worker that is killed, and what nobody settles ends by itself."""
    first, other = workers
    ann, team = {"endpoint": "POST /chat", "identifier": "ann"}, {"endpoint": "POST /chat", "identifier": "team"}

    reserved = first.ask("reserve", checks=[ann | {"cost": 60}, team | {"cost": 90}], ttl_seconds=600)
    assert reserved["allowed"]
    assert not other.ask("reserve", checks=[ann | {"cost": 20}, team | {"cost": 20}], ttl_seconds=600)["allowed"]
    assert other.ask("check", **ann, cost=40)["allowed"]  # the denial has left nothing reserved
    settled = other.ask("commit", id=reserved["id"], cost=[10, 80])
    assert [(one["applied"], one["returned"]) for one in settled["checks"]] == [(True, 50), (True, 10)]
    assert [one["applied"] for one in first.ask("cancel", id=reserved["id"])["checks"]] == [False, False]
    assert first.ask("check", **ann, cost=50)["remaining"] == 0

    brief = {"endpoint": "POST /brief", "identifier": "x"}
    lost = first.ask("reserve", **brief, cost=100, ttl_seconds=0.2)
    kept = first.ask("reserve", endpoint="POST /brief", identifier="y", cost=70, ttl_seconds=600)
    call = first.ask("acquire", endpoint="POST /long", identifier="ann")
    assert [one["allowed"] for one in (lost, kept, call)] == [True] * 3
    assert first.ask("acquire", endpoint="POST /run", identifier="ann")["allowed"]
    assert not other.ask("acquire", endpoint="POST /long", identifier="ann")["allowed"]
    os.kill(first.worker, signal.SIGKILL)

    assert other.ask("release", id=call["id"])["applied"]
    assert other.ask("acquire", endpoint="POST /long", identifier="ann")["allowed"]
    assert other.ask("commit", id=kept["id"], cost=20)["returned"] == 50
    assert other.ask("check", endpoint="POST /brief", identifier="y", cost=80)["allowed"]
    eventually(lambda: other.ask("check", **brief, cost=100)["allowed"])
    eventually(lambda: other.ask("acquire", endpoint="POST /run", identifier="ann")["allowed"])
