"""Read the lines of a log: a file, a gzipped file, or standard input."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.access_log import MAX_LINE_BYTES

STANDARD_INPUT = "-"
"""The path that means standard input."""

_GZIP_MAGIC = b"\x1f\x8b"
_LINES_PER_PROGRESS = 2_000


def size_of(path: str) -> int | None:
    """Return a log's size on disk in bytes; None if it is unknown, as for standard input."""
    file = Path(path)
    return file.stat().st_size if path != STANDARD_INPUT and file.is_file() else None


def read_lines(path: str, on_progress: Callable[[int], object] | None = None) -> Iterator[bytes]:
    """Read a log line by line, in constant memory whatever the size of the log and of its lines.

    Args:
        path: The file; `-` is standard input. Its first two bytes, not its name, tell whether it is gzipped.
        on_progress: Called every 2,000 lines with the number of bytes on disk that have been read.

    Yields:
        Each line with its line end. A line longer than `MAX_LINE_BYTES` is cut one byte after that length, so that it can
        be recognised.

    Raises:
        InvalidInputError: If the log cannot be read or decompressed.
    """
    name = "standard input" if path == STANDARD_INPUT else repr(path)
    number = 0
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(Path(path).open("rb"))
            stream = _decompressed(file)
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                rest = line
                while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                    rest = stream.readline(MAX_LINE_BYTES + 1)
                if on_progress is not None and number % _LINES_PER_PROGRESS == 0:
                    on_progress(file.tell())
                yield line
    except (OSError, EOFError, zlib.error) as error:
        after = f" after line {number}" if number else ""
        detail = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(f"ACCESS_LOG={name}: cannot be read{after}: {detail}") from None


def _decompressed(file: BinaryIO) -> BinaryIO:
    peekable = cast("io.BufferedReader", file)
    if peekable.peek(2)[:2] == _GZIP_MAGIC:
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    return file
