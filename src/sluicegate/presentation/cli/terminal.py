"""Write to standard output and standard error, safely: the texts may come from clients or logs."""

import shutil
import sys
import textwrap
from typing import TextIO

import msgspec


def printable(text: str) -> str:
    """Return a text with every unprintable character escaped, so that none moves the cursor or starts a line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: command-line bytes that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_line(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")


def write_json(value: object) -> None:
    """Write a value to standard output as indented JSON; infinity becomes null."""
    write_line(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def write_error(text: str) -> None:
    """Write one line about an error to standard error."""
    sys.stderr.write(f"{_fitted(f'sluicegate: {printable(text)}', sys.stderr)}\n")


def write_prose(text: str) -> None:
    """Write one line of words to standard output; on a terminal that is narrower, it goes on indented below."""
    sys.stdout.write(f"{_fitted(text, sys.stdout)}\n")


def _fitted(text: str, stream: TextIO) -> str:
    """Return a line, broken between words where a terminal would break it within one; files and pipes get it whole."""
    if not stream.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    indent = " " * (len(text) - len(text.lstrip()) + 4)
    lines = textwrap.wrap(
        text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return "\n".join(lines)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
