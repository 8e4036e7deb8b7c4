"""Merge the requests of many files by time, and put them in order."""

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain
from pathlib import Path

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.formats.catalogue import LogFormat, known_formats
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest, ReaderOptions
from sluicegate.presentation.cli.replay.source.log_file import LogFile, MalformedSample
from sluicegate.presentation.cli.replay.source.log_lines import STANDARD_INPUT, display_name
from sluicegate.presentation.cli.replay.source.time_order import (
    DEFAULT_REORDER_LINES,
    MAX_REORDER_LINES,
    in_order,
)

_SHOWN_MALFORMED_LINES = 5


class LogFiles:
    """The requests of one or many files, in order of time.

    The files may be named in any order. A file is opened when the time of its first request is reached, so that of rotated
    files one or two are open at a time; files that overlap, such as those of several servers, are merged.

    Args:
        paths: The files; `-` is standard input.
        options: What their readers are told.
        log_format: Their format; None: each file's is detected.
        reorder_lines: How many requests one may stand too late to be put in order, 0 to 10,000,000.
        on_progress: Called with the number of bytes on disk that have been read, of all files.

    Raises:
        InvalidInputError: If `reorder_lines` is out of range, there is no path, or standard input is named twice.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: ReaderOptions,
        *,
        log_format: LogFormat | None = None,
        reorder_lines: int = DEFAULT_REORDER_LINES,
        on_progress: Callable[[int], object] | None = None,
    ) -> None:
        if not 0 <= reorder_lines <= MAX_REORDER_LINES:
            raise InvalidInputError(f"reorder={reorder_lines}: expected 0 to {MAX_REORDER_LINES}")
        if not paths:
            raise InvalidInputError("ACCESS_LOG: expected at least one file, or - for standard input")
        if paths.count(STANDARD_INPUT) > 1:
            raise InvalidInputError("ACCESS_LOG='-': standard input can be read only once")
        self._reorder_lines = reorder_lines
        self._on_progress = on_progress
        self._options = options
        self._format = log_format
        self._done_bytes: dict[str, int] = {}
        self.files = [
            LogFile(path, options, log_format, None if on_progress is None else self._progress_of(path))
            for path in paths
        ]
        """The files in the order in which they were named."""

    @property
    def lines(self) -> int:
        """How many lines were read."""
        return sum(file.lines for file in self.files)

    @property
    def malformed(self) -> int:
        """How many of them could not be read."""
        return sum(file.malformed for file in self.files)

    @property
    def samples(self) -> list[MalformedSample]:
        """The first few of these."""
        return [sample for file in self.files for sample in file.samples][:_SHOWN_MALFORMED_LINES]

    def requests(self) -> Iterator[LoggedRequest]:
        """Yield all requests in order of time.

        Raises:
            InvalidInputError: If a file cannot be read, or has lines of which none can, or all files are empty.
        """
        yield from in_order(self._merged(), self._reorder_lines)
        self._require_readable()

    def _require_readable(self) -> None:
        for file in self.files:
            if file.lines and not file.readable:
                first = file.samples[0]
                name = display_name(file.path)
                raise InvalidInputError(
                    f"ACCESS_LOG={name!r}: none of its {file.lines} lines can be read (line {first.line}: {first.reason});"
                    f" known formats: {known_formats()}"
                )
        if not self.lines:
            names = ", ".join(repr(display_name(file.path)) for file in self.files)
            raise InvalidInputError(f"ACCESS_LOG={names}: no line to read; known formats: {known_formats()}")

    def _merged(self) -> Iterator[LoggedRequest]:
        """Yield the requests of all files, each as its file has them, the file with the earliest next one first."""
        if len(self.files) == 1:
            yield from self.files[0].requests()
            return
        begun: dict[int, Iterator[LoggedRequest]] = {}
        waiting = [(self._first_us(index, begun), index) for index in range(len(self.files))]
        heapify(waiting)
        opened: list[tuple[int, int, LoggedRequest, Iterator[LoggedRequest]]] = []
        while waiting or opened:
            if waiting and (not opened or waiting[0][0] <= opened[0][0]):
                _, index = heappop(waiting)
                requests = begun.pop(index, None) or self.files[index].requests()
                first = next(requests, None)
                if first is not None:
                    heappush(opened, (first.time_us, index, first, requests))
                continue
            _, index, request, requests = opened[0]
            yield request
            following = next(requests, None)
            if following is None:
                heappop(opened)
            else:
                heapreplace(opened, (following.time_us, index, following, requests))

    def _first_us(self, index: int, begun: dict[int, Iterator[LoggedRequest]]) -> int:
        """Return the time of a file's first request; 0 if it has none. What cannot be read twice goes on in `begun`."""
        path = self.files[index].path
        if path == STANDARD_INPUT or not Path(path).is_file():
            requests = self.files[index].requests()
            first = next(requests, None)
            begun[index] = requests if first is None else chain([first], requests)
        else:
            first = next(LogFile(path, self._options, self._format).requests(), None)
        return 0 if first is None else first.time_us

    def _progress_of(self, path: str) -> Callable[[int], object]:
        def on_progress(read_bytes: int) -> None:
            self._done_bytes[path] = read_bytes
            if self._on_progress is not None:
                self._on_progress(sum(self._done_bytes.values()))

        return on_progress
