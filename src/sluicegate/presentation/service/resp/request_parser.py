"""Cut what a client of the Redis protocol sends into commands."""

from typing import Final

MAX_ARGUMENTS: Final = 16
MAX_ARGUMENT_BYTES: Final = 4096
_MAX_LINE_BYTES: Final = 1024


class ProtocolError(Exception):
    """A client sent something that is no request. The connection cannot go on."""


class RequestParser:
    """Keep what is not yet a whole command. It never holds more than one command and what came with it."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Take what came from the network."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Whether no part of a command is held."""
        return self._at >= len(self._buffer)

    def next_command(self) -> list[bytes] | None:
        """Return the next command and its arguments; an empty list for an empty one; None if it has not come whole.

        Raises:
            ProtocolError: If what came is no request, or too long.
        """
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
