"""The demonstration, run for real."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from sluicegate.presentation.cli.demo.clients import CLIENTS, Client, Response, Step, run_client
from sluicegate.presentation.cli.demo.site import DemoSite

COMMAND = Path(sys.executable).with_name("sluicegate")


def test_the_demonstration_allows_the_good_and_denies_the_bad() -> None:
    """It ends by itself with status 0; the polite client is never denied, each of the others is; one 429 is shown in full."""
    done = subprocess.run([COMMAND, "demo"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    counts = {
        name: (int(allowed), int(denied))
        for name, allowed, denied in re.findall(r"^ (\w+) +127\.0\.0\.\d .*?(\d+) +(\d+) *$", done.stdout, re.MULTILINE)
    }
    assert counts.keys() == {"reader", "burst", "guesser", "scraper"}
    assert counts.pop("reader") == (12, 0)
    for name, (allowed, denied) in counts.items():
        assert allowed > 0, name
        assert denied > 0, name
    assert counts["guesser"][0] <= 7  # 5 at once, and at 5 a minute no more than 2 in the 25 seconds that it may take
    assert sum(counts["guesser"]) == 24
    headers = done.stdout.partition("HTTP/1.1 429 Too Many Requests")[2].lower()
    retry_after = re.search(r"^ *retry-after: (\d+)$", headers, re.MULTILINE)
    assert retry_after
    assert 1 <= int(retry_after[1]) <= 12


def test_the_storage_of_the_environment_is_left_alone() -> None:
    """Whatever the environment says, the demonstration uses memory and rules of its own, and control-C ends it at once."""
    environ = {"SLUICEGATE_STORAGE_URL": "redis://127.0.0.1:1", "SLUICEGATE_RULES": "/nowhere"}
    with subprocess.Popen(
        [COMMAND, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        # A shell's background job, as a test run may be, is started with control-C ignored; this process has no other thread now.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - see above
    ) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if "the first 429" in line:
                break
        else:
            raise AssertionError(process.stderr.read())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""


@pytest.mark.parametrize("forwarded", [False, True])
def test_clients_are_told_apart_where_loopback_has_one_address_only(*, forwarded: bool) -> None:
    """Where connections cannot come from 127.0.0.4, the site takes that address from a header."""
    answers: list[Response] = []
    guesses = tuple(Step(0, "POST", "/login", "password=1") for _ in range(6))
    with DemoSite(forwarded=forwarded) as site:
        for address in ("127.0.0.4", "127.0.0.6"):
            client = Client(address, address, "guesses", guesses)
            run_client(client, site.port, forwarded=forwarded, stop=Event(), on_response=answers.append)
    assert [answer.status for answer in answers] == [*[401] * 5, 429, *[401] * 5, 429]
    assert 1 <= int(answers[5].retry_after) <= 12


def test_a_client_without_an_answer_says_so() -> None:
    """It leaves, and the demonstration will not end with status 0."""
    answers: list[Response] = []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run_client(CLIENTS[0], port, forwarded=False, stop=Event(), on_response=answers.append)
    assert [(answer.client, answer.status) for answer in answers] == [("reader", 0)]
    assert "refused" in answers[0].reason
