"""Configurations of `envoyproxy/ratelimit`: read as they are, or refused with the place of the mistake."""

from pathlib import Path

import pytest

from sluicegate import RuleBook, RuleFileError
from sluicegate.infrastructure.ratelimit_config.reader import parse_configs, read_configs
from sluicegate.infrastructure.rules_file.reader import parse_rules

LIMIT = "rate_limit: {unit: minute, requests_per_unit: 1}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: expected a table with the fields domain and descriptors"),
        ("domain: ''", "c.yaml:1: domain: expected a domain that is not empty"),
        ("descriptors: []", "domain: expected a domain that is not empty"),
        ("domain: d\ndescriptors:\n  - key: ''", "c.yaml:3: descriptors[0].key: expected a key that is not empty"),
        ("domain: d\ndescriptors:\n  - value: v", "descriptors[0].key: expected a key that is not empty"),
        ("domain: d\ndescriptors:\n  - key: a*", "only a value may have a *"),
        (
            "domain: d\ndescriptors:\n  - {key: a}\n  - {key: a}",
            "c.yaml:4: descriptors[1]: the key 'a' with the value '' is",
        ),
        ("domain: d\ndescriptors: [{key: a, value: b}, {key: a, value: b}]", "the value 'b' is there twice"),
        ("domain: d\ndescriptors: [{key: a, value: b*}, {key: a, value: b*}]", "the value 'b*' is there twice"),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: eon, requests_per_unit: 1}}]",
            "descriptors[0].rate_limit.unit: 'eon': expected one of second, minute",
        ),
        ("domain: d\ndescriptors: [{key: a, rate_limit: {requests_per_unit: 1}}]", "unit: '': expected one of"),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true, unit: minute}}]",
            "rate_limit.unit: cannot be used with unlimited",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true, requests_per_unit: 1}}]",
            "rate_limit.requests_per_unit: cannot be used with unlimited",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1, name: n, replaces: [{name: n}]}}]",
            "replaces[0].name: 'n' is the limit's own name",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1, replaces: [{}]}}]",
            "replaces[0].name: expected a name that is not empty",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1, name: 'p\"x'}}]",
            "rate_limit.name: 'p\"x': expected up to 64 letters",
        ),
        ("domain: d\ndescriptors: [{key: a, share_threshold: true}]", "share_threshold: needs a value with a *"),
        ("domain: d\ndescriptors: [{key: a, quota_mode: true}]", "quota_mode: not supported"),
        ("domain: d\ndescriptors: [{kye: a}]", "descriptors[0].kye: unknown field; did you mean key?"),
        ("domain: d\ndescriptors: [a]", "descriptors[0]: expected a table, not text"),
        ("domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: -1}}]", "requests_per_unit"),
        ("domain: d\n  bad: indent", "not YAML"),
        ("domain: d\n1: 2", "1: unknown field"),
    ],
)
def test_a_mistake_is_refused_with_its_place(text: str, message: str) -> None:
    """The files that the reference refuses to load, and some more."""
    with pytest.raises(RuleFileError) as refused:
        parse_configs([("c.yaml", text)])
    assert message in str(refused.value)


def test_units_are_those_of_the_reference() -> None:
    """Upper or lower case; a month has 30 days and a year 365."""
    lengths = {
        "SECOND": 1,
        "minute": 60,
        "Hour": 3600,
        "day": 86_400,
        "week": 604_800,
        "month": 2_592_000,
        "year": 31_536_000,
    }
    tables = [f"  - {{key: {unit}, rate_limit: {{unit: {unit}, requests_per_unit: 5}}}}" for unit in lengths]
    book, _ = parse_configs([("c.yaml", "\n".join(["domain: d", "descriptors:", *tables]))])
    assert {rule.full_seconds for rules in book.values() for rule in rules} == set(lengths.values())
    assert {rule.max_tokens for rules in book.values() for rule in rules} == {5}


def test_any_window_and_a_burst_of_its_own() -> None:
    """Two fields of ours: `unit_multiplier` and `burst`."""
    text = "domain: d\ndescriptors: [{key: a, rate_limit: {unit: minute, requests_per_unit: 60, unit_multiplier: 10, burst: 12}}]"
    (rule,) = parse_configs([("c", text)])[0]["d:a"]
    assert (rule.max_tokens, rule.refill_rate) == (12, 6)


def test_numbers_and_words_are_texts_where_texts_are_expected() -> None:
    """`value: 10`, `value: 1.0` and `value: yes` mean what they look like."""
    text = "domain: d\ndescriptors:\n" + "".join(
        [f"  - {{key: k, value: {v}, {LIMIT}}}\n" for v in ("10", "1.0", "yes")]
    )
    book, _ = parse_configs([("c", text)])
    assert list(book) == ["d:k=10", "d:k=1.0", "d:k=yes"]


def test_what_has_no_effect_is_said() -> None:
    """Fields that the reference knows and that change nothing here are read, with a warning each."""
    text = f"domain: d\ndescriptors: [{{key: a, detailed_metric: true, value_to_metric: true, metadata: {{x: y}}, {LIMIT}}}]"
    _, warnings = parse_configs([("c", text)])
    assert [warning.partition(" has no effect")[0].rpartition(" ")[2] for warning in warnings] == [
        "detailed_metric",
        "value_to_metric",
        "metadata",
    ]


def test_a_directory_is_read_whole(tmp_path: Path) -> None:
    """Each file is a domain; one that is in two files is refused, and so is a directory without any."""
    with pytest.raises(RuleFileError, match=r"no file in it has a name that ends in \.yaml or \.yml"):
        read_configs(tmp_path)
    (tmp_path / "a.yaml").write_text(f"domain: a\ndescriptors: [{{key: k, {LIMIT}}}]")
    (tmp_path / "b.yml").write_text(f"domain: b\ndescriptors: [{{key: k, {LIMIT}}}]")
    (tmp_path / "notes.txt").write_text("not a configuration")
    assert list(read_configs(tmp_path)[0]) == ["a:k", "b:k"]
    (tmp_path / "c.yaml").write_text("domain: a")
    with pytest.raises(RuleFileError, match="the domain 'a' is in another file already"):
        read_configs(tmp_path)


def test_it_stands_beside_the_rules_of_a_rules_file() -> None:
    """Endpoints, lists and switches of the one, trees of the other; a change of a tree alone is a change."""
    rules = parse_rules('deny.descriptor = ["k=mallory"]\nunmatched = "9/minute"\n[endpoints]\n"GET /a" = "1/minute"\n')
    text = f"domain: d\ndescriptors: [{{key: k, {LIMIT}}}, {{key: free, rate_limit: {{unlimited: true}}}}]"
    book, _ = parse_configs([("c", text)], rules)
    assert isinstance(book, RuleBook)
    assert set(book) == {"GET /a", "*", "d:k"}
    assert len(book.deny) == 1
    other, _ = parse_configs([("c", text.replace("free", "gratis"))], rules)
    assert book.version != other.version
    assert book.version == parse_configs([("c", text)], rules)[0].version
