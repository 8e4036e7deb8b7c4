"""`sluicegate serve` as users run it: options, start-up, signals, reloads, and several workers."""

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sluicegate.presentation.cli.main import main
from support.rate_limit_service import OK, RateLimitClient
from support.redis_servers import RedisServer
from support.serving import Serving, eventually

RULES = '[endpoints]\n"GET /a" = "5/day"\n"GET /many" = "1000000/second"\n'
CONFIG = "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 1000000}}]"
TOKEN = "correct-horse-battery"
FREE = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--leave-seconds", "0.1")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return a rules file."""
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    return file


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Return a file with the admin token."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no rules: give --rules FILE or --ratelimit-config PATH"),
        (["--ratelimit-config", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["--grpc", "off", "--http", "off", "--rules", "RULES"], "nowhere to listen"),
        (["--http", "nonsense:x"], "--http='nonsense:x': expected host:port"),
        (["--http", "127.0.0.1:99999"], "expected host:port"),
        (["--workers", "0"], "--workers=0: expected 1 to 256"),
        (["--workers", "2", "--rules", "RULES"], "with memory:// each worker would have buckets of its own"),
        (["--headers", "many"], "--headers='many': expected one of draft-11"),
        (["--storage-errors", "panic"], "--storage-errors='panic': expected one of answer, error"),
        (["--identifier-header", "X-User"], "--identifier-header='X-User': expected SCOPE=HEADER"),
        (["--admin", "0", "--rules", "RULES"], "--admin needs --admin-token-file"),
        (["--admin-token-file", "/nowhere"], "--admin-token-file: /nowhere cannot be read"),
        (["--resp-password-file", "RULES"], "anybody may read"),
        (["--hot-keys", "warm"], "--hot-keys='warm': expected one of off, hashed, raw"),
        (["--idle-seconds", "0"], "--idle-seconds=0.0: expected 1 to 86400"),
        (["--trusted-proxy", "everywhere", "--rules", "RULES", *FREE], "everywhere"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], message: str, rules: Path, capsys: Any) -> None:
    """On one line, with exit status 2."""
    rules.chmod(0o644)
    assert main(["serve", *[str(rules) if option == "RULES" else option for option in options]]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told


def test_a_taken_port_is_named(rules: Path, tmp_path: Path, capsys: Any) -> None:
    """With the option that names it."""
    with Serving("--rules", str(rules), *FREE, log=tmp_path / "log") as serving:
        for option, protocol in (("--http", "http"), ("--grpc", "grpc")):
            other = {"--http": "--grpc", "--grpc": "--http"}[option]
            arguments = ["serve", "--rules", str(rules), option, serving.addresses[protocol], other, "off"]
            assert main(arguments) == 2
            assert f"{option}: cannot listen on {serving.addresses[protocol]}" in capsys.readouterr().err


def test_it_says_where_its_buckets_are_and_follows_its_files(rules: Path, tmp_path: Path) -> None:
    """A change of the rules file, and of the files of a directory, holds without a restart; a mistake changes nothing."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "edge.yaml").write_text(CONFIG)
    options = ("--rules", str(rules), "--ratelimit-config", str(config), *FREE)
    with Serving(*options, log=tmp_path / "log") as serving:
        assert "buckets in the memory of this process" in serving.line
        url = f"http://{serving.addresses['http']}"

        def limit() -> int:
            answer = httpx.post(f"{url}/v1/check", json={"endpoint": "GET /a", "identifier": "x"}).json()
            return int(answer["limit"])

        def knows(domain: str) -> bool:
            request = {"domain": domain, "descriptors": [{"entries": [{"key": "user", "value": "x"}]}]}
            return "currentLimit" in httpx.post(f"{url}/json", json=request).json()["statuses"][0]

        assert (limit(), knows("edge"), knows("other")) == (5, True, False)
        rules.write_text(RULES.replace("5/", "7/"))
        eventually(lambda: limit() == 7)
        (config / "other.yaml").write_text(CONFIG.replace("edge", "other"))
        eventually(lambda: knows("other"))
        (config / "other.yaml").write_text("domain: [")
        (config / "edge.yaml").write_text(CONFIG.replace("edge", "third"))
        eventually(lambda: "refused" in (tmp_path / "log").read_text())
        assert (knows("other"), knows("edge"), knows("third")) == (True, True, False)
        (config / "other.yaml").unlink()
        eventually(lambda: knows("third"))
        assert not knows("other")


class Load:
    """Clients that ask as fast as it goes until the service tells them to leave, or is gone.

    Over gRPC they watch its health, as load balancers do. Over HTTP they connect again after `Connection: close`.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self.answered = 0
        self.left = 0
        """How many clients have left of their own accord, or found the port closed before they sent anything."""

    async def grpc(self) -> None:
        """Ask over gRPC."""
        async with RateLimitClient(self._serving.addresses["grpc"]) as client:
            stub = health_pb2_grpc.HealthStub(client.channel)
            healthy = asyncio.Event()

            async def watch() -> None:
                async for status in stub.Watch(health_pb2.HealthCheckRequest()):
                    if status.status == health_pb2.HealthCheckResponse.SERVING:
                        healthy.set()
                    else:
                        healthy.clear()

            watching = asyncio.create_task(watch())
            await healthy.wait()
            while healthy.is_set():
                assert (await client.ask("edge", {"user": "x"}, timeout_s=20)).overall_code == OK
                self.answered += 1
            watching.cancel()
            self.left += 1

    async def http(self) -> None:
        """Ask over HTTP."""
        async with httpx.AsyncClient(base_url=f"http://{self._serving.addresses['http']}", timeout=20) as client:
            while True:
                try:
                    answer = await client.post("/v1/check", json={"endpoint": "GET /many", "identifier": "x"})
                except httpx.ConnectError:
                    self.left += 1
                    return
                assert answer.status_code == 200
                self.answered += 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_request_is_lost_when_it_ends_under_load(protocol: str, rules: Path, tmp_path: Path) -> None:
    """Each that was sent is answered: clients are told to go elsewhere before the port is closed."""
    config = tmp_path / "edge.yaml"
    config.write_text(CONFIG)

    async def run(serving: Serving) -> Load:
        load = Load(serving)
        clients = [asyncio.create_task(getattr(load, protocol)()) for _ in range(10)]
        await asyncio.sleep(1)
        serving.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*clients), 30)
        return load

    with Serving(
        "--rules", str(rules), "--ratelimit-config", str(config), *FREE, "--leave-seconds", "1", log=tmp_path / "log"
    ) as serving:
        load = asyncio.run(run(serving))
        assert serving.process.wait(30) == 0
    assert load.answered > 100
    assert load.left == 10


def test_it_reports_that_it_leaves(rules: Path, tmp_path: Path) -> None:
    """After SIGTERM it still answers for a while, is no longer ready, and asks clients to connect elsewhere."""
    with Serving("--rules", str(rules), *FREE, "--leave-seconds", "3", log=tmp_path / "log") as serving:
        url = f"http://{serving.addresses['http']}"
        assert httpx.get(f"{url}/readyz").status_code == 200
        serving.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        answer = httpx.post(f"{url}/v1/check", json={"endpoint": "GET /a", "identifier": "x"})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_workers_share_their_buckets_and_what_operators_change(
    rules: Path, token_file: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    """One limit for all; a switch thrown in one is thrown in all, and in one that is started again."""
    options = (
        "--rules",
        str(rules),
        *FREE,
        "--workers",
        "2",
        "--admin",
        "127.0.0.1:0",
        "--admin-token-file",
        str(token_file),
    )
    environ = {"SLUICEGATE_STORAGE_URL": redis_server.url, "SLUICEGATE_DEADLINE_MS": "5000"}
    with Serving(*options, log=tmp_path / "log", environ=environ) as serving:
        assert "2 workers, buckets in redis://" in serving.line
        url, admin = f"http://{serving.addresses['http']}", f"http://{serving.addresses['admin']}"
        body = {"endpoint": "GET /a", "identifier": "x"}

        def allowed(times: int) -> int:
            # A connection for each: the kernel gives them to either worker.
            return sum([httpx.post(f"{url}/v1/check", json=body).json()["allowed"] for _ in range(times)])

        assert allowed(20) == 5
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.post(f"{admin}/v1/switch-off", json={}, headers=headers).json()["done"]
        assert allowed(20) == 20
        children = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text().split()
        workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(workers) == 2
        os.kill(int(workers[1]), signal.SIGKILL)
        eventually(lambda: "it is started again" in (tmp_path / "log").read_text())

        def all_are_back() -> bool:
            now = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text().split()
            return workers[1] not in now and len(now) == len(children)

        eventually(all_are_back)
        time.sleep(3)  # a worker takes a moment to import what it needs
        assert allowed(20) == 20
        assert httpx.post(f"{admin}/v1/switch-on", json={}, headers=headers).json()["done"]
        assert allowed(20) == 0
        assert serving.stop() == 0
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists()


def test_workers_end_with_the_process_that_started_them(rules: Path, tmp_path: Path) -> None:
    """Even if that is killed."""
    options = ("--rules", str(rules), *FREE, "--workers", "2", "--separate-memory")
    with Serving(*options, log=tmp_path / "log") as serving:
        assert "2 workers, buckets in the memory of each" in serving.line
        url = f"http://{serving.addresses['http']}/healthz"
        assert httpx.get(url).status_code == 200
        serving.process.kill()

        def is_gone() -> bool:
            try:
                httpx.get(url)
            except httpx.TransportError:
                return True
            return False

        eventually(is_gone)


def test_prometheus_and_the_live_page_get_the_numbers_of_all_workers(
    rules: Path, token_file: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    """The sum of what they decided is what was asked, whichever worker a connection went to."""
    admin = ("--admin", "127.0.0.1:0", "--admin-token-file", str(token_file))
    options = ("--rules", str(rules), *FREE, "--workers", "2", "--metrics", "127.0.0.1:0", *admin)
    environ = {"SLUICEGATE_STORAGE_URL": redis_server.url, "SLUICEGATE_DEADLINE_MS": "5000"}
    with Serving(*options, log=tmp_path / "log", environ=environ) as serving:
        body = {"endpoint": "GET /a", "identifier": "x"}
        for _ in range(40):
            assert httpx.post(f"http://{serving.addresses['http']}/v1/check", json=body).status_code == 200
        text = httpx.get(f"http://{serving.addresses['metrics']}/metrics").text
        headers = {"authorization": f"Bearer {TOKEN}"}
        live = httpx.get(f"http://{serving.addresses['admin']}/v1/live", headers=headers).json()
    counted = re.findall(r'^sluicegate_requests_total\{.*result="(\w+)".*worker="(\d)"\} (\S+)$', text, re.MULTILINE)
    assert {worker for _, worker, _ in counted} == {"0", "1"}
    sums = {result: sum(float(n) for found, _, n in counted if found == result) for result in ("allowed", "denied")}
    assert sums == {"allowed": 5, "denied": 35}
    assert (live["traffic"]["allowed"], live["traffic"]["denied"], live["workers_missing"]) == (5, 35, 0)
    assert [one["worker"] for one in live["workers"]] == ["0", "1"]
    (asked,) = live["hot"]["asked"]["keys"]  # the same digits in both
    assert (asked["count"], asked["error"]) == (40, 0)


def test_denials_are_written_to_the_audit_log(rules: Path, tmp_path: Path) -> None:
    """All of them are there when the service has ended."""
    options = ("--rules", str(rules), *FREE, "--audit-log", str(tmp_path / "audit"))
    with Serving(*options, log=tmp_path / "log") as serving:
        body = {"endpoint": "GET /a", "identifier": "192.0.2.1"}
        for _ in range(12):
            httpx.post(f"http://{serving.addresses['http']}/v1/check", json=body)
        assert serving.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["denied"] * 7
    assert "192.0.2.1" not in (tmp_path / "audit").read_text()
