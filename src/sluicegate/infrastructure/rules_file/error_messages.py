"""Where in a document a type is wrong, and how to say it to somebody who writes rules, not Python.

`msgspec` names the place but for the keys of mappings, for which it writes `[...]`. They are found by asking again with
less and less of the document.
"""

import difflib
import re
from typing import Any, cast

import msgspec

from sluicegate.domain.rule import ON_STORAGE_ERROR
from sluicegate.infrastructure.rules_file import schema as rule_schema
from sluicegate.infrastructure.rules_file.schema import RuleFileTable
from sluicegate.infrastructure.rules_file.toml_positions import FieldPath

_PLACE = re.compile(r" - at `\$(.*)`$", re.DOTALL)
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


def find_fault(document: object, error: msgspec.ValidationError) -> tuple[FieldPath, str]:
    """Return where a document is wrong, and what to say.

    Args:
        document: What could not be converted to a `RuleFileTable`.
        error: What `msgspec` said.
    """
    path: FieldPath = ()
    steps, message = _split(error)
    while len(path) < len(steps):
        step = steps[len(path)]
        if step is None:
            step = _guilty_key(document, path, (steps, message))
            if step is None:
                break
        path = (*path, step)
    unknown = _UNKNOWN.search(message)
    if unknown:
        return (*path, unknown[1]), f"unknown field{_hint(unknown[1])}"
    return path, _plain(message)


def _split(error: msgspec.ValidationError) -> tuple[list[str | int | None], str]:
    """Return the steps to the place, None for a key that is not told, and the message without it."""
    text = str(error)
    place = _PLACE.search(text)
    if place is None:
        return [], text
    steps: list[str | int | None] = []
    for field, position in _STEP.findall(place[1]):
        steps.append(field or (None if position == "..." else int(position)))
    return steps, text[: place.start()]


def _guilty_key(document: object, path: FieldPath, fault: tuple[list[str | int | None], str]) -> str | None:
    mapping = _at(document, path)
    for key in mapping:
        try:
            msgspec.convert(_only(document, path, key), RuleFileTable)
        except msgspec.ValidationError as error:
            if _split(error) == fault:
                return key
    return None


def _at(document: Any, path: FieldPath) -> dict[str, object]:  # noqa: ANN401 - whatever the file holds
    for step in path:
        document = document[step]
    return cast("dict[str, object]", document)


def _only(document: Any, path: FieldPath, key: str) -> object:  # noqa: ANN401 - the same
    """Return the document with nothing but one key in the mapping at a path."""
    if not path:
        return {key: document[key]}
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return [*document[:step], _only(document[step], rest, key), *document[step + 1 :]]
    return {**document, step: _only(document[step], rest, key)}


def _plain(message: str) -> str:
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


def _hint(field: str) -> str:
    known = {
        name
        for table in vars(rule_schema).values()
        if isinstance(table, type) and issubclass(table, msgspec.Struct)
        for name in table.__struct_fields__
    }
    close = difflib.get_close_matches(field, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
