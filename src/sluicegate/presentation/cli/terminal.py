"""Writing for people and programs on the standard streams, where texts of strangers pass through."""

import sys

import msgspec


def printable(text: str) -> str:
    """Return a text in which nothing can move a terminal's cursor, start a line or fail to be encoded."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: bytes of the command line that were none are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_line(text: str) -> None:
    """Write a line on standard output."""
    sys.stdout.write(f"{text}\n")


def write_json(value: object) -> None:
    """Write a value as indented JSON on standard output; infinity becomes null."""
    write_line(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def write_complaint(text: str) -> None:
    """Write one line about something that went wrong on standard error."""
    sys.stderr.write(f"sluicegate: {printable(text)}\n")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
