"""Write to standard output and standard error, safely: the texts may come from clients or logs."""

import sys

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
    sys.stderr.write(f"sluicegate: {printable(text)}\n")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
