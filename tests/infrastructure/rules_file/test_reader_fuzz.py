"""Whatever a rules file holds: rules, or one error; never a crash, never half of it."""

import json
import string

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.errors import RuleFileError
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.infrastructure.rules_file.schema import json_schema

SEEDS = [
    (
        '[policies]\na = "5/minute per ip"\n[policies.b]\nmax_tokens = 5\nrefill_rate = 1.5\noverrides = [{ id = "10.0.0.0/8",'
        ' rate = "9/day", until = 2027-01-01T00:00:00Z }]\n[endpoints]\n"GET /{id}" = ["a", "b"]\n"*" = { rules = "a", cost = 2 }'
        '\n[groups.g]\nrules = "7/hour"\nendpoints = ["x"]\n[allow]\nip = ["::1"]\n[deny]\nuser = ["m"]\n'
    ),
    (
        "kill_switch: {until: 2027-01-01T00:00:00Z, policies: [a]}\nunmatched: 9/second\npolicies:\n  a: 5/minute\nendpoints:\n"
        "  GET /x: [a, {rate: 1/day, scope: tenant, shadow: true}]\ndeny:\n  ip: [10.0.0.0/8, {id: '::1', reason: x}]\n"
    ),
]
FIELDS = sorted({field for table in json_schema()["$defs"].values() for field in table["properties"]})
VALUES = ["5/minute", "1/day burst 3 per user", "10.0.0.0/8", "::1", "GET /{x}", "GET /{x", "2027-01-01T00:00:00Z", "*"]
WORDS = [*FIELDS, *VALUES, "ip", "user", "global", "a", "deny", "true"]
SCALARS = (
    st.sampled_from(WORDS)
    | st.text(max_size=8)
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.booleans()
    | st.none()
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=30,
)


def must_be_rules_or_an_error(text: str, *, yaml: bool) -> None:
    """Read a text; anything but a book or a one-line `RuleFileError` fails."""
    refused: RuleFileError | None = None
    try:
        book = parse_rules(text, name="f", yaml=yaml)
    except RuleFileError as error:
        refused = error
    if refused is None:
        assert isinstance(book, RuleBook)
        assert len(book.version) == 12
        return
    assert str(refused).startswith("f:")
    assert str(refused).isprintable()
    assert 0 <= refused.line <= text.count("\n") + 1


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a good file with some cuts, repetitions and insertions."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        patch = draw(
            st.sampled_from(["", text[start:end] * 2, *WORDS]) | st.text(st.sampled_from(string.printable), max_size=6)
        )
        text = text[:start] + patch + text[end:]
    return text


@given(mutated(), st.booleans())
def test_damaged_files(text: str, yaml: bool) -> None:
    """A good file with a few changes."""
    must_be_rules_or_an_error(text, yaml=yaml)


@given(st.text(), st.booleans())
def test_any_text(text: str, yaml: bool) -> None:
    """Text that means nothing."""
    must_be_rules_or_an_error(text, yaml=yaml)


@given(DOCUMENTS)
def test_any_document(document: object) -> None:
    """Documents with the right words in the wrong places. JSON is YAML."""
    must_be_rules_or_an_error(json.dumps(document), yaml=True)
    must_be_rules_or_an_error(json.dumps(document, ensure_ascii=False, indent=1), yaml=True)


@given(st.dictionaries(st.sampled_from(WORDS), DOCUMENTS, max_size=4))
def test_any_tables(document: dict[str, object]) -> None:
    """The same as inline tables of TOML, as far as it can be written so."""
    text = "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in document.items())
    must_be_rules_or_an_error(text, yaml=False)


def toml(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return "''" if value is None else json.dumps(value)
