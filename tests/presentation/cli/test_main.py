"""The command `sluicegate`, as its users meet it."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import sluicegate
from sluicegate.presentation.cli.main import main
from support.access_logs import combined_line, generated_lines
from support.redis_servers import RedisServer

COMMAND = Path(sys.executable).with_name("sluicegate")
SETTINGS = ("STORAGE_URL", "RULES", "DEADLINE_MS", "ON_STORAGE_ERROR", "KEY_PREFIX")
LOG_LINE = '192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5\n'

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment of whoever runs the tests out of them."""
    for name in SETTINGS:
        monkeypatch.delenv(f"SLUICEGATE_{name}", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process and return its exit status, output and complaints."""

    def run_main(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        return status, *capsys.readouterr()

    return run_main


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """Write a rules file and return its path."""
    path = tmp_path / "rules.toml"
    path.write_text('[endpoints]\n"POST /login" = "2/minute"\n"GET /a" = ["1/minute", "9/hour per global"]\n')
    return str(path)


def one_line(complaint: str) -> str:
    """Return a complaint, which is one line that begins with the command's name."""
    assert complaint.startswith("sluicegate: ")
    assert complaint.count("\n") == 1
    return complaint


def test_check_allows_with_status_0(run: Run, rules: str) -> None:
    """A cost within the bucket passes, and the answer says what is left."""
    assert run("check", "POST /login", "192.0.2.1", "--rules", rules) == (
        0,
        "allowed: 1 of 2 left, full again in 30 s\n",
        "",
    )


def test_check_denies_with_status_1(run: Run, rules: str) -> None:
    """A cost that can never fit is denied."""
    assert run("check", "POST /login", "192.0.2.1", "--cost", "3", "--rules", rules) == (
        1,
        "denied: no wait would help, the bucket holds 2\n",
        "",
    )


def test_check_answers_in_json(run: Run, rules: str) -> None:
    """All of the result, with null for a wait that never ends."""
    status, output, _ = run("check", "POST /login", "192.0.2.1", "--cost=3", "--rules", rules, "--json")
    assert status == 1
    assert json.loads(output) == {
        "endpoint": "POST /login",
        "identifier": "192.0.2.1",
        "allowed": False,
        "retry_after": None,
        "remaining": 0,
        "limit": 2,
        "reset_seconds": 0,
        "storage_failure": None,
    }


def test_an_endpoint_without_a_rule_is_allowed_and_said_to_have_none(run: Run, rules: str) -> None:
    """A misspelt endpoint shows."""
    status, output, _ = run("check", "POST /logon", "192.0.2.1", "--rules", rules)
    assert (status, output) == (0, "allowed: no rule names the endpoint 'POST /logon'\n")
    status, output, complaint = run("remaining", "POST /logon", "192.0.2.1", "--rules", rules)
    assert (status, output) == (1, "")
    assert "'POST /logon'; --app MODULE:APP finds those that code declares" in one_line(complaint)


def test_the_rules_file_may_come_from_the_environment(run: Run, rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--rules` wins over SLUICEGATE_RULES."""
    monkeypatch.setenv("SLUICEGATE_RULES", rules)
    assert run("remaining", "POST /login", "192.0.2.1")[:2] == (0, "2 of 2 left\n")
    status, _, complaint = run("remaining", "POST /login", "192.0.2.1", "--rules", "/nowhere")
    assert status == 2
    assert "/nowhere" in one_line(complaint)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "POST /login", "192.0.2.1"),
        ("rules", "explain", "POST /login", "--ip", "192.0.2.1"),
        ("storage", "info"),
    ],
)
def test_a_variable_that_is_no_setting_is_told(
    run: Run, rules: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever misspells a setting would think that it holds."""
    monkeypatch.setenv("SLUICEGATE_RULES", rules)
    monkeypatch.setenv("SLUICEGATE_STORAG_URL", "redis://127.0.0.1")
    assert "SLUICEGATE_STORAG_URL is no setting, and changes nothing; did you mean" in run(*arguments)[2]


def test_a_command_that_is_misspelt(run: Run) -> None:
    """The nearest one is named, in one line."""
    status, _, complaint = run("chek")
    assert status == 2
    assert one_line(complaint) == "sluicegate: No such command 'chek'. Did you mean 'check'? Try 'sluicegate --help'.\n"


def test_check_remaining_and_reset_work_on_a_shared_storage(
    run: Run, rules: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Redis the buckets outlive the command: the third check is denied, and after a reset the bucket is full."""
    monkeypatch.setenv("SLUICEGATE_STORAGE_URL", redis_server.url)
    monkeypatch.setenv("SLUICEGATE_DEADLINE_MS", "10000")
    monkeypatch.setenv("SLUICEGATE_RULES", rules)
    asked = ("POST /login", "192.0.2.1")
    assert [run("check", *asked)[0] for _ in range(3)] == [0, 0, 1]
    assert run("check", *asked)[1].startswith("denied: retry after ")
    assert 0 < json.loads(run("check", *asked, "--json")[1])["retry_after"] <= 30
    assert json.loads(run("remaining", *asked, "--json")[1])["remaining"] == 0
    assert run("reset", *asked) == (0, "reset: the buckets are full\n", "")
    assert run("remaining", *asked)[1] == "2 of 2 left\n"
    monkeypatch.setenv("SLUICEGATE_KEY_PREFIX", "other")
    assert run("check", *asked, "--cost", "2")[0] == 0
    assert redis_server.client().keys("other:*")


def test_a_storage_that_is_gone_is_told(run: Run, rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check fails open and says so; a reset fails with status 1; the policy is the environment's."""
    monkeypatch.setenv("SLUICEGATE_STORAGE_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("SLUICEGATE_DEADLINE_MS", "10000")
    asked = ("POST /login", "192.0.2.1", "--rules", rules)
    status, output, complaint = run("check", *asked, "--json")
    assert (status, json.loads(output)["storage_failure"]) == (0, "connection")
    assert "could not decide" in one_line(complaint)
    status, output, complaint = run("reset", *asked, "--json")
    assert (status, json.loads(output)["done"], json.loads(output)["reason"]) == (1, False, "connection")
    assert "not reset" in one_line(complaint)
    monkeypatch.setenv("SLUICEGATE_ON_STORAGE_ERROR", "deny")
    status, output, _ = run("check", *asked)
    assert (status, output) == (1, "denied: retry after 1 s, the storage did not decide (connection)\n")


def test_a_reset_of_an_endpoint_without_a_rule_is_not_done(run: Run, rules: str) -> None:
    """Status 1, and a line that names the endpoint."""
    status, output, complaint = run("reset", "POST /logon", "192.0.2.1", "--rules", rules)
    assert (status, output) == (1, "")
    assert "'POST /logon'" in one_line(complaint)


def test_a_reset_that_no_other_process_would_see_is_not_done(run: Run, rules: str) -> None:
    """Without a shared storage the buckets are in the processes: status 1, and a line that says what to do."""
    asked = ("reset", "POST /login", "192.0.2.1", "--rules", rules)
    status, output, complaint = run(*asked)
    assert (status, output) == (1, "")
    assert "memory://, where each process has buckets of its own" in one_line(complaint)
    status, output, _ = run(*asked, "--json")
    assert (status, json.loads(output)["done"], json.loads(output)["reason"]) == (1, False, "not_shared")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["chekc"], ["chekc", "sluicegate --help"]),
        (["check", "GET /a"], ["IDENTIFIER", "sluicegate check --help"]),
        (["check", "GET /a", "b", "c"], ["(c)"]),
        (["check", "GET /a", "b", "--cots", "1"], ["--cots"]),
        (["check", "GET /a", "b", "--cost", "many"], ["--cost", "'many'"]),
        (["check", "GET /a", "b", "--cost", "-1"], ["cost=-1"]),
        (["check", "", "b"], ["endpoint=''"]),
        (["check", "GET /a", ""], ["identifier=''"]),
        (["check", "GET /a", "x" * 1025], ["identifier='xxx", "1025 bytes"]),
        (["replay", "-", "--top", "-2"], ["top=-2"]),
        (["replay", "-", "--top", "ten"], ["--top", "'ten'"]),
        (["replay", "-", "--reorder", "-1"], ["reorder=-1"]),
        (["replay", "/nowhere/a.log"], ["ACCESS_LOG='/nowhere/a.log'"]),
        (["replay", "/dev/null"], ["ACCESS_LOG='/dev/null'", "no line to read", "combined", "haproxy"]),
        (["replay", __file__], ["none of its", "combined (nginx and Apache", "json (", "alb (", "w3c (", "csv ("]),
        (["replay", "a.log", "b.log", "--format", "clf"], ["format='clf'", "combined"]),
        (["replay", "a.log", "--field", "time"], ["field='time'", "NAME=FIELD"]),
        (["replay", "a.log", "--identify", "user="], ["identify='user='"]),
        (["replay", "a.log", "--trusted-proxy", "proxy"], ["trusted_proxies", "'proxy'"]),
        (["replay", "a.log", "--suggest", "--share", "few"], ["share='few'"]),
        (["replay", "a.log", "--suggest", "--share", "100"], ["share=100"]),
        (["replay", "a.log", "--suggest", "--share", "1e400000000"], ["share='1e400000000'"]),
        (["replay", "a.log", "--suggest", "--window", "0"], ["window=0"]),
        (["replay", "a.log", "--suggest", "--endpoint", "login"], ["endpoint='login'"]),
        (["replay", "a.log", "--against", "/nowhere"], ["/nowhere"]),
        (["replay", "/"], ["ACCESS_LOG='/'", "directory"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    run: Run, rules: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: list[str]
) -> None:
    """The line names what is wrong and its value."""
    monkeypatch.setenv("SLUICEGATE_RULES", rules)
    status, output, complaint = run(*arguments)
    assert (status, output) == (2, "")
    for name in named:
        assert name in one_line(complaint)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("STORAGE_URL", "carrier-pigeon://"),
        ("DEADLINE_MS", "soon"),
        ("ON_STORAGE_ERROR", "shrug"),
        ("KEY_PREFIX", "a b"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(
    run: Run, rules: str, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    """The line names the setting, and as much of its value as may be shown."""
    monkeypatch.setenv(f"SLUICEGATE_{setting}", value)
    status, _, complaint = run("check", "GET /a", "b", "--rules", rules)
    assert status == 2
    assert setting.lower() in one_line(complaint).lower()
    assert value.partition("://")[0] in complaint


@pytest.mark.parametrize("command", [["check", "GET /a", "b"], ["reset", "GET /a", "b"], ["replay", "-"]])
def test_without_a_rules_file_nothing_is_asked(run: Run, command: list[str]) -> None:
    """Everything would be allowed, which nobody means who types this."""
    status, _, complaint = run(*command)
    assert status == 2
    assert "--rules" in one_line(complaint)


@pytest.mark.parametrize(
    ("text", "named"), [("[endpoints\n", "rules.toml"), ('[endpoints]\n"GET /a" = "1/fortnight"\n', "1/fortnight")]
)
def test_a_wrong_rules_file_is_one_line_and_status_2(run: Run, rules: str, text: str, named: str) -> None:
    """The line names the file, the field and the value."""
    Path(rules).write_text(text)
    status, _, complaint = run("check", "GET /a", "b", "--rules", rules)
    assert status == 2
    assert rules in one_line(complaint)
    assert named in complaint


def test_replay_answers_in_json(run: Run, rules: str, tmp_path: Path) -> None:
    """What was counted, for programs."""
    log = tmp_path / "access.log"
    log.write_text(LOG_LINE * 3 + "nonsense\n")
    status, output, complaint = run("replay", str(log), "--rules", rules, "--json", "--top", "1")
    report = json.loads(output)
    assert (status, complaint) == (0, "")
    assert (report["lines"], report["allowed"], report["denied"], report["malformed"]["count"]) == (4, 1, 2, 1)
    assert report["rules"] == [
        {
            "endpoint": "GET /a",
            "policies": [
                {"policy": "ip-1-60s", "shadow": False, "denied": 2, "clients_denied": 1},
                {"policy": "global-9-3600s", "shadow": False, "denied": 0, "clients_denied": 0},
            ],
            "requests": 3,
            "allowed": 1,
            "denied": 2,
            "denied_share": 2 / 3,
            "shadow_denied": 0,
            "clients": 1,
            "clients_denied": 1,
            "clients_shadow_denied": 0,
            "honest_clients": 1,
            "honest_clients_denied": 1,
            "honest_clients_shadow_denied": 0,
            "longest_wait_s": 60.0,
            "first_denied": "2015-05-17T10:05:03Z",
            "last_denied": "2015-05-17T10:05:03Z",
            "busiest": "2015-05-17T10:05:03Z",
            "busiest_denied": 2,
            "busiest_s": 1,
        }
    ]
    assert report["clients"][0]["first_denied"] == "2015-05-17T10:05:03Z"


def test_replay_prints_tables_in_which_strangers_cannot_write(run: Run, rules: str, tmp_path: Path) -> None:
    """Who was denied where is shown, and control characters from the log are not carried out."""
    log = tmp_path / "access.log"
    attack = LOG_LINE.replace("192.0.2.1", "\x1b[31mred[bold]").replace("/a", "/%1b]0;owned%07")
    log.write_text(LOG_LINE * 3 + attack + attack.replace(" HTTP/1.1", "").replace("GET ", "GET[/] "))
    status, output, _ = run("replay", str(log), "--rules", rules)
    assert status == 0
    assert "\x1b" not in output
    assert "GET /{slug}" in output
    assert r"line 5: no method and path in the request 'GET[/] /" in output
    assert "192.0.2.1" in output
    assert "1 allowed, 2 denied (66.7% of those under a rule)" in output


def test_suggest_prints_a_rules_file_that_replay_takes(run: Run, tmp_path: Path) -> None:
    """What it suggests from a log, replayed on that log, denies no more clients than it says; in shadow it denies nobody."""
    log, suggested, page = tmp_path / "access.log", tmp_path / "suggested.toml", tmp_path / "page.html"
    log.write_text("".join(generated_lines(3_000, clients=150, seed=4, span_s=7_200)))
    status, output, complaint = run("replay", str(log), "--suggest", "--share", "2.5", "--html", str(page))
    assert (status, complaint) == (0, "")
    assert page.read_text().startswith("<!DOCTYPE html>")
    suggested.write_text(output)
    report = json.loads(run("replay", str(log), "--rules", str(suggested), "--json", "--top", "0")[1])
    assert (report["denied"], report["no_rule"]) == (0, 0)
    assert sum(row["shadow_denied"] for row in report["rules"]) > 0
    suggested.write_text(output.replace(", shadow = true", ""))
    report = json.loads(run("replay", str(log), "--rules", str(suggested), "--json", "--top", "0")[1])
    for row in report["rules"]:
        assert row["honest_clients_denied"] <= 0.025 * row["honest_clients"]
        assert (
            f"replayed: denies {row['honest_clients_denied']:,} of {row['honest_clients']:,} honest-looking clients"
            in output
        )


def test_a_log_of_robots_alone_suggests_no_limit(run: Run, tmp_path: Path) -> None:
    """The file says so, and so does a line on standard error; there is nothing to draw."""
    log, page = tmp_path / "access.log", tmp_path / "page.html"
    log.write_text("".join(combined_line(second, agent="examplebot/1.0") for second in range(9)))
    status, output, complaint = run("replay", str(log), "--suggest", "--html", str(page))
    assert status == 0
    assert "no limit is suggested" in one_line(complaint)
    assert "0 honest-looking clients; set aside: 1 robot" in output
    assert not page.exists()


def test_suggest_on_a_pipe_says_that_it_was_not_verified(rules: str, tmp_path: Path) -> None:
    """Standard input cannot be read twice; a page, which shows the replay, is refused there."""
    lines = "".join(generated_lines(300, clients=20, seed=4)).encode()
    command = [COMMAND, "replay", "-", "--suggest", "--rules", rules]
    done = subprocess.run(command, input=lines, capture_output=True, check=True)
    assert b"not verified" in done.stderr
    assert b'"POST /login" = ' in done.stdout
    refused = subprocess.run([*command, "--html", str(tmp_path / "x")], input=lines, capture_output=True, check=False)
    assert refused.returncode == 2
    assert b"html='" in refused.stderr


def test_two_rules_files_are_compared(run: Run, rules: str, tmp_path: Path) -> None:
    """Which requests only one of them denies, in the table and as JSON."""
    log, other = tmp_path / "access.log", tmp_path / "other.toml"
    log.write_text(LOG_LINE * 4)
    other.write_text('[endpoints]\n"GET /a" = "3/minute"\n')
    command = ("replay", str(log), "--rules", rules, "--against", str(other))
    compared = json.loads(run(*command, "--json")[1])["comparison"]
    assert (compared["only_here"], compared["only_against"], compared["both"], compared["denied"]) == (2, 0, 1, 1)
    assert f"{other} denies 1: 1 are denied by both, 2 only by these rules" in run(*command)[1]


def test_users_and_formats_are_named_on_the_command_line(run: Run, tmp_path: Path) -> None:
    """JSON lines with fields of one's own; the rule is for users."""
    log, rules = tmp_path / "access.json", tmp_path / "rules.toml"
    log.write_text('{"at": 1, "from": "192.0.2.1", "verb": "GET", "what": "/a", "who": {"id": "ann"}}\n' * 3)
    rules.write_text('[endpoints]\n"GET /a" = "1/minute per user"\n')
    fields = [f"--field={pair}" for pair in ("time=at", "client=from", "method=verb", "path=what")]
    asked = ("--format", "json", *fields, "--identify", "user=who.id", "--json")
    report = json.loads(run("replay", str(log), "--rules", str(rules), *asked)[1])
    assert [(row["client"], row["denied"]) for row in report["clients"]] == [("ann", 2)]
    assert report["files"] == [{"path": str(log), "format": "json", "lines": 3, "malformed": 0}]


def test_help_names_every_command_and_tells_of_memory(run: Run) -> None:
    """`--help` is there for all, and `check` says what memory:// means for it."""
    status, output, _ = run("--help")
    assert status == 0
    for command in ("check", "remaining", "reset", "replay", "demo"):
        assert f"  {command} " in output
        assert run(command, "--help")[0] == 0
    assert "memory://" in run("check", "-h")[1]


@pytest.mark.parametrize(
    "command",
    ["check", "remaining", "reset", "top", "replay", "demo", "serve", "admin override", "admin switch-off"],
)
def test_the_reference_shows_the_help_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """`docs/reference/command-line.md` has each command's help, word for word."""
    monkeypatch.setenv("COLUMNS", "80")
    page = Path(__file__).parents[3] / "docs" / "reference" / "command-line.md"
    assert f"```text\n{run(*command.split(), '--help')[1]}```" in page.read_text()


def test_the_reference_names_every_field_of_the_json(run: Run, rules: str, tmp_path: Path) -> None:
    """No field of an answer or a report is left unexplained."""
    log = tmp_path / "access.log"
    log.write_text(LOG_LINE * 3 + LOG_LINE.replace("/a", "/b") + "nonsense\n")
    page = (Path(__file__).parents[3] / "docs" / "reference" / "command-line.md").read_text()
    compared = ["replay", str(log), "--suggest", "--against", rules, "--html", str(tmp_path / "page.html")]
    for arguments in (["replay", str(log)], compared, ["check", "GET /a", "b"], ["reset", "GET /a", "b"]):
        for name in re.findall(r'"(\w+)":', run(*arguments, "--rules", rules, "--json")[1]):
            assert f"`{name}`" in page, name


def test_without_a_command_the_help_is_shown_with_status_2(run: Run) -> None:
    """It is no answer, so it goes to standard error."""
    status, output, complaint = run()
    assert (status, output) == (2, "")
    assert complaint.startswith("Usage: sluicegate")


def test_the_installed_command_tells_its_version_and_its_kind() -> None:
    """The entry point leads here, and a report of a problem says which of the two kinds ran."""
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)
    kind = "compiled" if sluicegate.COMPILED else "pure Python"
    assert done.stdout == f"sluicegate {version('sluicegate')} ({kind}, Python {platform.python_version()})\n"


def test_a_pipe_that_closes_early_is_no_error(rules: str) -> None:
    """`sluicegate replay … | head -1` ends without a word, and not with the status of a denial."""
    command = [COMMAND, "replay", "-", "--rules", rules, "--top", "0"]
    # More clients than a pipe holds.
    lines = "".join(LOG_LINE.replace("192.0.2.1", f"{number:0250}.example") for number in range(2_000))
    # With PYTHONUNBUFFERED set, Python loses what one write did not take, and with it the error of the next.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(lines)
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, "")


def test_what_the_output_cannot_encode_is_escaped(rules: str) -> None:
    """On an ASCII terminal a path in another script is shown as escapes."""
    done = subprocess.run(
        [COMMAND, "replay", "-", "--rules", rules],
        input=LOG_LINE.replace("/a", "/%C3%A9").encode(),
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert rb"GET /\xe9" in done.stdout


def test_an_identifier_that_is_no_text_is_answered(rules: str) -> None:
    """Bytes of the command line that are not UTF-8 are an identifier like any other."""
    done = subprocess.run(
        [COMMAND, "check", "GET /a", b"\xff", "--rules", rules, "--json"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["allowed"] is True
