"""Noticing changes of a file, however they are made."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluicegate import InvalidInputError
from sluicegate.infrastructure.rules_file.watcher import FileWatcher

PATIENCE_S = 45  # against hangs: beyond the 30 s after which a watch looks without being told


class Reader:
    """A watch whose callback reads the file and keeps what it saw."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.calls = 0
        self.seen: list[str] = []
        self.troubles: list[str] = []
        self.path = path
        self.watch = FileWatcher(
            path, self.read, on_error=lambda error: self.troubles.append(repr(error)), quiet_ms=5, **settings
        )

    def read(self) -> None:
        """Keep the content, once each time it changed."""
        self.calls += 1
        text = self.path.read_text() if self.path.exists() else "gone"
        if not self.seen or self.seen[-1] != text:
            self.seen.append(text)

    def wait_for(self, text: str) -> None:
        """Wait until the last thing seen is this."""
        wait_until(lambda: bool(self.seen) and self.seen[-1] == text)

    def start(self, file: Path | None = None) -> None:
        """Start the watch, and wait until it notices: touch a file until a second call comes."""
        file, text = file or self.path, (file or self.path).read_text()
        self.watch.start()
        self.wait_for(text)
        calls = self.calls
        while self.calls == calls:
            file.write_text(text)
            time.sleep(0.02)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


@pytest.fixture(params=["notify", "poll"])
def settings(request: pytest.FixtureRequest) -> dict[str, object]:
    """Asking the operating system, and only looking."""
    return (
        {"notify": True, "poll_seconds": 300} if request.param == "notify" else {"notify": False, "poll_seconds": 0.02}
    )


@pytest.fixture
def reader(tmp_path: Path, settings: dict[str, object]) -> Iterator[Reader]:
    """A started watch of `rules.toml`."""
    path = tmp_path / "rules.toml"
    path.write_text("one")
    reader = Reader(path, **settings)
    reader.start()
    yield reader
    reader.watch.stop()


def test_written_in_place(reader: Reader) -> None:
    """The file is opened and overwritten, with content of the same length too."""
    for text in ("two", "three", "seven", "eight"):
        reader.path.write_text(text)
        reader.wait_for(text)


def test_replaced_as_editors_do(reader: Reader) -> None:
    """A new file is moved over the old one."""
    for text in ("two", "new", "old"):
        other = reader.path.with_suffix(".tmp")
        other.write_text(text)
        other.replace(reader.path)
        reader.wait_for(text)


def test_removed_and_made_again(reader: Reader) -> None:
    """A file may go and come back."""
    reader.path.unlink()
    reader.wait_for("gone")
    reader.path.write_text("back")
    reader.wait_for("back")


def test_its_rights_change(reader: Reader) -> None:
    """A change of the mode is a change: it may be what makes a file acceptable."""
    time.sleep(0.1)  # for the call after the file has come to rest
    before = reader.calls
    reader.path.chmod(0o600)
    wait_until(lambda: reader.calls > before)


def test_a_config_map_is_swapped(tmp_path: Path, settings: dict[str, object]) -> None:
    """Kubernetes puts a new folder behind the link `..data`; the file's own link never changes."""
    for n in range(4):
        (tmp_path / f"..{n}").mkdir()
        (tmp_path / f"..{n}" / "rules.toml").write_text(f"version {n}")
    (tmp_path / "..data").symlink_to("..0")
    path = tmp_path / "rules.toml"
    path.symlink_to("..data/rules.toml")
    reader = Reader(path, **settings)
    reader.start(tmp_path / "..0/rules.toml")
    for n in (1, 2, 3):
        (tmp_path / "..data_tmp").symlink_to(f"..{n}")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        reader.wait_for(f"version {n}")
    reader.watch.stop()


def test_the_target_of_a_link_elsewhere_is_written(tmp_path: Path, settings: dict[str, object]) -> None:
    """A link to a file in another folder: both folders are watched, also after the link was turned to a third."""
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "there/rules.toml").write_text("one")
    (tmp_path / "elsewhere/rules.toml").write_text("two")
    path = tmp_path / "here/rules.toml"
    path.symlink_to(tmp_path / "there/rules.toml")
    reader = Reader(path, **settings)
    reader.start(tmp_path / "there/rules.toml")
    (tmp_path / "there/rules.toml").write_text("uno")
    reader.wait_for("uno")
    (tmp_path / "here/new").symlink_to(tmp_path / "elsewhere/rules.toml")
    (tmp_path / "here/new").rename(path)
    reader.wait_for("two")
    deadline = time.monotonic() + PATIENCE_S
    while reader.seen[-1] != "due":  # the watch of the third folder begins a moment later
        assert time.monotonic() < deadline
        (tmp_path / "elsewhere/rules.toml").write_text("due")
        time.sleep(0.02)
    reader.watch.stop()


def test_a_callback_that_raises_is_called_again(tmp_path: Path, settings: dict[str, object]) -> None:
    """Its fault is told once, and ends nothing."""
    path = tmp_path / "rules.toml"
    path.write_text("one")
    calls: list[int] = []
    troubles: list[Exception] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("no")

    watch = FileWatcher(path, fail, on_error=troubles.append, quiet_ms=5, **settings)  # type: ignore[arg-type]
    watch.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(calls) < 4:
        assert time.monotonic() < deadline
        path.write_text(str(time.monotonic()))
        time.sleep(0.02)
    watch.stop()
    assert [str(trouble) for trouble in troubles] == ["no"]


def test_where_no_thread_can_be_started_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application starts all the same, with the rules that were read; stopping has nothing to do."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    reader = Reader(tmp_path / "rules.toml")
    reader.watch.start()
    reader.watch.stop()
    assert len(reader.troubles) == 1
    assert "can't start new thread" in reader.troubles[0]


def test_without_a_folder_it_looks(tmp_path: Path) -> None:
    """What cannot be watched is looked at, and the trouble is told."""
    reader = Reader(tmp_path / "later/rules.toml", poll_seconds=0.02)
    reader.watch.start()
    wait_until(lambda: len(reader.troubles) == 1)
    (tmp_path / "later").mkdir()
    reader.path.write_text("here")
    reader.wait_for("here")
    reader.watch.stop()
    assert "No such file" in reader.troubles[0]


def test_without_watchfiles_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not needed for changes to be noticed."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    path = tmp_path / "rules.toml"
    path.write_text("one")
    reader = Reader(path, poll_seconds=0.02)
    reader.watch.start()
    path.write_text("two")
    reader.wait_for("two")
    reader.watch.stop()
    assert len(reader.troubles) == 1


def test_stopping_is_final(reader: Reader) -> None:
    """After `stop` nothing is called; stopping and starting twice are harmless."""
    reader.watch.start()
    reader.watch.stop()
    reader.watch.stop()
    reader.path.write_text("late")
    time.sleep(0.1)
    assert reader.seen[-1] == "one"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_goes_on_watching(tmp_path: Path) -> None:
    """A server that forks its workers after the limiter was made notices changes in each worker."""
    code = """
import os, sys, time
from pathlib import Path
from sluicegate.infrastructure.rules_file.watcher import FileWatcher
path, seen = Path(sys.argv[1]), []
watch = FileWatcher(path, lambda: seen.append(path.read_text()), quiet_ms=5, poll_seconds=0.05)
watch.start()
if os.fork() == 0:
    deadline = time.monotonic() + 20
    Path(sys.argv[1] + ".child").touch()
    while "two" not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
    os._exit(0 if "two" in seen else 1)
while not Path(sys.argv[1] + ".child").exists():
    time.sleep(0.01)
path.write_text("two")
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    path = tmp_path / "rules.toml"
    path.write_text("one")
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False).returncode == 0


def test_nothing_is_done_for_the_first_time_in_the_thread(tmp_path: Path) -> None:
    """What the thread of the parent initialises while the process forks stays locked in the child.

    It happened once in a thousand forks: a cell of watchfiles' extension waited for the thread that was not there any more.
    """
    code = """
import sys, threading, time
from pathlib import Path
import sluicegate.infrastructure.rules_file.watcher as watcher
import watchfiles
real, told, threads = watchfiles.watch, [], []
def watch(*directories, stop_event, **settings):
    threads.append(threading.current_thread())
    for changes in real(*directories, stop_event=stop_event, **settings):
        yield changes
    told.append(stop_event.is_set())  # its code was gone through
watchfiles.watch = watch
path, modules = Path(sys.argv[1]), []
watch = watcher.FileWatcher(path, lambda: modules.append(set(sys.modules)), quiet_ms=5)
watch.start()
assert threads[0] is threading.main_thread() and told == [True], threads
while not modules:
    time.sleep(0.01)
watch.stop()
assert len(threads) == 2 and threads[1] is not threads[0], threads
assert set(sys.modules) == modules[0], set(sys.modules) - modules[0]
"""
    path = tmp_path / "rules.toml"
    path.write_text("one")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_wrong_settings(tmp_path: Path) -> None:
    """Intervals that make no sense are refused."""
    for wrong in ({"poll_seconds": 0}, {"poll_seconds": float("nan")}, {"quiet_ms": 0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            FileWatcher(tmp_path, lambda: None, **wrong)  # type: ignore[arg-type]
