"""gunicorn's workers share one limit: under load, through reloads and restarts, counted to the request."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sluicegate.presentation.cli.main import main
from support.examples import APPS
from support.redis_servers import free_port

pytest.importorskip("gunicorn")
LIMIT = 2000
WORKERS = 4
KEY = "rate_limit:global:GET /report"


@contextmanager
def gunicorn(path: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the example with four workers of four threads, and yield the address of its report and the master process."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--workers",
        str(WORKERS),
        "--threads",
        "4",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    environ = {
        **os.environ,
        "SLUICEGATE_STORAGE_URL": f"shm://{path}?size=1MiB",
        "SLUICEGATE_DEADLINE_MS": "20000",
        "REPORTS_PER_DAY": str(LIMIT),
        "PYTHONPATH": os.pathsep.join([str(APPS), *filter(None, sys.path)]),
    }
    with log.open("ab") as output:
        server = subprocess.Popen([*command, "shared_workers:app"], env=environ, stdout=output, stderr=output)
    try:
        wait_for_workers(log, server, WORKERS)
        yield f"http://127.0.0.1:{port}/report", server
    finally:
        server.terminate()
        server.wait(30)


def wait_for_workers(log: Path, server: subprocess.Popen[bytes], count: int) -> None:
    """Wait until so many workers have been started in all."""
    end = time.monotonic() + 60
    while log.read_text().count("Booting worker") < count:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def statuses(url: str, requests: int) -> Counter[int]:
    """Return how many requests of sixteen concurrent clients got which status."""

    def status(_: int) -> int:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own server
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:  # an old worker took the connection and ended
            return 0

    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(status, range(requests)))


def load(url: str) -> int:
    """Send requests until the limit is exhausted, and return how many passed; with wrk if it is installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return statuses(url, LIMIT + 500)[200]
    run = subprocess.run([wrk, "-t2", "-c16", "-d6s", url], capture_output=True, text=True, check=True)
    sent = re.search(r"(\d+) requests in", run.stdout)
    denied = re.search(r"Non-2xx or 3xx responses: (\d+)", run.stdout)
    assert sent is not None, run.stdout
    assert denied is not None, run.stdout
    assert "Socket errors" not in run.stdout, run.stdout
    return int(sent.group(1)) - int(denied.group(1))


@pytest.mark.timeout(240)
def test_four_workers_admit_exactly_the_limit_through_a_reload_and_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """400 requests, then new workers, then a new server, then all that wrk can send: 2,000 pass, not one more or less."""
    path, log = tmp_path / "buckets", tmp_path / "log"
    with gunicorn(path, log) as (url, server):
        assert statuses(url, 400) == {200: 400}
        server.send_signal(signal.SIGHUP)
        wait_for_workers(log, server, 2 * WORKERS)
        assert statuses(url, 400) == {200: 400}
    log.write_text("")
    with gunicorn(path, log) as (url, _):
        assert load(url) == LIMIT - 800
        monkeypatch.setenv("SLUICEGATE_STORAGE_URL", f"shm://{path}")
        assert main(["storage", "info"]) == 0
        assert "buckets   1, of which 1 are not full" in capsys.readouterr().out
        assert set(statuses(url, 50)) == {429}
    assert "count for themselves" not in log.read_text()


@pytest.mark.timeout(240)
def test_without_sharing_each_worker_says_that_it_counts_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint names the number of workers, and what to do."""
    log = tmp_path / "log"
    original = subprocess.Popen

    def with_memory(*arguments: object, env: dict[str, str], **options: object) -> "subprocess.Popen[bytes]":
        return original(*arguments, env={**env, "SLUICEGATE_STORAGE_URL": "memory://"}, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", with_memory)
    with gunicorn(tmp_path / "buckets", log) as (url, _):
        statuses(url, 1)
        end = time.monotonic() + 20
        while "4 workers count for themselves" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
    assert "shm://NAME" in log.read_text()


@pytest.mark.timeout(240)
def test_a_reload_under_load_admits_not_one_more(tmp_path: Path) -> None:
    """Workers come and go while sixteen clients send: what passed is what was taken from the bucket."""
    path, log = tmp_path / "buckets", tmp_path / "log"
    with gunicorn(path, log) as (url, server):
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(statuses, url, 1000)
            server.send_signal(signal.SIGHUP)
            wait_for_workers(log, server, 2 * WORKERS)
            during = sent.result()
        after = statuses(url, 1100)
    assert during[0] < 20
    assert LIMIT - during[0] <= during[200] + after[200] <= LIMIT
    assert during[429] == after[0] == 0
    assert after[429] >= 100
