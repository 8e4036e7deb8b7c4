"""The commands `sluicegate rules …`, as a user calls them."""

import json
import sys
from pathlib import Path

import pytest

from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.infrastructure.rules_file.schema import json_schema
from sluicegate.presentation.cli.main import main

RULES = """\
[policies]
login = "5/minute per ip"
search = { rate = "10/minute per user", overrides = [{ id = "partner", rate = "1000/minute" }] }

[endpoints]
"POST /sessions" = ["login", "1000/hour per global"]
"GET /items/{id}" = { rules = "search", cost = 2 }

[groups.exports]
rules = { rate = "20/day per user", shadow = true }
endpoints = ["GET /items/{id}", "GET /export"]

[deny]
user = ["mallory"]
"""

APP = """\
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

app = FastAPI(openapi_url=None)
router = APIRouter(prefix="/v1")
inner = APIRouter(prefix="/inner")


@app.post("/sessions")
def sessions(): ...


@router.get("/bare")
def bare(): ...


@inner.websocket("/feed/{name}")
async def inner_feed(websocket: WebSocket): ...


@inner.delete("/deep/{id}")
def deep(id: int): ...


@app.get("/items/{item_id}")
def item(item_id: str): ...


@app.websocket("/feed")
async def feed(websocket: WebSocket): ...


router.include_router(inner)
app.include_router(router, prefix="/api")
app.mount("/sub", Starlette(routes=[Route("/page", bare), Mount("/more", routes=[Route("/x", bare, methods=["PUT"])])]))
app.mount("/static", StaticFiles(directory="."))
nothing = 5
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rules file in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLUICEGATE_RULES", raising=False)
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    path.chmod(0o644)
    return path


def test_lint_says_that_good_rules_have_no_problems(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No findings: one line, status 0; as JSON an empty list."""
    assert main(["rules", "lint", "rules.toml"]) == 0
    assert capsys.readouterr().out == "no problems\n"
    assert main(["rules", "lint", "rules.toml", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_lint_finds_doubts_and_mistakes(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings: status 1; errors: 2; each on a line of its own with place and hint."""
    rules.write_text(RULES.replace('"login", "1000', '"1000'))
    rules.chmod(0o664)
    assert main(["rules", "lint", "rules.toml"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        (
            'rules.toml:6: warning: endpoints."POST /sessions": looks like a login, and no rule counts addresses: one client may'
            ' try every account (add a rule such as "5/minute per ip")'
        ),
        (
            "rules.toml:2: warning: policies.login: no endpoint, group or unmatched rule uses it"
            " (remove it, unless code refers to it)"
        ),
        "rules.toml: warning: its group may write to it (mode 0664)",
    ]
    Path("bad.yaml").write_text("policies:\n  a: 5 per\n")
    assert main(["rules", "lint", "rules.toml", "bad.yaml"]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("bad.yaml:2: error: policies.a: rate='5 per': expected")
    assert main(["rules", "lint", "bad.yaml", "--json"]) == 2
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["file"], report["line"], report["field"], report["severity"]) == (
        "bad.yaml",
        2,
        "policies.a",
        "error",
    )


def test_show_prints_the_effective_rules_and_their_version(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON; the version is the one that the limiter reports."""
    version = load_rules(rules).version
    assert main(["rules", "show", "rules.toml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"rules version {version}",
        "POST /sessions",
        "  login: 5 at once and 5 a minute per ip",
        "  global-1000-3600s: 1000 at once and 16.6667 a minute per global",
        "GET /items/{id}",
        "  search: 10 at once and 10 a minute per user, cost 2",
        "  user-20-86400s: 20 at once and 0.0138889 a minute per user, cost 2, shadow, shared by the group exports",
        "GET /export",
        "  user-20-86400s: 20 at once and 0.0138889 a minute per user, shadow, shared by the group exports",
        "override for user partner: search: 1000 at once and 1000 a minute per user",
        "deny list: 1 entries",
    ]
    assert main(["rules", "show", "rules.toml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["rules_version"] == version
    assert shown["overrides"][0]["identifier"] == "partner"


def test_show_is_loud_about_kill_switches(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who looks at the rules sees that they do not hold."""
    rules.write_text(f"kill_switch = true\n{RULES}")
    assert main(["rules", "show", "rules.toml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "SWITCHED OFF: everything"


def test_explain_says_which_rules_apply_and_why(
    rules: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, with keys and limits; the file may come from the environment, and the key prefix does."""
    monkeypatch.setenv("SLUICEGATE_RULES", "rules.toml")
    monkeypatch.setenv("SLUICEGATE_KEY_PREFIX", "rl")
    assert main(["rules", "explain", "GET /items/7", "--user", "partner", "--ip", "10.0.0.1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "GET /items/7, matched by GET /items/{id}",
        "checked: all of the rules that decide must have the tokens",
        "1. search: 1000 at once and 1000 a minute per user, cost 2: decides",
        "   key rl:user:partner:GET /items/{id}",
        "   because the endpoint GET /items/{id} names it",
        "   because an override is for partner",
        "2. user-20-86400s: 20 at once and 0.0138889 a minute per user, cost 2: watches",
        "   key rl:user:partner:exports",
        "   because the endpoint is in the group exports",
        f"rules version {load_rules(rules).version}",
    ]


def test_explain_as_json_and_its_status(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Denied is status 1; no rule is not."""
    arguments = ["rules", "explain", "--rules", "rules.toml", "--json"]
    assert main([*arguments, "POST /sessions", "--id", "user=mallory", "--ip", "::1"]) == 1
    explained = json.loads(capsys.readouterr().out)
    assert (explained["outcome"], explained["why"]) == ("denied", "the deny list has user mallory")
    assert [rule["effect"] for rule in explained["rules"]] == ["overruled", "overruled"]
    assert main([*arguments, "GET /nowhere", "--ip", "::1"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "no_rule"
    assert main([*arguments, "POST /sessions", "--ip", "::1", "--cost", "6"]) == 1


def test_explain_counts_ipv6_clients_as_the_middleware_does(
    rules: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their /64, or by as many bits as the middleware was told; on a cluster the key has its hash tag."""
    arguments = ["rules", "explain", "POST /sessions", "--rules", "rules.toml", "--ip", "2001:db8::7"]
    assert main(arguments) == 0
    assert "   key rate_limit:ip:2001%3Adb8%3A%3A/64:POST /sessions" in capsys.readouterr().out
    monkeypatch.setenv("SLUICEGATE_STORAGE_URL", "redis+cluster://127.0.0.1:7000")
    assert main(arguments) == 0
    assert "   key rate_limit:ip:{2001%3Adb8%3A%3A/64}:POST /sessions" in capsys.readouterr().out
    monkeypatch.delenv("SLUICEGATE_STORAGE_URL")
    assert main([*arguments, "--ipv6-prefix", "128"]) == 0
    assert "   key rate_limit:ip:2001%3Adb8%3A%3A7:POST /sessions" in capsys.readouterr().out


def test_routes_without_a_rule(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A FastAPI application's routes, routers and websockets included; with a rule for unmatched ones they are covered."""
    Path("routes_of_a_test.py").write_text(APP)
    arguments = ["rules", "routes", "routes_of_a_test:app", "--rules", "rules.toml"]
    try:
        assert main(arguments) == 1
        without = capsys.readouterr().out.splitlines()
        assert sorted(without) == [
            "* /static/{path:path}",
            "DELETE /api/v1/inner/deep/{id}",
            "GET /api/v1/bare",
            "GET /sub/page",
            "PUT /sub/more/x",
            "WEBSOCKET /api/v1/inner/feed/{name}",
            "WEBSOCKET /feed",
        ]
        assert main([*arguments, "--json"]) == 1
        assert json.loads(capsys.readouterr().out) == {
            "routes": 9,
            "without_rule": without,
            "unmatched_rule": False,
        }
        rules.write_text(f'unmatched = "9/second"\n{RULES}')
        assert main(arguments) == 0
        rules.write_text(f'{RULES}\n[endpoints."/{{rest:path}}"]\nrate = "9/second"\n')
        assert main(arguments) == 0
        assert main(["rules", "routes", "routes_of_a_test:nothing", "--rules", "rules.toml"]) == 2
        assert "app=int: has no routes" in capsys.readouterr().err
    finally:
        sys.modules.pop("routes_of_a_test", None)


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For editors, to a file of their own."""
    assert main(["rules", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show"], "rules: expected a FILE, or its path in SLUICEGATE_RULES"),
        (["show", "no.toml"], "no.toml: cannot be read: No such file or directory"),
        (
            ["explain", "GET /x", "--rules", "rules.toml"],
            "identifier: expected one of --ip, --user or --id SCOPE=IDENTIFIER",
        ),
        (["explain", "GET /x", "--id", "user", "--rules", "rules.toml"], "id='user': expected SCOPE=IDENTIFIER"),
        (
            ["explain", "GET /x", "--ip", "::1", "--id", "ip=b", "--rules", "rules.toml"],
            "identifier: a scope was given twice",
        ),
        (["explain", "GET /x", "--ip", "a", "--rules", "rules.toml"], "ip='a': expected an address"),
        (["explain", "GET /export", "--ip", "::1", "--rules", "rules.toml"], "has no entry for the scope 'user'"),
        (["explain", "GET /x", "--ip", "::1", "--cost", "-1", "--rules", "rules.toml"], "cost=-1: expected 0"),
        (["routes", "nowhere", "--rules", "rules.toml"], "app='nowhere': expected module:attribute, such as main:app"),
        (["routes", "not_there_at_all:app", "--rules", "rules.toml"], "importing not_there_at_all failed"),
        (["routes", "json:app", "--rules", "rules.toml"], "app='json:app': json has no app"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    rules: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """On standard error, and nothing on standard output."""
    assert main(["rules", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert complaint in printed.err
    assert len(printed.err.splitlines()) == 1
