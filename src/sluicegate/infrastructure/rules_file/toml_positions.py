"""Finding the line of a field in a TOML document: what `tomllib` does not tell, and an error message should.

The scanner reads only as much of TOML as it takes to know where keys and array items begin. It expects a document that
`tomllib` has accepted, and is used only once something in such a document turned out to be wrong.
"""

import re
from collections.abc import Sequence
from typing import TypeAlias

FieldPath: TypeAlias = tuple[str | int, ...]
"""Where a field is: keys, and positions in arrays from 0."""

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
    """Return the line, from 1, on which a field begins; that of the nearest field around it if it has no place of its own.

    Args:
        text: A document that `tomllib` accepts.
        path: Keys and array positions.
    """
    places = _Scanner(text).places()
    wanted = tuple(path)
    while wanted and wanted not in places:
        wanted = wanted[:-1]
    return text.count("\n", 0, places.get(wanted, 0)) + 1


class _Scanner:
    """Walk a document and note where each field begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._places: dict[FieldPath, int] = {}
        self._lengths: dict[FieldPath, int] = {}  # of arrays of tables

    def places(self) -> dict[FieldPath, int]:
        table: FieldPath = ()
        while True:
            self._skip(_BLANK_LINES)
            if self._at >= len(self._text):
                return self._places
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
                self._places.setdefault(table, start)
                table = (*table, self._lengths[table] - 1)
            self._places.setdefault(table, start)
        return table

    def _pair(self, table: FieldPath) -> None:
        start = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._places.setdefault(path, start)
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
            self._places[*path, position] = self._at
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
        raise ValueError(f"no TOML at {self._at}")  # `tomllib` has accepted it: there is none of this

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self._text, self._at)
        if match:
            self._at = match.end()


def _unquoted(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    return _ESCAPE.sub(lambda m: _ESCAPED.get(m[3], m[3]) if m[3] else chr(int(m[1] or m[2], 16)), text[1:-1])
