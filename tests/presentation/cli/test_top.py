"""`sluicegate top`: what the live page shows, in a terminal, in a file and as JSON; and who does not answer or let in."""

import asyncio
import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from sluicegate.application.live.live_figures import LiveFigures
from sluicegate.application.live.picture import picture
from sluicegate.application.rules.operator_changes import SwitchState
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.main import main
from sluicegate.presentation.cli.top_command import watch
from sluicegate.presentation.cli.top_screen import draw
from support.live_figures import STARTED, TOKEN, LiveWorld, worker_figures

RULES = '[policies]\nlogin = "2/minute"\n[endpoints]\n"POST /login" = "login"\n"GET /a" = "9/minute"\n'
ALLOWED = ("GET /a", "p", "allowed", "quota")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Return a file with the admin token."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    return file


async def run(world: LiveWorld, token_file: Path, *options: str) -> int:
    """Run the command against the service of a world."""
    async with world.client():
        address = world.service.addresses["admin"]
        return await asyncio.to_thread(main, ["top", "--server", address, "--token-file", str(token_file), *options])


async def test_it_shows_the_figures_once(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no terminal gets all rows, of a width that fits."""
    world = LiveWorld(RULES)
    await world.ask("POST /login", "ann\x1b[2J", times=5)
    world.limiter.rules.switch_off("login", reason="incident 7")
    assert await run(world, token_file) == 0
    told = capsys.readouterr().out
    assert "in all 5 checks, 60.0% denied" in told
    assert "MemoryStorage answers" in told
    assert "SWITCHED OFF: login incident 7" in told
    assert "\x1b" not in told
    words = [line.split() for line in told.splitlines()]
    assert ["POST", "/login", "login", "(switched", "off)", "0.0", "0.0", "2", "3", "60.0%"] in words
    assert ["POST", "/login", "ann\\x1b[2J", "5"] in words


async def test_it_prints_json(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the service answered, whole."""
    world = LiveWorld(RULES)
    await world.ask("POST /login", times=3)
    assert await run(world, token_file, "--once", "--json") == 0
    figures = msgspec.convert(json.loads(capsys.readouterr().out), LiveFigures)
    assert (figures.traffic.allowed, figures.traffic.denied) == (2, 1)


async def test_who_does_not_answer_or_let_in_is_said(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On one line, with exit status 2."""
    token_file.write_text("another-token-entirely")  # noqa: ASYNC240 - before the loop has anything to do
    assert await run(LiveWorld(RULES), token_file, "--once") == 2
    assert capsys.readouterr().err.endswith("Expected the header Authorization: Bearer TOKEN.\n")
    assert main(["top", "--server", "127.0.0.1:1", "--once"]) == 2
    assert "no answer from 127.0.0.1:1: " in capsys.readouterr().err
    assert main(["top", "--server", "ftp://x", "--once"]) == 2
    assert "expected http://host:port" in capsys.readouterr().err


def figures_of(count: int) -> LiveFigures:
    """Return the figures of a process that decided so many checks."""
    return picture([worker_figures({ALLOWED: count})], [], STARTED, 0)


def test_a_service_that_goes_away_leaves_its_last_figures_and_a_notice() -> None:
    """Until it answers again; control-C ends it."""
    told = io.StringIO()
    console = Console(file=told, force_terminal=True, width=120, height=40)

    def answers() -> Iterator[LiveFigures | InvalidInputError]:
        yield figures_of(1)
        yield figures_of(2)
        yield InvalidInputError("no answer from 127.0.0.1:1")
        yield figures_of(3)

    coming = answers()

    def read() -> LiveFigures:
        answer = next(coming, None)
        if answer is None:
            raise KeyboardInterrupt
        if isinstance(answer, InvalidInputError):
            raise answer
        return answer

    with pytest.raises(KeyboardInterrupt):
        watch(read, console, pause_s=0)
    screens = told.getvalue()
    places = [
        screens.index(text) for text in ("all 1 checks", "all 2 checks", "OLD FIGURES: no answer", "all 3 checks")
    ]
    assert places == sorted(places)


def test_a_low_terminal_shows_the_busiest_rules_and_says_how_many_there_are() -> None:
    """What is wrong stands above them."""
    counts = {(f"GET /{n}", "p", "denied", "quota"): n for n in range(40)}
    rules = msgspec.structs.replace(
        worker_figures({}).rules, last_error="broken", switched_off=[SwitchState((), STARTED, "")]
    )
    held = [
        ("sluicegate.shadow_denied", ("GET /38", "p"), 71.0),
        ("sluicegate.active_request_leases", ("GET /39", "p"), 4.0),
        ("sluicegate.storage.breaker_open", (), 1.0),
    ]
    figures = picture([worker_figures(counts, rules=rules, storage_fault="timeout", numbers=held)], [], STARTED, 2)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(draw(figures, 30))
    told = console.export_text()
    assert "MemoryStorage does not answer, breaker OPEN" in told
    assert "SWITCHED OFF: everything until" in told
    assert "2 processes did not answer" in told
    assert "rules were refused, those before hold: broken" in told
    assert [line.split()[1] for line in told.splitlines() if line.strip().startswith("GET")] == [
        f"/{39 - n}" for n in range(8)
    ]
    assert "4 in flight" in told
    assert next(line for line in told.splitlines() if "/38" in line).split()[-1] == "71"
    assert "and 32 more" in told


PROGRAM = """
import signal, sys
from sluicegate.presentation.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in a shell's background inherit that it is ignored
sys.exit(main())
"""


class Terminal:
    """A terminal that takes all that a program writes, as a person's does."""

    def __init__(self) -> None:
        self._screen, self.program_end = pty.openpty()
        self.told = b""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    async def shows(self, text: bytes) -> None:
        """Wait until a text was written."""
        async with asyncio.timeout(60):
            while text not in self.told:
                await asyncio.sleep(0.05)

    def close(self) -> None:
        """Let go of it, once the program has ended."""
        self._reading.join(20)
        os.close(self._screen)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the program's end is closed
            while part := os.read(self._screen, 65_536):
                self.told += part


async def test_on_a_terminal_it_goes_on_until_control_c(token_file: Path) -> None:
    """And leaves with exit status 0."""
    world, terminal = LiveWorld(RULES), Terminal()
    async with world.client():
        options = ["--server", world.service.addresses["admin"], "--token-file", str(token_file)]
        process = subprocess.Popen(  # noqa: ASYNC220 - started once
            [sys.executable, "-c", PROGRAM, "top", *options],
            stdout=terminal.program_end,
            stderr=terminal.program_end,
            env=os.environ | {"TERM": "xterm"},
        )
        os.close(terminal.program_end)
        try:
            await terminal.shows(b"in all 0 checks")
            await world.ask("GET /a", times=4)
            await terminal.shows(b"in all 4 checks")
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 60) == 0
        finally:
            process.kill()
            process.wait(20)
            terminal.close()
