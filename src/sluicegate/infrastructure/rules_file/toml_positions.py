"""Find the line of a field in a TOML document: error messages name it, and `tomllib` does not tell it.

The scanner understands only enough TOML to know where keys and array items begin. It needs a document that `tomllib` has
accepted, and runs only after a field of that document was found to be invalid.
"""

import re
from collections.abc import Sequence

from sluicegate.infrastructure.rules_file.field_path import FieldPath

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def line_of(text: str, path: Sequence[str | int]) -> int:
    """Return the line, from 1, on which a field begins; if the document has no such field, that of the one around it.

    Args:
        text: A document that `tomllib` accepts.
        path: The field.
    """
    positions = _Scanner(text).scan()
    wanted = tuple(path)
    while wanted and wanted not in positions:
        wanted = wanted[:-1]
    return text.count("\n", 0, positions.get(wanted, 0)) + 1


class _Scanner:
    """Walk through a document and record where each field begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._positions: dict[FieldPath, int] = {}
        self._lengths: dict[FieldPath, int] = {}  # of the arrays of tables so far

    def scan(self) -> dict[FieldPath, int]:
        """Return the position of each field in the text."""
        table: FieldPath = ()
        while True:
            self._skip(_BLANK_LINES)
            if self._at >= len(self._text):
                return self._positions
            start = self._at
            if self._text.startswith("[", self._at):
                table = self._header(start)
            else:
                self._pair(table)

    def _header(self, start: int) -> FieldPath:
        several = self._text.startswith("[[", self._at)
        self._at += 2 if several else 1
        keys = self._keys()
        self._at += 2 if several else 1
        table: FieldPath = ()
        for n, key in enumerate(keys):
            table = (*table, key)
            if several and n == len(keys) - 1:
                self._lengths[table] = self._lengths.get(table, 0) + 1
            if table in self._lengths:
                self._positions.setdefault(table, start)
                table = (*table, self._lengths[table] - 1)
            self._positions.setdefault(table, start)
        return table

    def _pair(self, table: FieldPath) -> None:
        start = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._positions.setdefault(path, start)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_BLANK)
            bare = _BARE_KEY.match(self._text, self._at)
            if bare:
                keys.append(bare[0])
                self._at = bare.end()
            else:
                keys.append(_unquoted(self._string()))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: FieldPath) -> None:
        first = self._text[self._at : self._at + 1]
        if first in {'"', "'"}:
            self._string()
        elif first == "[":
            self._items(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _items(self, path: FieldPath) -> None:
        self._at += 1
        position = 0
        while True:
            self._skip(_BLANK_LINES)
            if self._text.startswith("]", self._at):
                self._at += 1
                return
            self._positions[*path, position] = self._at
            self._value((*path, position))
            position += 1
            self._skip(_BLANK_LINES)
            if self._text.startswith(",", self._at):
                self._at += 1

    def _inline_table(self, path: FieldPath) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK_LINES)
            if self._text.startswith("}", self._at):
                self._at += 1
                return
            if self._text.startswith(",", self._at):
                self._at += 1
                continue
            self._pair(path)

    def _string(self) -> str:
        for form in _STRINGS:
            match = form.match(self._text, self._at)
            if match:
                self._at = match.end()
                return match[0]
        raise ValueError(f"no TOML at {self._at}")  # cannot happen: `tomllib` has accepted the document

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self._text, self._at)
        if match:
            self._at = match.end()


def _unquoted(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    return _ESCAPE.sub(lambda m: _ESCAPED.get(m[3], m[3]) if m[3] else chr(int(m[1] or m[2], 16)), text[1:-1])
