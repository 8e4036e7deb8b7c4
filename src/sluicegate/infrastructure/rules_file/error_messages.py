"""Find the field that has the wrong type, and say so to somebody who writes rules, not Python.

`msgspec` names the field, but writes `[...]` for the keys of mappings. Such a key is found by converting the document again
with only one key in that mapping, until the same error comes.
"""

import difflib
import re
import sys
from typing import Any, cast

import msgspec

from sluicegate.domain.rules.rule import ON_STORAGE_ERROR
from sluicegate.infrastructure.rules_file.field_path import FieldPath
from sluicegate.infrastructure.rules_file.schema import RuleFileTable

_LOCATION = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z_]+)|\[(\d+|\.\.\.)\]")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "null": "nothing",
    "datetime": "a date and time",
    "date": "a date without a time",
    "time": "a time without a date",
}


def locate_error(
    document: object, error: msgspec.ValidationError, table: type[msgspec.Struct] = RuleFileTable
) -> tuple[FieldPath, str]:
    """Return the field that is wrong and a message for people.

    Args:
        document: The document, which could not be converted.
        error: The error of that conversion.
        table: What it was to be converted to.
    """
    path: FieldPath = ()
    steps, message = _parse(error)
    while len(path) < len(steps):
        step = steps[len(path)]
        if step is None:
            step = _find_key(document, path, (steps, message), table)
            if step is None:
                break
        path = (*path, step)
    unknown = _UNKNOWN.search(message)
    if unknown:
        return (*path, unknown[1]), f"unknown field{_hint(unknown[1], table)}"
    return path, _reword(message)


def _parse(error: msgspec.ValidationError) -> tuple[list[str | int | None], str]:
    """Return the path in an error's message, with None for each unnamed key, and the rest of the message."""
    text = str(error)
    location = _LOCATION.search(text)
    if location is None:
        return [], text
    steps: list[str | int | None] = []
    for field, position in _STEP.findall(location[1]):
        steps.append(field or (None if position == "..." else int(position)))
    return steps, text[: location.start()]


def _find_key(
    document: object, path: FieldPath, parsed_error: tuple[list[str | int | None], str], table: type[msgspec.Struct]
) -> str | None:
    """Return the key of a mapping whose value causes an error; None if it takes more than one key."""
    mapping = _value_at(document, path)
    for key in mapping:
        try:
            msgspec.convert(_with_only(document, path, key), table)
        except msgspec.ValidationError as error:
            if _parse(error) == parsed_error:
                return key
    return None


def _value_at(document: Any, path: FieldPath) -> dict[str, object]:  # noqa: ANN401 - whatever the file holds
    for step in path:
        document = document[step]
    return cast("dict[str, object]", document)


def _with_only(document: Any, path: FieldPath, key: str) -> object:  # noqa: ANN401 - whatever the file holds
    """Return the document with only one key left in the mapping at a path."""
    if not path:
        return {key: document[key]}
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return [*document[:step], _with_only(document[step], rest, key), *document[step + 1 :]]
    return {**document, step: _with_only(document[step], rest, key)}


def _reword(message: str) -> str:
    missing = _MISSING.search(message)
    if missing:
        return f"the field {missing[1]} is missing"
    if message.startswith("Invalid enum value"):
        return f"{message.removeprefix('Invalid enum value ')}: expected one of {', '.join(ON_STORAGE_ERROR)}"
    if "timezone" in message:
        return "expected a date and time with a zone, such as 2027-01-31T12:00:00Z"
    if message.endswith("`array` of length >= 1"):
        return "expected at least one entry"
    expected = _EXPECTED.search(message)
    if expected:
        wanted = " or ".join(_WORDS.get(word, word) for word in expected[1].split(" | "))
        return f"expected {wanted}, not {_WORDS.get(expected[2], expected[2])}"
    return message[:1].lower() + message[1:]


def _hint(field: str, table: type[msgspec.Struct]) -> str:
    known = {
        name
        for one in vars(sys.modules[table.__module__]).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct)
        for name in one.__struct_fields__
    }
    close = difflib.get_close_matches(field, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
