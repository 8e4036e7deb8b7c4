"""The audit log: a line for each event that matters, no identifier unless asked for, bounded, and never in a check's way."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sluicegate import (
    InlineEventBus,
    InvalidInputError,
    MemoryStorage,
    RateLimitAdministered,
    RateLimitCheckDenied,
    TokenBucketAdapter,
)
from sluicegate.audit import AuditLog
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.testing import FailingStorage

RULES = """
[policies]
login = "1/minute"
guarded = { rate = "1/minute", on_storage_error = "deny" }

[endpoints]
"POST /login" = "login"
"GET /guarded" = "guarded"

[deny]
ip = ["192.0.2.66"]

[allow]
ip = ["192.0.2.77"]
"""


def read(path: Path) -> list[Any]:
    """Return the lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def lines_of(path: Path, *, storage: Any = None, endpoint: str = "POST /login", **options: Any) -> list[Any]:
    """Ask twice for one client and once for two that are listed, and return the lines."""
    bus, audit = InlineEventBus(), AuditLog(path, **options)
    audit.subscribe(bus)
    limiter = TokenBucketAdapter(storage=storage or MemoryStorage(), rules=parse_rules(RULES), event_bus=bus)
    for identifier in ("192.0.2.1", "192.0.2.1", "192.0.2.66", "192.0.2.77"):
        await limiter.is_allowed(endpoint=endpoint, identifier=identifier)
    audit.close()
    assert audit.dropped == 0
    return read(path)


async def test_denials_are_written_and_what_passed_is_not(tmp_path: Path) -> None:
    """By a rule, and by a list; with what is needed to tell why."""
    denied, listed = await lines_of(tmp_path / "audit.jsonl", raw_identifiers=True)
    assert denied.pop("time").endswith("+00:00")
    assert len(denied.pop("id")) == 36
    assert 59 < denied.pop("retry_after") <= 60
    assert denied == {
        "event": "denied",
        "endpoint": "POST /login",
        "identifier": "192.0.2.1",
        "rule": "login",
        "scope": "ip",
        "cost": 1,
    }
    assert (listed["event"], listed["identifier"], listed["allowed"]) == ("denied_by_list", "192.0.2.66", False)


@pytest.mark.parametrize(
    ("endpoint", "event", "fields"),
    [
        ("POST /login", "failed_open", {"policy": "allow", "allowed": True}),
        ("GET /guarded", "failed_closed", {}),
    ],
)
async def test_what_a_failing_storage_let_pass_is_written(
    tmp_path: Path, endpoint: str, event: str, fields: dict[str, Any]
) -> None:
    """And what it refused, with the cause."""
    first, *_ = await lines_of(tmp_path / "audit.jsonl", storage=FailingStorage(), endpoint=endpoint)
    assert first["event"] == event
    assert first["reason"]
    assert fields.items() <= first.items()


async def test_no_identifier_is_written_unless_asked_for(tmp_path: Path) -> None:
    """The same client has the same digits wherever the secret is the same, and others with another."""
    one = await lines_of(tmp_path / "1", secret=b"secret")
    other = await lines_of(tmp_path / "2", secret=b"secret")
    third = await lines_of(tmp_path / "3")
    assert "192.0.2" not in (tmp_path / "1").read_text() + (tmp_path / "3").read_text()
    digits = [line["identifier"] for line in one]
    assert [len(text) for text in digits] == [16, 16]
    assert digits[0] != digits[1]
    assert [line["identifier"] for line in other] == digits
    assert third[0]["identifier"] != digits[0]


def test_what_operators_do_is_written(tmp_path: Path) -> None:
    """Their words only with identifiers, for they may name one."""
    event = RateLimitAdministered(action="reset", actor="10.0.0.9", done=True, detail="ticket of ann@example.com")
    for raw in (False, True):
        audit, bus = AuditLog(tmp_path / f"{raw}", raw_identifiers=raw), InlineEventBus()
        audit.subscribe(bus)
        bus.publish(event)
        audit.close()
        line = json.loads((tmp_path / f"{raw}").read_text())
        assert (line["event"], line["action"], line["actor"], line["done"]) == (
            "administered",
            "reset",
            "10.0.0.9",
            True,
        )
        assert ("ann@" in json.dumps(line)) is raw


def denial(number: int) -> RateLimitCheckDenied:
    """Return an event."""
    return RateLimitCheckDenied(
        endpoint="GET /a", identifier=f"{number}", scope="ip", cost=1, retry_after=float("inf"), execution_time_ms=0.1
    )


def test_the_files_are_rotated_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    """They stay within their bounds, and the newest lines are there, each whole."""
    audit, bus = AuditLog(tmp_path / "audit", max_bytes=4096, backups=2), InlineEventBus()
    audit.subscribe(bus)
    events = [denial(number) for number in range(500)]
    for event in events:
        bus.publish(event)
    audit.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit", "audit.1", "audit.2"]
    kept = [json.loads(line) for file in reversed(files) for line in file.read_text().splitlines()]
    assert [line["id"] for line in kept] == [str(event.event_id) for event in events[-len(kept) :]]
    assert kept[0]["retry_after"] is None
    for file in files:
        assert file.stat().st_size <= 4096
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")  # noqa: PTH110 - a device
def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    """They are counted."""
    audit, bus = AuditLog("/dev/full"), InlineEventBus()
    audit.subscribe(bus)
    for number in range(3):
        bus.publish(denial(number))
    audit.close()
    assert audit.dropped == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": 10}, "max_bytes=10: expected 4096 or more"),
        ({"backups": 0}, "backups=0: expected 1 or more"),
        ({"backups": "two"}, "backups='two': expected a whole number"),
        ({"secret": b""}, "secret: has 0 bytes"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Before a file is opened."""
    with pytest.raises(InvalidInputError, match=message):
        AuditLog(tmp_path / "audit", **options)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(InvalidInputError, match="cannot be opened: No such file"):
        AuditLog(tmp_path / "nowhere" / "audit")
