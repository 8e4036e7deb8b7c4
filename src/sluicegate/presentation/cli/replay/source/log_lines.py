"""Read the lines of a log: a file, standard input, plain, gzipped or compressed with zstd."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from sluicegate.domain.errors import InvalidInputError

STANDARD_INPUT = "-"
"""The path that means standard input."""

MAX_LINE_BYTES = 64 * 1024
"""The longest line that is read whole; with Apache's default limits a line has at most about half of this."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LINES_PER_PROGRESS = 2_000


def display_name(path: str) -> str:
    """Return a log's name for people."""
    return "standard input" if path == STANDARD_INPUT else path


def size_of(path: str) -> int | None:
    """Return a log's size on disk in bytes; None if it is unknown, as for standard input."""
    file = Path(path)
    return file.stat().st_size if path != STANDARD_INPUT and file.is_file() else None


def read_lines(path: str, on_progress: Callable[[int], object] | None = None) -> Iterator[bytes]:
    """Read a log line by line, in constant memory whatever the size of the log and of its lines.

    Args:
        path: The file; `-` is standard input. Its first bytes, not its name, tell whether and how it is compressed.
        on_progress: Called every 2,000 lines with the number of bytes on disk that have been read.

    Yields:
        Each line with its line end. A line longer than `MAX_LINE_BYTES` is cut one byte after that length, so that it can
        be recognised.

    Raises:
        InvalidInputError: If the log cannot be read or decompressed, or is compressed with zstd and the extra is missing.
    """
    name = display_name(path) if path == STANDARD_INPUT else repr(path)
    number = 0
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(Path(path).open("rb"))
            stream = _decompressed(file, name)
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


def _decompressed(file: BinaryIO, name: str) -> BinaryIO:
    beginning = cast("io.BufferedReader", file).peek(4)
    if beginning[:2] == _GZIP_MAGIC:
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if beginning[:4] == _ZSTD_MAGIC:
        return _zstd(file, name)
    return file


def _zstd(file: BinaryIO, name: str) -> BinaryIO:
    try:
        from sluicegate.presentation.cli.replay.source.zstd_stream import ZstdStream  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise InvalidInputError(f"ACCESS_LOG={name}: compressed with zstd: pip install 'sluicegate[zstd]'") from None
    return cast("BinaryIO", io.BufferedReader(ZstdStream(file)))
