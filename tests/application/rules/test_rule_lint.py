"""What is doubtful about rules that are correct."""

from datetime import UTC, datetime

import pytest

from sluicegate.application.rules.rule_lint import lint
from sluicegate.infrastructure.rules_file.field_path import format_path
from sluicegate.infrastructure.rules_file.reader import parse_rules

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def findings(text: str) -> list[tuple[str, str]]:
    """Return code and place of each finding."""
    return [(finding.code, format_path(finding.place)) for finding in lint(parse_rules(text), NOON)]


CLEAN = """
[policies]
login = "5/minute per ip"
[endpoints]
"POST /sessions" = ["login", "1000/hour per global"]
"GET /users/me" = "10/minute"
"GET /users/{id}" = "10/minute"
"POST /users/{id}" = "10/minute"
"GET /sessions" = "10/minute per user"
[deny]
ip = [{ id = "10.0.0.1", until = 2026-11-24T12:00:01Z }]
"""


def test_good_rules_have_no_findings() -> None:
    """Nothing to say is said."""
    assert findings(CLEAN) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '"GET /users/{id}" = "9/minute"\n"GET /users/me" = "5/minute"\n',
            [("shadowed", 'endpoints."GET /users/me"')],
        ),
        ('"/{x:path}" = "9/minute"\n"POST /a/{b:int}" = "5/minute"\n', [("shadowed", 'endpoints."POST /a/{b:int}"')]),
        ('"GET /users/{id:int}" = "9/minute"\n"GET /users/me" = "5/minute"\n', []),
        ('a = ["5/minute", "6/minute"]\n', [("never_denies", "endpoints.a")]),
        ('a = ["6/minute", "5/minute"]\n', [("never_denies", "endpoints.a")]),
        ('a = ["5/minute", "5/minute"]\n', [("never_denies", "endpoints.a")]),
        ('a = ["5/minute", "100/hour"]\n', []),
        ('a = ["5/minute per user", "6/minute per ip"]\n', []),
        ('a = ["5/minute per global", "6/minute per ip"]\n', [("never_denies", "endpoints.a")]),
        ('a = ["5/minute per ip", "6/minute per global"]\n', []),
        ('a = [{ rate = "10/minute", cost = 2 }, "5/minute"]\n', [("never_denies", "endpoints.a")]),
        ('a = [{ rate = "5/minute", shadow = true }, "6/minute"]\n', []),
        ('a = [{ rate = "5/minute", enabled = false }, "6/minute"]\n', []),
        ('a = "6/minute"\n[groups.g]\nrules = "5/minute"\nendpoints = ["a", "b"]\n', [("never_denies", "endpoints.a")]),
        ('a = "5/minute"\n[groups.g]\nrules = "6/minute"\nendpoints = ["a", "b"]\n', []),
        ('"POST /login" = "5/minute per user"\n', [("login_without_ip", 'endpoints."POST /login"')]),
        (
            '"POST /v1/password-reset" = "5/minute per user"\n',
            [("login_without_ip", 'endpoints."POST /v1/password-reset"')],
        ),
        ('"POST /oauth/token" = "5/minute per global"\n', [("login_without_ip", 'endpoints."POST /oauth/token"')]),
        ('verify_otp = "5/minute per user"\n', [("login_without_ip", "endpoints.verify_otp")]),
        (
            '"POST /login" = { rate = "5/minute per ip", shadow = true }\n',
            [("login_without_ip", 'endpoints."POST /login"')],
        ),
        ('"POST /tokenizers" = "5/minute per user"\n', []),
        ('"POST /author" = "5/minute per user"\n', []),
        ('"POST /login" = "5/minute per user"\n[groups.g]\nrules = "9/hour per ip"\nendpoints = ["POST /login"]\n', []),
        ('a = "5/minute"\n[policies]\nunused = "6/minute"\n', [("unused", "policies.unused")]),
        (
            'a = "5/minute"\n[allow]\nip = ["10.0.0.1", { id = "10.0.0.2", until = 2026-11-24T12:00:00Z }]\n',
            [("ended", "allow.ip[1]")],
        ),
        (
            (
                'a = "p"\n[policies.p]\nrate = "5/minute"\n'
                'overrides = [{ id = "10.0.0.1", rate = "6/minute", until = 2026-11-24T11:00:00Z }]\n'
            ),
            [("ended", "policies.p.overrides[0]")],
        ),
        ('a = "5/minute"\n[allow]\nip = ["0.0.0.0/0"]\n', [("everybody", "allow.ip[0]")]),
        ('a = "5/minute"\n[deny]\nip = ["::/0"]\n', [("everybody", "deny.ip[0]")]),
        ('a = "5/minute"\n[deny]\nip = ["2001:db8::/64", "2001:db8:1::1"]\n', [("part_of_client", "deny.ip[1]")]),
        ('a = "5/minute"\n[deny]\nuser = ["2001:db8:1::1"]\nip = ["10.0.0.1"]\n', []),
        (
            'a = "p"\n[policies.p]\nrate = "5/minute"\noverrides = [{ id = "2001:db8::/65", rate = "6/minute" }]\n',
            [("part_of_client", "policies.p.overrides[0]")],
        ),
        ('a = "5/minute"\n[kill_switch]\nreason = "x"\n', [("kill_switch", "kill_switch")]),
        (
            'a = "5/minute"\n[kill_switch]\nuntil = 2026-11-24T11:00:00Z\n',
            [("ended", "kill_switch"), ("kill_switch", "kill_switch")],
        ),
    ],
)
def test_findings(text: str, expected: list[tuple[str, str]]) -> None:
    """Each doubt, and what is like it and none."""
    assert findings(f"[endpoints]\n{text}") == expected


def test_a_finding_says_what_and_what_to_do() -> None:
    """Message and hint are for people."""
    (finding,) = lint(parse_rules('[endpoints]\na = ["6/minute", "5/minute"]\n'), NOON)
    assert finding.message == "the rule ip-6-60s can never deny: ip-5-60s always denies first"
    assert finding.hint == "remove it, or make its capacity or its rate smaller"
    (finding,) = lint(parse_rules('[endpoints]\na = ["5/minute", "6/minute"]\n'), NOON)
    assert finding.message == "the rule ip-6-60s can never deny: ip-5-60s, which comes before it, always denies first"
