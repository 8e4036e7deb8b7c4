"""Read configurations of `envoyproxy/ratelimit`: one file, or the files of a directory. One mistake refuses all of them."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import RuleFileError
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.descriptor_book import DescriptorBook
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.infrastructure.ratelimit_config.interpreter import Interpreted, interpret
from sluicegate.infrastructure.ratelimit_config.schema import DomainTable
from sluicegate.infrastructure.rules_file.error_messages import locate_error
from sluicegate.infrastructure.rules_file.field_path import FieldError, FieldPath
from sluicegate.infrastructure.rules_file.reader import naming_mistakes, read_text
from sluicegate.infrastructure.rules_file.yaml_reader import read_yaml


def read_configs(path: str | Path, book: RuleBook | None = None) -> tuple[DescriptorBook, list[str]]:
    """Read a configuration, or all of a directory's files whose names end in `.yaml` or `.yml`.

    Args:
        path: The file or directory.
        book: Rules of endpoints beside the descriptors; None: there are none.

    Returns:
        The rules, and what was read but has no effect, one line each.

    Raises:
        RuleFileError: If a file cannot be read or something in it is invalid; the message names file, line and field.
    """
    files = config_files(path)
    warnings: list[str] = []
    texts: list[tuple[str, str]] = []
    for file in files:
        text, doubts = read_text(str(file))
        texts.append((str(file), text))
        warnings += doubts
    descriptors = parse_configs(texts, book)
    return descriptors[0], [*warnings, *descriptors[1]]


def config_files(path: str | Path) -> list[Path]:
    """Return the files that a path stands for, in the order of their names.

    Raises:
        RuleFileError: If it is a directory without any.
    """
    place = Path(path)
    if not place.is_dir():
        return [place]
    found = sorted(file for file in place.iterdir() if file.suffix.lower() in {".yaml", ".yml"})
    if not found:
        raise RuleFileError(str(path), "no file in it has a name that ends in .yaml or .yml")
    return found


def parse_configs(texts: Iterable[tuple[str, str]], book: RuleBook | None = None) -> tuple[DescriptorBook, list[str]]:
    """Parse the texts of some configurations.

    Args:
        texts: Names for error messages, and texts.
        book: See `read_configs`.

    Raises:
        RuleFileError: If something is invalid.
    """
    by_domain: dict[str, Interpreted] = {}
    for name, text in texts:
        one = _parse(name, text)
        if one.domain in by_domain:
            raise RuleFileError(name, f"the domain {one.domain!r:.80} is in another file already", field="domain")
        by_domain[one.domain] = one
    rules = {endpoint: rule for one in by_domain.values() for endpoint, rule in one.rules.items()}
    domains = {domain: one.root for domain, one in by_domain.items()}
    warnings = [warning for one in by_domain.values() for warning in one.warnings]
    return DescriptorBook(book or RuleBook({}), domains, rules), warnings


def _parse(name: str, text: str) -> Interpreted:
    lines: dict[FieldPath, int] = {}
    with naming_mistakes(name, lambda path: _line(path, lines)):
        document, lines = read_yaml(text, texts=True)
        one = _interpret(document)
        CompiledRules(RuleBook(one.rules), KeyFormat())  # finds mistakes that only show once the rules are compiled
    return one


def _line(path: FieldPath, lines: dict[FieldPath, int]) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def _interpret(document: object) -> Interpreted:
    if not document:
        raise FieldError((), "expected a table with the fields domain and descriptors")
    try:
        return interpret(msgspec.convert(document, DomainTable, strict=False))
    except msgspec.ValidationError as error:
        path, message = locate_error(document, error, DomainTable)
        raise FieldError(path, message) from None
