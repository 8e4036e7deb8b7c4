"""Reading logs: plain and compressed, one and many, in order of time."""

import gzip
import io
import json
import os
import sys
import threading
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.formats.catalogue import FORMATS
from sluicegate.presentation.cli.replay.source.log_files import LogFiles
from sluicegate.presentation.cli.replay.source.log_lines import MAX_LINE_BYTES, read_lines, size_of
from sluicegate.presentation.cli.replay.source.time_order import in_order
from support.access_logs import MIDNIGHT_US, combined_line, log_files, reader_options, request_at

COMPRESSIONS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def seconds_of(files: LogFiles) -> list[int]:
    """Return the times of all requests, in seconds after midnight."""
    return [(request.time_us - MIDNIGHT_US) // 1_000_000 for request in files.requests()]


@example([1, 3, 2], 1)
@given(st.lists(st.integers(0, 20), max_size=60), st.integers(0, 20))
def test_reordering_loses_nothing_and_sorts_what_it_can(times_s: list[int], reorder_lines: int) -> None:
    """Every request comes out once; all are sorted, and stable, if none is displaced by more than what is held back."""
    requests = [request_at(time_s, path=f"/{number}") for number, time_s in enumerate(times_s)]
    out = list(in_order(requests, reorder_lines))
    assert sorted(out, key=lambda one: int(one.path[1:])) == requests
    wanted = sorted(requests, key=lambda one: one.time_us)
    displaced = max((int(one.path[1:]) - place for place, one in enumerate(wanted)), default=0)
    if displaced <= reorder_lines:
        assert out == wanted


def test_malformed_lines_are_counted_shown_and_passed_over(tmp_path: Path) -> None:
    """The first five are kept with number, reason and beginning; blank lines are no lines."""
    broken = b"\x00\xff nonsense " + b"x" * 500 + b"\n"
    lines = [combined_line(0), b"\n", *[broken] * 7, combined_line(0, "- "), combined_line(1)]
    files = log_files(tmp_path, lines)
    assert seconds_of(files) == [0, 1]
    assert (files.lines, files.malformed) == (10, 8)
    assert [sample.line for sample in files.samples] == [3, 4, 5, 6, 7]
    assert "nonsense" in files.samples[0].text
    assert len(files.samples[0].text) <= 200


def test_a_path_of_thousands_of_bytes_is_read(tmp_path: Path) -> None:
    """Only a line beyond 64 KiB is malformed, and the one after it is not."""
    fits = combined_line(0, f"GET /{'a' * 60_000} HTTP/1.1")
    files = log_files(tmp_path, [fits, combined_line(1, f"GET /{'a' * MAX_LINE_BYTES} HTTP/1.1"), combined_line(2)])
    assert seconds_of(files) == [0, 2]
    assert (files.lines, files.malformed, files.samples[0].reason) == (3, 1, "longer than 65536 bytes")


def test_files_may_be_named_in_any_order_and_overlap(tmp_path: Path) -> None:
    """Rotated files, some of them compressed, and those of two servers come out in the order of time."""
    seconds = list(range(400))
    parts = [seconds[200:], seconds[:100], seconds[100:200:2], seconds[101:200:2], []]
    paths: list[str] = []
    for number, (part, compress) in enumerate(
        zip(parts, (bytes, gzip.compress, zstandard.compress, bytes, bytes), strict=True)
    ):
        path = tmp_path / f"access.log.{number}"
        path.write_bytes(compress("".join(map(combined_line, part)).encode()))
        paths.append(str(path))
    for order in list(permutations(paths))[::7]:
        files = LogFiles(order, reader_options(), reorder_lines=0)
        assert seconds_of(files) == seconds
        assert files.lines == 400


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_of_many_rotated_files_one_or_two_are_open(tmp_path: Path) -> None:
    """A file is opened when its time has come: a year of logs does not run out of descriptors."""
    paths = [tmp_path / f"access.log.{number}" for number in range(8)]
    for number, path in enumerate(paths):  # more lines than are looked at to find out the format
        path.write_text("".join(combined_line(second) for second in range(700 * number, 700 * number + 700)))
    files = LogFiles([str(path) for path in paths], reader_options(), reorder_lines=0)
    opened = [_open_logs() for number, _ in enumerate(files.requests()) if number % 50 == 0]
    assert len(opened) == 112
    assert 1 <= max(opened) <= 2


def _open_logs() -> int:
    links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum("access.log" in str(entry.readlink()) for entry in links)


def test_standard_input_is_one_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from a pipe is merged too, though it cannot be read twice."""
    other = tmp_path / "access.log"
    other.write_text("".join(map(combined_line, (0, 2, 4))))
    piped = io.BufferedReader(io.BytesIO("".join(map(combined_line, (1, 3))).encode()))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=piped))
    assert seconds_of(LogFiles([str(other), "-"], reader_options(), reorder_lines=0)) == [0, 1, 2, 3, 4]


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    """`<(zcat access.log.2.gz)` of a shell is a file that ends."""
    pipe, other = tmp_path / "pipe", tmp_path / "access.log"
    other.write_text(combined_line(1))
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(combined_line(0) + combined_line(2)))
    writer.start()
    assert seconds_of(LogFiles([str(pipe), str(other)], reader_options())) == [0, 1, 2]
    writer.join(10)
    assert not writer.is_alive()


def test_each_file_has_its_own_format(tmp_path: Path) -> None:
    """And it is told."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(combined_line(1))
    record = {"ts": MIDNIGHT_US // 1_000_000, "client": "192.0.2.1", "method": "GET", "path": "/"}
    second.write_text(json.dumps(record))
    files = LogFiles([str(first), str(second)], reader_options())
    assert seconds_of(files) == [0, 1]
    assert [file.format and file.format.name for file in files.files] == ["combined", "json"]


def test_a_log_whose_readable_lines_begin_late_is_read(tmp_path: Path) -> None:
    """A long preamble is malformed, and does not hide the format."""
    files = log_files(tmp_path, ["words\n"] * 1_200 + [combined_line(second) for second in range(3)])
    assert seconds_of(files) == [0, 1, 2]
    assert (files.lines, files.malformed) == (1_203, 1_200)


@pytest.mark.parametrize("lines", [[], ["\n", "\n"], ["nonsense\n"] * 700])
@pytest.mark.parametrize("given", [None, "json"])
def test_a_log_without_a_readable_line_is_an_error_that_names_the_formats(
    tmp_path: Path, lines: list[str], given: str | None
) -> None:
    """Empty, blank, or in no format that is known."""
    files = log_files(tmp_path, lines, log_format=FORMATS.get(given or ""))
    with pytest.raises(InvalidInputError, match=r"ACCESS_LOG='.*access.log'.*: combined .*; json .*; alb .*; csv "):
        seconds_of(files)


def test_one_unreadable_file_among_many_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    """A log that was rotated a moment ago is empty."""
    paths = {name: tmp_path / name for name in ("good", "empty", "wrong")}
    paths["good"].write_text(combined_line(0))
    paths["empty"].write_text("")
    paths["wrong"].write_text("nonsense\n")
    assert seconds_of(LogFiles([str(paths["good"]), str(paths["empty"])], reader_options())) == [0]
    with pytest.raises(InvalidInputError, match=r"ACCESS_LOG='.*wrong': none of its 1 lines can be read \(line 1: "):
        seconds_of(LogFiles([str(path) for path in paths.values()], reader_options()))


@pytest.mark.parametrize("reorder_lines", [-1, 10_000_001])
def test_a_reach_out_of_range_is_refused(reorder_lines: int) -> None:
    """The message names the option and the value."""
    with pytest.raises(InvalidInputError, match=f"reorder={reorder_lines}"):
        LogFiles(["-"], reader_options(), reorder_lines=reorder_lines)


def test_standard_input_cannot_be_two_files() -> None:
    """And no file at all is refused as well."""
    with pytest.raises(InvalidInputError, match="only once"):
        LogFiles(["-", "-"], reader_options())
    with pytest.raises(InvalidInputError, match="at least one file"):
        LogFiles([], reader_options())


@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
@pytest.mark.parametrize("from_stdin", [False, True])
def test_a_log_is_read_from_a_file_an_archive_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, *, from_stdin: bool
) -> None:
    """What the bytes are decides, not what the file is called; the last line may lack its end."""
    compress = COMPRESSIONS[compression]
    data = b"one\n\xff two\n\nfour"
    stored = compress(data[:7]) + compress(data[7:])
    path = tmp_path / "access.txt"
    path.write_bytes(stored)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(stored))))  # type: ignore[arg-type]
    assert list(read_lines("-" if from_stdin else str(path))) == [b"one\n", b"\xff two\n", b"\n", b"four"]
    assert size_of("-" if from_stdin else str(path)) == (None if from_stdin else len(stored))


def test_an_overlong_line_is_cut_and_the_next_one_whole(tmp_path: Path) -> None:
    """A line without end costs no memory and no other line."""
    path = tmp_path / "access.log"
    path.write_bytes(b"a\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n")
    first, cut, last = read_lines(str(path))
    assert (first, len(cut), last) == (b"a\n", MAX_LINE_BYTES + 1, b"b\n")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [15, -4])
def test_a_broken_archive_is_an_error_that_says_where(tmp_path: Path, compression: str, cut: int) -> None:
    """Cut off in the data or in the checksum."""
    path = tmp_path / "access.log.gz"
    data = "".join(combined_line(second, f"GET /{second * 7_919} HTTP/1.1") for second in range(500)).encode()
    path.write_bytes(COMPRESSIONS[compression](data)[:cut])
    with pytest.raises(
        InvalidInputError, match=r"ACCESS_LOG=.*access.log.gz': cannot be read.*: Compressed file ended"
    ):
        list(read_lines(str(path)))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_an_archive_of_garbage_is_an_error(tmp_path: Path, compression: str) -> None:
    """Bytes that only begin like an archive."""
    path = tmp_path / "access.log.gz"
    data = "".join(map(combined_line, range(500))).encode()
    path.write_bytes(COMPRESSIONS[compression](data)[:30] + b"\xff" * 400)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        list(read_lines(str(path)))


def test_zstd_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to install."""
    path = tmp_path / "access.log.zst"
    path.write_bytes(zstandard.compress(b"one\n"))
    monkeypatch.setitem(sys.modules, "sluicegate.presentation.cli.replay.source.zstd_stream", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'sluicegate\[zstd\]'"):
        list(read_lines(str(path)))


def test_progress_is_told_in_bytes_of_the_files(tmp_path: Path) -> None:
    """For an archive these are compressed bytes, so that they add up to the files' size."""
    paths = [tmp_path / "a.gz", tmp_path / "b"]
    paths[0].write_bytes(gzip.compress("".join(combined_line(second) for second in range(20_000)).encode()))
    paths[1].write_text("".join(combined_line(second) for second in range(20_000)))
    told: list[int] = []
    files = LogFiles([str(path) for path in paths], reader_options(), on_progress=told.append)
    assert len(seconds_of(files)) == 40_000
    assert told == sorted(told)
    assert 0 < told[0] <= told[-1] <= sum(path.stat().st_size for path in paths)
