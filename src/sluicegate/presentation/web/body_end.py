"""Where an answer's body ends: a client that has all of it may come again at once."""

from collections.abc import Iterable
from typing import Final

_WITHOUT_BODY: Final = frozenset({204, 304})
_MOST_DIGITS: Final = 18


class BodyEnd:
    """Count the bytes of a body as its client does (RFC 9112, section 6.3).

    Args:
        method: The request's method.
        status: The answer's status.
        fields: The answer's header fields, their names in any case.
    """

    __slots__ = ("_left",)

    def __init__(self, method: str, status: int, fields: Iterable[tuple[str, str]]) -> None:
        self._left: int | None = None  # where no field tells it, the server tells the end
        for name, value in fields:
            if name.lower() == "content-length" and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
                self._left = int(value)
        if method == "HEAD" or status in _WITHOUT_BODY:
            self._left = 0

    def comes_with(self, size: int) -> bool:
        """Note a part of so many bytes, 0 for the header; return whether the client has all with it."""
        if self._left is None:
            return False
        self._left -= size
        return self._left <= 0
