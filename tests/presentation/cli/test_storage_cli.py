"""The commands `sluicegate storage …`, as a user calls them."""

import json
import os
import re
import struct
from pathlib import Path

import pytest

from sluicegate.presentation.cli.main import main
from support.shared_memory import SharedMemoryStorage, stopped_holder

SIZE = 1 << 20
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "command-line.md"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file's path, which is also the storage of the settings."""
    path = tmp_path / "buckets"
    monkeypatch.setenv("SLUICEGATE_STORAGE_URL", f"shm://{path}?size=1MiB")
    rules = tmp_path / "rules.toml"
    rules.write_text('[endpoints]\n"POST /login" = "2/day"\n')
    monkeypatch.setenv("SLUICEGATE_RULES", str(rules))
    return path


def test_the_commands_of_a_shell_act_on_what_others_use(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command is a process of its own; check, remaining, reset, info and clear see the same buckets."""
    assert [main(["check", "POST /login", "x"]) for _ in range(3)] == [0, 0, 1]
    capsys.readouterr()
    main(["remaining", "POST /login", "x"])
    assert capsys.readouterr().out.startswith("0 of 2 left")
    assert main(["reset", "POST /login", "x"]) == 0
    assert main(["check", "POST /login", "x"]) == 0
    capsys.readouterr()
    assert main(["storage", "info", f"shm://{path}"]) == 0
    assert re.fullmatch(
        rf"file      {path}, made \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC\n"
        r"size      1 MiB, room for 1\d,\d\d\d buckets\n"
        r"buckets   1, of which 1 are not full\n"
        r"claims    0 reservations and holds, room for 910\n"
        r"evicted   0 before they were full, for want of room\n"
        r"repaired  0 times after a process died in the middle of its work\n",
        capsys.readouterr().out,
    )
    assert main(["storage", "clear"]) == 0
    assert capsys.readouterr().out == "cleared: all buckets are full\n"
    main(["storage", "info", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["path"], facts["size_bytes"], facts["buckets"]) == (str(path), SIZE, 0)
    page = PAGE.read_text()
    assert [name for name in facts if f"`{name}`" not in page] == []


def test_nothing_is_made(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who mistypes a name is told so."""
    for command in ("info", "clear"):
        assert main(["storage", command]) == 2
        assert "there is no such file" in capsys.readouterr().err
    assert not path.exists()


def test_other_storages_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Their servers have tools of their own."""
    assert main(["storage", "info", "redis://localhost"]) == 2
    assert "expected shm://NAME or shm:///path" in capsys.readouterr().err


def test_a_file_of_another_version_is_removed_once_nobody_uses_it(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This version cannot empty it."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE)
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("=I", 99))
    assert main(["storage", "clear"]) == 1
    assert "not cleared" in capsys.readouterr().err
    assert path.exists()
    storage.close()
    del storage
    assert main(["storage", "clear"]) == 0
    assert capsys.readouterr().out.startswith("removed: no process uses the file")
    assert not path.exists()


def test_what_is_no_file_of_sluicegate_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever path somebody types."""
    path.write_bytes(b"precious" * 1000)
    os.chmod(path, 0o600)  # noqa: PTH101 - short
    assert main(["storage", "clear"]) == 2
    assert "no file of sluicegate" in capsys.readouterr().err
    assert path.read_bytes() == b"precious" * 1000


def test_a_lock_that_is_not_free_is_told(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clear` does not pretend."""
    SharedMemoryStorage(path, size_bytes=SIZE)
    monkeypatch.setattr("sluicegate.presentation.cli.storage_commands._PATIENT_MS", 20)
    with stopped_holder(path, "some key"):
        assert main(["storage", "clear"]) == 1
    assert capsys.readouterr().err == (
        "sluicegate: not cleared: A lock was not free in time: a process that holds it may be stopped.\n"
    )


@pytest.mark.parametrize("command", ["info", "clear"])
def test_the_reference_shows_the_help_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Word for word."""
    monkeypatch.setenv("COLUMNS", "80")
    main(["storage", command, "--help"])
    assert f"```text\n{capsys.readouterr().out}```" in PAGE.read_text()
