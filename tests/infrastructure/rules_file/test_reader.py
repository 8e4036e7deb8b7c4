"""What rules files mean."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import RateLimitRule, RateLimitScope
from sluicegate.domain.rules.rule_book_entries import KillSwitch, Listing, Override
from sluicegate.infrastructure.rules_file.reader import load_rules, parse_rules, read_rule_file
from sluicegate.infrastructure.rules_file.schema import RuleFileTable, json_schema
from sluicegate.infrastructure.rules_file.toml_positions import line_of

ROOT = Path(__file__).parents[3]
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)

TOML = """
unmatched = "600/minute per ip"

[kill_switch]
policies = ["search"]
until = 2027-01-01T00:00:00Z
reason = "incident 7"

[defaults]
on_storage_error = "local"
scope = "user"

[policies]
auth_login = "5/minute per ip"

[policies.search]
max_tokens = 20
refill_rate = 10
shadow = true
lease = 4
on_storage_error = "deny"
overrides = [
    { id = "partner", rate = "1000/minute", until = 2027-01-01T00:00:00Z, reason = "contract" },
    { id = "robot", enabled = false },
]

[endpoints]
"POST /sessions" = ["auth_login", "1000/hour per global"]
"GET /search" = "search"
"GET /export" = { rules = "search", cost = 5, replaces_code = true }
"GET /report" = { rate = "3/day", cost = 2, enabled = false }

[groups.exports]
rules = "20/day"
endpoints = ["GET /export", "GET /dump"]

[allow]
ip = ["10.0.0.0/8"]

[deny]
user = ["mallory", { id = "trudy", until = 2027-01-01T00:00:00Z }]
"""

YAML = """
unmatched: 600/minute per ip
kill_switch: {policies: [search], until: 2027-01-01T00:00:00Z, reason: incident 7}
defaults:
  on_storage_error: local
  scope: user
policies:
  auth_login: 5/minute per ip
  search:
    max_tokens: 20
    refill_rate: 10
    shadow: true
    lease: 4
    on_storage_error: deny
    overrides:
      - {id: partner, rate: 1000/minute, until: 2027-01-01T00:00:00Z, reason: contract}
      - {id: robot, enabled: false}
endpoints:
  POST /sessions: [auth_login, 1000/hour per global]
  GET /search: search
  GET /export: {rules: search, cost: 5, replaces_code: true}
  GET /report: {rate: 3/day, cost: 2, enabled: false}
groups:
  exports:
    rules: 20/day
    endpoints: [GET /export, GET /dump]
allow:
  ip: [10.0.0.0/8]
deny:
  user:
    - mallory
    - {id: trudy, until: "2027-01-01T00:00:00Z"}
"""


def test_a_whole_file_means_what_it_says() -> None:
    """Every kind of table becomes what it stands for."""
    book = parse_rules(TOML)
    login = RateLimitRule(5, 5, "ip", name="auth_login", on_storage_error="local")
    search = RateLimitRule(20, 10, "user", name="search", on_storage_error="deny", shadow=True, lease=4)
    total = RateLimitRule(1000, 1000 / 60, "global", on_storage_error="local")
    daily = RateLimitRule(20, 20 / 1440, "user", on_storage_error="local")
    assert dict(book) == {
        "POST /sessions": (login, total),
        "GET /search": (search,),
        "GET /export": (
            RateLimitRule(20, 10, "user", 5, name="search", on_storage_error="deny", shadow=True, lease=4),
            RateLimitRule(20, 20 / 1440, "user", 5, on_storage_error="local"),
        ),
        "GET /report": (RateLimitRule(3, 3 / 1440, "user", 2, enabled=False, on_storage_error="local"),),
        "GET /dump": (daily,),
        "*": (RateLimitRule(600, 600, "ip", on_storage_error="local"),),
    }
    assert [one.bucket for one in book.bound("GET /export")] == ["GET /export", "exports"]
    partner = RateLimitRule(1000, 1000, "user", name="search", on_storage_error="deny", shadow=True, lease=4)
    robot = RateLimitRule(20, 10, "user", enabled=False, name="search", on_storage_error="deny", shadow=True, lease=4)
    assert book.overrides == (
        Override(policy="search", identifier="partner", rule=partner, until=NEW_YEAR, reason="contract"),
        Override(policy="search", identifier="robot", rule=robot),
    )
    assert book.allow == (Listing(scope="ip", identifier="10.0.0.0/8"),)
    assert book.deny == (
        Listing(scope="user", identifier="mallory"),
        Listing(scope="user", identifier="trudy", until=NEW_YEAR),
    )
    assert book.kill_switches == (KillSwitch(policies=("search",), until=NEW_YEAR, reason="incident 7"),)
    assert book.replaces_code == {"GET /export"}


def test_toml_and_yaml_are_one_schema() -> None:
    """The same rules in both have the same version."""
    assert parse_rules(TOML).version == parse_rules(YAML, yaml=True).version


def test_a_simple_file_is_a_mapping_of_endpoints_to_rules(tmp_path: Path) -> None:
    """What `load_rules` returns can be given to a limiter as it is."""
    path = tmp_path / "rules.toml"
    path.write_text('[policies]\nlogin = "5/minute per ip"\n[endpoints]\n"POST /x" = "login"\n"GET /x" = "9/second"\n')
    rules = load_rules(path)
    assert rules == {
        "POST /x": (RateLimitRule(5, 5, RateLimitScope.IP, name="login"),),
        "GET /x": (RateLimitRule(9, 540, RateLimitScope.IP),),
    }
    (tmp_path / "rules.yml").write_text("endpoints:\n  POST /x: 5/minute\n")
    assert list(load_rules(str(tmp_path / "rules.yml"))) == ["POST /x"]


def test_the_version_follows_the_meaning() -> None:
    """Comments and layout do not change it; a limit, an order or a list does."""
    text = '[endpoints]\n"GET /a" = "5/minute"\n"GET /b" = "6/minute"\n'
    version = parse_rules(text).version
    assert parse_rules(f"# why\n{text}\n\n").version == version
    assert len(version) == 12
    for other in (
        text.replace("6/", "7/"),
        '[endpoints]\n"GET /b" = "6/minute"\n"GET /a" = "5/minute"\n',
        f'{text}[deny]\nip = ["10.0.0.1"]\n',
        f"kill_switch = true\n{text}",
    ):
        assert parse_rules(other).version != version


def test_the_default_lease_is_bounded_by_the_capacity() -> None:
    """A default that suits big buckets does not make small ones an error."""
    book = parse_rules('[defaults]\nlease = 50\n[endpoints]\na = "5/minute"\nb = "500/minute"\n')
    assert [rules[0].lease for rules in book.values()] == [5, 50]


def test_the_published_schema_is_current() -> None:
    """docs/reference/rules.schema.json is what `sluicegate rules schema` prints."""
    published = json.loads((ROOT / "docs/reference/rules.schema.json").read_text())
    assert published == json_schema()


def test_the_schema_names_every_field() -> None:
    """Every field of the tables is in the schema, and others are not allowed."""
    schema = json_schema()
    for name, table in schema["$defs"].items():
        assert table["additionalProperties"] is False, name
    assert set(schema["$defs"]["RuleFileTable"]["properties"]) == set(RuleFileTable.__struct_fields__)


def test_findings_find_their_lines_in_both_forms(tmp_path: Path) -> None:
    """A file that was read tells the line of any of its fields."""
    for name, text in (("r.toml", TOML), ("r.yaml", YAML)):
        (tmp_path / name).write_text(text)
        file = read_rule_file(tmp_path / name)
        lines = text.splitlines()
        for path, mark in (
            (("policies", "search", "overrides", 1), "robot"),
            (("endpoints", "GET /report"), "GET /report"),
            (("deny", "user", 1), "trudy"),
            (("groups", "exports", "endpoints"), "GET /dump"),
        ):
            assert mark in lines[file.line_of(path) - 1]
        assert file.line_of(()) == 0


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6)
VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


class TomlWriter:
    """Write values as TOML, one list item a line, and note on which line each field begins."""

    def __init__(self) -> None:
        self.text = ""
        self.lines: dict[tuple[str | int, ...], int] = {}

    def pair(self, key: str, value: object, path: tuple[str | int, ...]) -> None:
        """Write a key and its value."""
        self.lines[*path, key] = self.text.count("\n") + 1
        self.text += f"{json.dumps(key, ensure_ascii=False)} = "
        self.value(value, (*path, key))

    def value(self, value: object, path: tuple[str | int, ...]) -> None:
        """Write a value."""
        if isinstance(value, dict):
            self.text += "{"
            for n, (key, inner) in enumerate(value.items()):
                self.text += ", " if n else ""
                self.pair(key, inner, path)
            self.text += "}"
        elif isinstance(value, list):
            self.text += '[ # a comment with ] and " in it\n'
            for n, inner in enumerate(value):
                self.lines[*path, n] = self.text.count("\n") + 1
                self.value(inner, (*path, n))
                self.text += ",\n"
            self.text += "]"
        else:
            self.text += json.dumps(value, ensure_ascii=False)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([(), ("t",), ("t", "u"), ("a b",)]))
def test_the_locator_finds_every_field(document: dict[str, object], table: tuple[str, ...]) -> None:
    """In any document each field is found on the line where it was written."""
    writer = TomlWriter()
    if table:
        writer.text = f"[{'.'.join(map(json.dumps, table))}]\n"
    for key, value in document.items():
        writer.pair(key, value, table)
        writer.text += "\n"
    tomllib.loads(writer.text)
    for path, line in writer.lines.items():
        assert line_of(writer.text, path) == line, (path, writer.text)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("a", "b"), 1),
        (("s",), 2),
        (("x",), 6),
        (("t", 0), 7),
        (("t", 0, "n"), 8),
        (("t", 1, "deep", "n"), 11),
        (("t", 1, "in", "k"), 13),
        (("gone", "away"), 1),
    ],
)
def test_the_locator_knows_the_corners_of_toml(path: tuple[str | int, ...], line: int) -> None:
    """Dotted keys, strings over several lines, arrays of tables, and tables below them."""
    text = 'a.b = 1\ns = """\nx = 2\n[t]\n"""\nx = 3\n[[t]]\nn = 1\n[[t]]\n[t.deep]\nn = 2\n[ t . \'in\' ]\nk = 4\n'
    assert line_of(text, path) == line


@pytest.mark.parametrize(
    ("name", "text"),
    [("rules.toml", '[endpoints]\n"GET /" = "5/minute"\n'), ("rules.yaml", "endpoints: {GET /: 5/minute}")],
)
def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path, name: str, text: str) -> None:
    """Some editors write one."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8-sig")
    path.chmod(0o644)
    assert [str(rule.max_tokens) for rule in load_rules(path).rules] == ["5"]
