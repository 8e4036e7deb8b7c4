"""Where a field is in a rules file, and the error that names it."""

from typing import TypeAlias

from msgspec import json

FieldPath: TypeAlias = tuple[str | int, ...]
"""The place of a field: keys, and positions in arrays from 0. Empty: the file as a whole."""

_MAX_KEY_CHARACTERS = 80


class FieldError(Exception):
    """A field of a rules file is invalid.

    Args:
        path: The field.
        message: What is wrong and what was expected.
    """

    def __init__(self, path: FieldPath, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def format_path(path: FieldPath) -> str:
    """Return a path in TOML's notation: `endpoints."POST /x"[0].cost`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("_", "").replace("-", "")
            key = step if plain.isascii() and plain.isalnum() else json.encode(step[:_MAX_KEY_CHARACTERS]).decode()
            text += f".{key}" if text else key
    return text
