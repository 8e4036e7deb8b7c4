"""Cut what a client of the Redis protocol sends into commands."""

from typing import Final

MAX_ARGUMENTS: Final = 16
MAX_ARGUMENT_BYTES: Final = 4096
_MAX_LINE_BYTES: Final = 1024

_COUNTS: Final = {b"*%d" % count: count for count in range(1, MAX_ARGUMENTS + 1)}
_SIZES: Final = {size: b"$%d" % size for size in range(256)}
"""How commands begin, and arguments that are not long."""


class ProtocolError(Exception):
    """A client sent something that is no request. The connection cannot go on."""


class RequestParser:
    """Keep what is not yet a whole command. It never holds more than one command and what came with it.

    What comes is split into lines once, for all commands of a pipeline: that is cheaper than to look for each argument. Where the
    lines do not fit, because an argument has a line break, is long or has not come whole, the bytes themselves are read.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._lines: list[bytes] = []
        self._line = -1  # the line of the next command; -1: the bytes are read

    def feed(self, data: bytes) -> None:
        """Take what came from the network."""
        self._leave_lines()
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        self._lines = self._buffer.split(b"\r\n")
        self._line = 0

    @property
    def is_empty(self) -> bool:
        """Whether no part of a command is held."""
        if self._line >= 0:
            return self._line == len(self._lines) - 1 and not self._lines[-1]
        return self._at >= len(self._buffer)

    def next_command(self) -> list[bytes] | None:
        """Return the next command and its arguments; an empty list for an empty one; None if it has not come whole.

        Raises:
            ProtocolError: If what came is no request, or too long.
        """
        if self._line >= 0:
            lines, line = self._lines, self._line
            end = line + 1 + 2 * _COUNTS.get(lines[line], len(lines))
            if end < len(lines):
                arguments = lines[line + 2 : end : 2]
                if [_SIZES.get(len(argument)) for argument in arguments] == lines[line + 1 : end : 2]:
                    self._line = end
                    return arguments
            self._leave_lines()
        return self._read_bytes()

    def _leave_lines(self) -> None:
        """Go on with the bytes: to the end of what has come, since each change to lines would split it all again."""
        if self._line >= 0:
            rest = self._lines[self._line :]
            self._at = len(self._buffer) - sum(map(len, rest)) - 2 * (len(rest) - 1)
            self._line = -1
            self._lines = []

    def _read_bytes(self) -> list[bytes] | None:
        buffer, at = self._buffer, self._at
        if at >= len(buffer):
            return None
        if buffer[at] != 42:  # noqa: PLR2004 - an asterisk
            return self._inline()
        count, at = self._number(at, MAX_ARGUMENTS, "multibulk length")
        arguments: list[bytes] = []
        while len(arguments) < count:
            argument, at = self._bulk(at)
            if argument is None:
                return None
            arguments.append(argument)
        if count < 0:
            return None
        self._at = at
        return arguments

    def _bulk(self, at: int) -> tuple[bytes | None, int]:
        """Return the argument at a place, and the place after it; None if it has not come whole."""
        buffer = self._buffer
        if at >= len(buffer):
            return None, at
        if buffer[at] != 36:  # noqa: PLR2004 - a dollar sign
            raise ProtocolError(f"expected '$', got {chr(buffer[at])!r}")
        length, at = self._number(at, MAX_ARGUMENT_BYTES, "bulk length")
        end = at + length
        if length < 0 or len(buffer) < end + 2:
            return None, at
        if buffer[end : end + 2] != b"\r\n":
            raise ProtocolError("a bulk string is not followed by CRLF")
        return buffer[at:end], end + 2

    def _number(self, at: int, highest: int, what: str) -> tuple[int, int]:
        """Return the number after the sign at a place, and the place after its line; -1 if the line has not come whole."""
        end = self._buffer.find(b"\r\n", at, at + 16)
        if end < 0:
            if len(self._buffer) - at >= 16:  # noqa: PLR2004 - no valid number is longer
                raise ProtocolError(f"invalid {what}")
            return -1, at
        digits = self._buffer[at + 1 : end]
        if not digits.isdigit() or int(digits) > highest:
            raise ProtocolError(f"invalid {what}")
        return int(digits), end + 2

    def _inline(self) -> list[bytes] | None:
        end = self._buffer.find(b"\n", self._at, self._at + _MAX_LINE_BYTES)
        if end < 0:
            if len(self._buffer) - self._at >= _MAX_LINE_BYTES:
                raise ProtocolError("too big inline request")
            return None
        arguments = self._buffer[self._at : end].split()
        if len(arguments) > MAX_ARGUMENTS:
            raise ProtocolError("too many arguments")
        self._at = end + 1
        return arguments
