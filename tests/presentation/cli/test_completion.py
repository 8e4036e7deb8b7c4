"""Completion in the shells themselves, and what a terminal of 80 columns shows."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sluicegate.presentation.cli.main import app

BIN = Path(sys.executable).parent
ASK = {
    "bash": 'eval "$SCRIPT"; COMP_WORDS=(sluicegate ru); COMP_CWORD=1; _sluicegate_completion sluicegate; echo "${COMPREPLY[@]}"',
    "zsh": 'compdef() { :; }; _arguments() { print -r -- "$@"; }; eval "$SCRIPT"; words=(sluicegate ru); CURRENT=2;'
    " _sluicegate_completion",
    "fish": 'echo "$SCRIPT" | source; complete -C "sluicegate ru"',
}


def _in_shell(shell: str, command: str, **environ: str) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", **environ}
    run = subprocess.run(
        [shell, "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return run.stdout + run.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str, tmp_path: Path) -> None:
    """With the script that `--show-completion` prints for the shell that asks."""
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    script = _in_shell(shell, "sluicegate --show-completion; true", **home)
    assert "_SLUICEGATE_COMPLETE" in script, script
    answer = _in_shell(shell, ASK[shell], SCRIPT=script, **home)
    assert "rules" in answer, answer
    assert "replay" not in answer


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/sluicegate.sh"),
        ("zsh", ".zfunc/_sluicegate"),
        ("fish", ".config/fish/completions/sluicegate.fish"),
    ],
)
def test_completion_is_installed_for_the_shell_that_asks(shell: str, file: str, tmp_path: Path) -> None:
    """In the home directory, and nowhere else."""
    _in_shell(
        shell, "sluicegate --install-completion; true", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / ".config")
    )
    assert "_SLUICEGATE_COMPLETE" in (tmp_path / file).read_text()


def _commands() -> list[tuple[str, ...]]:
    found, ahead = list[tuple[str, ...]](), [((), typer.main.get_command(app))]
    while ahead:
        words, command = ahead.pop()
        found.append(words)
        ahead += [((*words, name), inner) for name, inner in getattr(command, "commands", {}).items()]
    return found


def _on_terminal(*arguments: str, directory: Path) -> str:
    """Return what a command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    process = subprocess.Popen(
        [str(BIN / "sluicegate"), *arguments], stdout=theirs, stderr=theirs, cwd=directory, env=environ
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65_536):
            written += chunk
    except OSError:  # Linux says so when nobody writes any more
        pass
    process.wait(20)
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def test_the_help_fits_eighty_columns_and_leaves_nothing_out(capsys: pytest.CaptureFixture[str]) -> None:
    """No line is longer, and no summary of a command is cut."""
    for words in _commands():
        app([*words, "--help"], standalone_mode=False, terminal_width=80)
        text = capsys.readouterr().out
        assert [line for line in text.splitlines() if len(line) > 80] == [], words
        commands = text.partition("Commands:")[2].splitlines()
        assert [line for line in commands if line.endswith("...")] == [], words


def test_long_lines_break_between_words(tmp_path: Path) -> None:
    """On a terminal; a pipe gets one line for each finding, to be searched."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[endpoints]\n"GET /a-long-path/{with_a_parameter}/and/more" = "1/minute"\n' * 1
        + '"GET /x" = "1000000/second burst 1"\n'
    )
    rules.chmod(0o644)
    shown = _on_terminal(
        "rules",
        "explain",
        "GET /a-long-path/1/and/more",
        "--ip",
        "192.0.2.1",
        "--rules",
        "rules.toml",
        directory=tmp_path,
    )
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    refused = _on_terminal(
        "rules", "show", "an-absent-file-with-quite-a-long-name.toml/" + "x " * 40, directory=tmp_path
    )
    assert len(refused.splitlines()) > 1
    assert [line for line in refused.splitlines() if len(line) > 80] == []
    piped = subprocess.run(
        [
            BIN / "sluicegate",
            "rules",
            "explain",
            "GET /a-long-path/1/and/more",
            "--ip",
            "192.0.2.1",
            "--rules",
            "rules.toml",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    words = piped.split()
    assert shown.split() == words
    assert max(len(line) for line in piped.splitlines()) > 80
