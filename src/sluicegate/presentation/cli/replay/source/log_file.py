"""Read the requests of one file: find out its format, and count what cannot be read."""

from collections.abc import Callable, Iterator
from itertools import chain, islice

import msgspec

from sluicegate.presentation.cli.replay.formats.catalogue import LogFormat, detect
from sluicegate.presentation.cli.replay.formats.record import LineReader, LoggedRequest, MalformedLine, ReaderOptions
from sluicegate.presentation.cli.replay.source.log_lines import MAX_LINE_BYTES, display_name, read_lines

_DETECTION_LINES = 500
_SHOWN_MALFORMED_LINES = 5
_TOO_LONG = MalformedLine(f"longer than {MAX_LINE_BYTES} bytes")


class MalformedSample(msgspec.Struct, frozen=True):
    """A line that could not be replayed.

    Args:
        line: Its number in its file, from 1.
        reason: What is wrong with it.
        text: The line's first characters.
        path: The file.
    """

    line: int
    reason: str
    text: str
    path: str


class LogFile:
    """The requests of one file, as they stand in it.

    Args:
        path: The file; `-` is standard input.
        options: What its reader is told.
        log_format: Its format; None: the one in which most of its first 500 lines can be read. Where none of them can, the next
            500 decide.
        on_progress: Called with the number of bytes on disk that have been read.
    """

    def __init__(
        self,
        path: str,
        options: ReaderOptions,
        log_format: LogFormat | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> None:
        self.path = path
        self.format = log_format
        """Its format; None while, or if, nothing in it could be read."""
        self.lines = 0
        """How many lines had something in them and were no header."""
        self.malformed = 0
        """How many of them could not be read."""
        self.samples: list[MalformedSample] = []
        """The first few of these."""
        self._options = options
        self._on_progress = on_progress

    @property
    def readable(self) -> int:
        """How many lines could be read."""
        return self.lines - self.malformed

    def requests(self) -> Iterator[LoggedRequest]:
        """Yield its requests.

        Raises:
            InvalidInputError: If the file cannot be read, or its format lacks a field that was asked for.
        """
        numbered = self._numbered_lines()
        given = self.format
        while True:
            block = list(islice(numbered, _DETECTION_LINES))
            if not block:
                return
            self.format = given or detect([text for _, text in block], self._options)
            if self.format is not None:
                yield from self._read(chain(block, numbered), self.format.open(self._options))
                return
            for number, text in block:
                self._count_malformed(number, "in none of the known formats", text)

    def _numbered_lines(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(read_lines(self.path, self._on_progress), start=1):
            if len(line) > MAX_LINE_BYTES:
                self._count_malformed(number, _TOO_LONG.reason, line[:200].decode("utf-8", "backslashreplace"))
                continue
            text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            if text and not text.isspace():
                yield number, text

    def _read(self, numbered: Iterator[tuple[int, str]], reader: LineReader) -> Iterator[LoggedRequest]:
        read = reader.read
        for number, text in numbered:
            found = read(text)
            if isinstance(found, LoggedRequest):
                self.lines += 1
                yield found
            elif found is not None:
                self._count_malformed(number, found.reason, text)

    def _count_malformed(self, number: int, reason: str, text: str) -> None:
        self.lines += 1
        self.malformed += 1
        if len(self.samples) < _SHOWN_MALFORMED_LINES:
            self.samples.append(MalformedSample(number, reason, text.strip()[:200], display_name(self.path)))
