"""Read rules files, TOML or YAML. A file with a mistake is refused as a whole."""

import os
import re
import stat
import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError, RuleFileError
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.infrastructure.rules_file.error_messages import locate_error
from sluicegate.infrastructure.rules_file.field_path import FieldError, FieldPath, format_path
from sluicegate.infrastructure.rules_file.interpreter import to_rule_book
from sluicegate.infrastructure.rules_file.schema import RuleFileTable
from sluicegate.infrastructure.rules_file.toml_positions import line_of
from sluicegate.infrastructure.rules_file.yaml_reader import YamlError, read_yaml

MAX_FILE_BYTES = 16 * 1024 * 1024
"""The largest rules file that is read; it has room for several hundred thousand addresses."""

_CHUNK_BYTES = 1024 * 1024
_TOML_LOCATION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class RuleFile(msgspec.Struct, frozen=True):
    """A rules file that was read.

    Args:
        rules: Its rules.
        warnings: Doubts about the file itself, such as its permissions; one line each.
        text: The text of the file.
        yaml: Whether it is YAML.
    """

    rules: RuleBook
    warnings: tuple[str, ...]
    text: str
    yaml: bool

    def line_of(self, path: FieldPath) -> int:
        """Return the line, from 1, on which a field begins; 0 for the file as a whole."""
        return _line(self.text, path, read_yaml(self.text)[1] if self.yaml else None)


def load_rules(path: str | Path) -> RuleBook:
    """Read a rules file.

    Args:
        path: A file as described in docs/reference/rules-file.md: YAML if its name ends in `.yaml` or `.yml`, else TOML.

    Returns:
        Its rules: a mapping from endpoint to rules, in the file's order, with the file's lists, overrides and switches.

    Raises:
        RuleFileError: If the file cannot be read or something in it is invalid; the message names file, line and field.
    """
    return read_rule_file(path).rules


def read_rule_file(path: str | Path) -> RuleFile:
    """Read a rules file, and keep its text and the warnings about it.

    Args:
        path: The file; YAML if its name ends in `.yaml` or `.yml`, else TOML.

    Raises:
        RuleFileError: If the file cannot be read or something in it is invalid; the message names file, line and field.
    """
    name = str(path)
    text, warnings = read_text(name)
    yaml = Path(path).suffix.lower() in {".yaml", ".yml"}
    return RuleFile(parse_rules(text, name=name, yaml=yaml), warnings, text, yaml)


def read_text(name: str) -> tuple[str, tuple[str, ...]]:
    """Read the text of a file that rules are in, and the warnings about it.

    Args:
        name: The file's path.

    Raises:
        RuleFileError: If it cannot be read, is not UTF-8, too long, or anybody may write to it.
    """
    data, warnings = _read(name)
    try:
        return data.decode("utf-8-sig"), warnings  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise RuleFileError(name, "not UTF-8", line=data.count(b"\n", 0, error.start) + 1) from None


def parse_rules(text: str, *, name: str = "rules", yaml: bool = False) -> RuleBook:
    """Parse the text of a rules file.

    Args:
        text: TOML or YAML.
        name: The file's name for error messages.
        yaml: Whether it is YAML.

    Raises:
        RuleFileError: If something in it is invalid; the message names file, line and field.
    """
    lines: dict[FieldPath, int] | None = None
    with naming_mistakes(name, lambda path: _line(text, path, lines)):
        if yaml:
            document, lines = read_yaml(text)
        else:
            document = _parse_toml(text, name)
        book = _interpret(document)
        CompiledRules(book, KeyFormat())  # finds mistakes that only show once the rules are compiled
    return book


@contextmanager
def naming_mistakes(name: str, line_of_field: Callable[[FieldPath], int]) -> Generator[None]:
    """Raise whatever is found wrong in a file as an error that names the file, and the line and field where they are known.

    Args:
        name: The file's name.
        line_of_field: Returns the line of a field, from 1; 0: it is not known.

    Raises:
        RuleFileError: If the body finds something wrong.
    """
    try:
        yield
    except YamlError as error:
        raise RuleFileError(name, error.message, line=error.line) from None
    except FieldError as error:
        line = line_of_field(error.path)
        raise RuleFileError(name, error.message, line=line, field=format_path(error.path)) from None
    except RuleFileError:
        raise
    except InvalidInputError as error:
        raise RuleFileError(name, str(error)) from None
    except RecursionError:
        raise RuleFileError(name, "nested too deeply") from None


def _read(name: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a file's bytes and warnings. Only the open file is used, so that it cannot be replaced between two checks."""
    if "\0" in name:
        raise RuleFileError(name, "cannot be read: no file has such a name")
    try:
        # Without O_NONBLOCK, opening a named pipe would wait until somebody writes to it.
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            before = os.fstat(descriptor)
            warnings = _check_status(name, before)
            data = b""
            while len(data) <= MAX_FILE_BYTES and (chunk := os.read(descriptor, _CHUNK_BYTES)):
                data += chunk
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RuleFileError(name, f"cannot be read: {error.strerror or error}") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise RuleFileError(name, "was being written while it was read")
    return data, warnings


def _check_status(name: str, status: os.stat_result) -> tuple[str, ...]:
    if not stat.S_ISREG(status.st_mode):
        raise RuleFileError(name, "not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise RuleFileError(name, f"longer than {MAX_FILE_BYTES} bytes")
    if os.name != "posix":
        return ()
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        raise RuleFileError(name, f"anybody may write to it (mode {mode:04o}); remove that permission: chmod o-w")
    if mode & stat.S_IWGRP:
        return (f"{name}: its group may write to it (mode {mode:04o})",)
    return ()


def _parse_toml(text: str, name: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and int's refusal of thousands of digits
        message = str(error)
        location = _TOML_LOCATION.search(message)
        line = 0
        if location:
            line = int(location[1]) if location[1] else text.count("\n") + 1
            message = message[: location.start()]
        if message.startswith("Exceeds the limit"):
            message = "a number of thousands of digits"
        raise RuleFileError(name, f"not TOML: {message}", line=line) from None


def _interpret(document: object) -> RuleBook:
    if not document:
        raise FieldError((), "holds nothing; expected at least one table, such as endpoints")
    try:
        return to_rule_book(msgspec.convert(document, RuleFileTable))
    except msgspec.ValidationError as error:
        path, message = locate_error(document, error)
        raise FieldError(path, message) from None


def _line(text: str, path: FieldPath, lines: dict[FieldPath, int] | None) -> int:
    if not path:
        return 0
    if lines is None:
        return line_of(text, path)
    while path not in lines:
        path = path[:-1]
    return lines[path]
