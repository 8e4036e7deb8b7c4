"""Read YAML as plain data: no tags, anchors, aliases or repeated keys, and `no` does not mean false.

Scalars without quotes follow the JSON schema of YAML 1.2 (section 10.2): `null`, `true` and `false` in lower case, and
numbers; everything else is text. The document is built from PyYAML's events, so no Python object is constructed that the
file does not spell out.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.rules_file.field_path import FieldPath

_MAX_DEPTH = 16
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?")
_MAX_DIGITS = 400
_CONSTANTS: dict[str, object] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
    ".nan": float("nan"),
    ".inf": float("inf"),
    "-.inf": float("-inf"),
}


class YamlError(Exception):
    """A document is not YAML, or uses a part of YAML that rules files may not use.

    Args:
        message: What is wrong.
        line: The line, from 1; 0 if it is not known.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def read_yaml(text: str, *, texts: bool = False) -> tuple[object, dict[FieldPath, int]]:
    """Read one document.

    Args:
        text: The document.
        texts: Whether scalars without quotes are text, whatever they look like.

    Returns:
        Its content, and the line of each field, from 1.

    Raises:
        YamlError: If the text is not such YAML.
        InvalidInputError: If PyYAML is not installed.
    """
    yaml = _yaml()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(iter(yaml.parse(text, Loader=loader)), texts=texts).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = " ".join(str(getattr(error, "problem", None) or error).split())
        # At the end of a file PyYAML names the line after the last.
        raise YamlError(f"not YAML: {message}", min(mark.line, text.count("\n")) + 1 if mark else 0) from None


class _Builder:
    """Build plain data from PyYAML's events, and record the line of each field.

    Args:
        events: PyYAML's events.
        texts: Whether scalars without quotes are text.
    """

    def __init__(self, events: Iterator[Any], *, texts: bool) -> None:
        self._events = events
        self._texts = texts
        self._lines: dict[FieldPath, int] = {}

    def document(self) -> tuple[object, dict[FieldPath, int]]:
        content: object = None
        documents = 0
        for event in self._events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    raise YamlError("a second document begins here; expected one", event.start_mark.line + 1)
                content = self._node(next(self._events), ())
        return content, self._lines

    def _node(self, event: Any, path: FieldPath) -> object:  # noqa: ANN401 - PyYAML ships no types
        line = event.start_mark.line + 1
        self._lines.setdefault(path, line)
        self._require_plain(event, line)
        kind = type(event).__name__
        if kind == "ScalarEvent":
            return _scalar(event.value) if event.implicit[0] and not self._texts else event.value
        if len(path) >= _MAX_DEPTH:
            raise YamlError(f"nested more than {_MAX_DEPTH} deep", line)
        if kind == "SequenceStartEvent":
            return self._sequence(path)
        return self._mapping(path)

    def _sequence(self, path: FieldPath) -> list[object]:
        items: list[object] = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: FieldPath) -> dict[str, object]:
        content: dict[str, object] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            line = event.start_mark.line + 1
            self._require_plain(event, line)
            if type(event).__name__ != "ScalarEvent":
                raise YamlError("a key that is not text", line)
            key = str(event.value)
            if key in content:
                raise YamlError(f"the key {key!r:.80} occurs twice", line)
            self._lines[*path, key] = line
            content[key] = self._node(next(self._events), (*path, key))
        return content

    def _require_plain(self, event: Any, line: int) -> None:  # noqa: ANN401 - PyYAML ships no types
        if getattr(event, "anchor", None) is not None:
            what = "alias" if type(event).__name__ == "AliasEvent" else "anchor"
            raise YamlError(f"the {what} {event.anchor!r:.80}; anchors and aliases are not allowed", line)
        if getattr(event, "tag", None) is not None:
            raise YamlError(f"the tag {event.tag!r:.80}; tags are not allowed", line)


def _scalar(text: str) -> object:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _yaml() -> Any:  # noqa: ANN401 - PyYAML ships no types
    try:
        return import_module("yaml")
    except ImportError:
        raise InvalidInputError("YAML needs PyYAML: install sluicegate[rules]") from None
