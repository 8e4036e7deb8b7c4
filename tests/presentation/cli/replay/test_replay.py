"""Replaying an access log."""

import gzip
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.rule_book import RuleBook
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.replay.access_log import MAX_LINE_BYTES, LoggedRequest
from sluicegate.presentation.cli.replay.engine import OTHER_CLIENTS, Replay
from sluicegate.presentation.cli.replay.log_lines import read_lines, size_of
from sluicegate.presentation.cli.replay.report import build_report
from sluicegate.presentation.cli.replay.time_order import in_order
from support.rational_bucket import RationalBucket

RULES = Path(__file__).parents[4] / "examples" / "rules" / "website.toml"
ACCESS_LOG = Path(__file__).parents[5] / "shared" / "data" / "access.log"
if not ACCESS_LOG.exists():  # a worktree lies one folder deeper than a clone
    ACCESS_LOG = Path(__file__).parents[6] / "shared" / "data" / "access.log"

needs_the_log = pytest.mark.skipif(not ACCESS_LOG.exists(), reason="the shared access.log is not on this machine")

TWO_A_MINUTE = {"GET /": RateLimitRule.parse("2/minute")}


def line(second: int, request: str = "GET / HTTP/1.1", address: str = "192.0.2.1") -> bytes:
    """Return a log line, so many seconds after midnight."""
    time = datetime(2015, 5, 17, tzinfo=UTC).replace(hour=second // 3600, minute=second // 60 % 60, second=second % 60)
    return f'{address} - - [{time:%d/%b/%Y:%H:%M:%S} +0000] "{request}" 200 5\n'.encode()


def replayed(lines: Iterable[bytes], rules: dict[str, RateLimitRule] = TWO_A_MINUTE, **options: int) -> Replay:
    """Return a replay that has run."""
    replay = Replay(rules, **options)
    replay.run(lines)
    return replay


@needs_the_log
def test_every_bucket_of_a_real_log_admits_what_an_exact_model_admits() -> None:
    """Over all 10,000 lines, bucket by bucket, the limiter's integers and fractions agree; and there is something to deny."""
    rules = load_rules(RULES)
    replay = Replay(rules)
    replay.run(read_lines(str(ACCESS_LOG)))
    admitted, denied = _admitted_by_model(rules)
    assert replay.lines == 10_000
    assert {pair: tally.allowed for pair, tally in replay.tallies.items() if tally.allowed} == admitted
    assert {pair: tally.denied for pair, tally in replay.tallies.items() if tally.denied} == denied
    assert sum(denied.values()) > 100
    assert sum(admitted.values()) > 1_000


def _admitted_by_model(rules: Mapping[str, tuple[RateLimitRule, ...]]) -> tuple[Counter[tuple[str, str]], ...]:
    """Return what fractions admit and deny, by endpoint and client, from a reading of the log of the test's own."""
    pattern = re.compile(r'(\S+) \S+ \S+ \[(.*?)\] "(\S+) ([^ ?#]+)')
    requests: list[tuple[int, str, str]] = []
    for text in ACCESS_LOG.read_text(encoding="utf-8", errors="replace").splitlines():
        address, time, method, path = pattern.match(text).groups()  # type: ignore[union-attr]
        endpoint = _endpoint_of(rules, "GET" if method == "HEAD" else method, unquote(path))
        if endpoint is not None:
            now_s = int(datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z").timestamp())
            requests.append((now_s, address, endpoint))
    requests.sort(key=lambda request: request[0])
    buckets: dict[tuple[str, int, str], RationalBucket] = {}
    admitted: Counter[tuple[str, str]] = Counter()
    denied: Counter[tuple[str, str]] = Counter()
    for now_s, address, endpoint in requests:
        found: list[tuple[RationalBucket, int]] = []
        for number, rule in enumerate(rules[endpoint]):
            key = endpoint, number, "" if rule.scope == "global" else address
            rate = Fraction(rule.refill_rate).limit_denominator(10**6) / 60
            bucket = buckets.setdefault(key, RationalBucket(rule.max_tokens, rate, now_s))
            bucket.refill(now_s)
            found.append((bucket, rule.cost))
        if all(bucket.level >= cost for bucket, cost in found):
            admitted[endpoint, address] += 1
            for bucket, cost in found:
                bucket.level -= cost
        else:
            denied[endpoint, address] += 1
    return admitted, denied


def _endpoint_of(rules: Iterable[str], method: str, path: str) -> str | None:
    """Return the first endpoint whose template fits, found the slow and simple way."""
    for endpoint in rules:
        template = re.sub(r"\\{\w+\\}", "[^/]+", re.sub(r"\\{\w+:path\\}", ".*", re.escape(endpoint)))
        if re.fullmatch(template, f"{method} {path}", re.DOTALL):
            return endpoint
    return None


def test_the_time_is_the_logs() -> None:
    """A bucket refills as the log's time passes: two at once, the third is denied, and half a minute later one passes."""
    replay = replayed([line(0), line(0), line(0), line(30), line(30)])
    tally = replay.tallies["GET /", "192.0.2.1"]
    assert (tally.allowed, tally.denied, tally.longest_wait_s) == (3, 2, 30.0)
    assert tally.first_denied_s == datetime(2015, 5, 17, tzinfo=UTC).timestamp()


def test_clients_and_endpoints_are_counted_apart() -> None:
    """Each client has its own bucket, and an endpoint without a rule has none."""
    replay = replayed([line(0)] * 3 + [line(0, address="192.0.2.2")] + [line(0, "GET /other HTTP/1.1")] * 2)
    report = build_report(replay, 0)
    assert (report.requests, report.allowed, report.denied, report.no_rule) == (6, 3, 1, 2)
    assert [(row.client, row.allowed, row.denied) for row in report.clients] == [
        ("192.0.2.1", 2, 1),
        ("192.0.2.2", 1, 0),
    ]
    assert [(row.endpoint, row.requests) for row in report.no_rule_endpoints] == [("GET /other", 2)]


def test_a_client_is_what_it_is_for_the_middleware() -> None:
    """Addresses of one IPv6 network are one client, an IPv4 address in IPv6 writing is itself, and a host name stays."""
    addresses = ("2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1", "192.0.2.1", "host.example.org")
    replay = replayed([line(0, address=address) for address in addresses])
    assert {client: tally.requests for (_, client), tally in replay.tallies.items()} == {
        "2001:db8::/64": 2,
        "192.0.2.1": 2,
        "host.example.org": 1,
    }


def test_a_log_out_of_order_gives_what_the_log_in_order_gives() -> None:
    """Lines within the reach of the reordering are replayed by their times."""
    in_their_order = [line(second) for second in (0, 0, 29, 30, 31, 60, 61)]
    shuffled = [in_their_order[index] for index in (3, 1, 0, 2, 6, 5, 4)]
    assert replayed(shuffled).tallies == replayed(in_their_order).tallies
    assert replayed(shuffled).late == 0


def test_a_line_beyond_the_reach_is_late_and_steps_no_clock_back() -> None:
    """With nothing held back, an earlier line is checked at the time that was reached: it finds an empty bucket."""
    replay = replayed([line(60), line(60), line(0), line(61)], reorder_lines=0)
    assert replay.late == 1
    tally = replay.tallies["GET /", "192.0.2.1"]
    assert (tally.allowed, tally.denied) == (2, 2)
    report = build_report(replay, 0)
    assert (report.first, report.last) == ("2015-05-17T00:00:00Z", "2015-05-17T00:01:01Z")


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(0, 20))
def test_reordering_loses_nothing_and_sorts_what_it_can(times_s: list[int], reorder_lines: int) -> None:
    """Every request comes out once; all are sorted, and stable, if none is displaced by more than what is held back."""
    requests = [(number, LoggedRequest(time_s, "a", "GET /")) for number, time_s in enumerate(times_s, start=1)]
    out = list(in_order(requests, reorder_lines))
    assert sorted(out, key=lambda pair: pair[0]) == requests
    wanted = sorted(requests, key=lambda pair: (pair[1].time_s, pair[0]))
    displaced = max((number - 1 - place for place, (number, _) in enumerate(wanted)), default=0)
    if displaced <= reorder_lines:
        assert out == wanted


def test_malformed_lines_are_counted_shown_and_passed_over() -> None:
    """The first five are kept with number, reason and beginning; blank lines are no lines."""
    broken = b"\x00\xff nonsense " + b"x" * 500
    replay = replayed([line(0), b"\n", *[broken] * 7, line(0, "- "), line(1)])
    report = build_report(replay, 10)
    assert (report.lines, report.requests, report.malformed.count) == (10, 2, 8)
    assert [sample.line for sample in report.malformed.first] == [3, 4, 5, 6, 7]
    assert "nonsense" in report.malformed.first[0].text
    assert len(report.malformed.first[0].text) <= 200


def test_a_request_that_the_limiter_refuses_to_look_at_is_malformed() -> None:
    """A path or address over 1 KiB is shown with the limiter's own reason."""
    replay = replayed([line(0, f"GET /{'a' * 2000} HTTP/1.1"), line(0, address="a" * 2000), line(0)])
    assert (replay.malformed, replay.lines) == (2, 3)
    assert [sample.reason.partition("=")[0] for sample in replay.malformed_samples] == ["endpoint", "identifier"]


def test_more_clients_than_are_told_apart_are_counted_together() -> None:
    """Memory stays bounded, and no request is lost from the sums."""
    replay = replayed([line(0, address=f"192.0.2.{number % 9}") for number in range(90)], max_tallies=3)
    assert len(replay.tallies) == 4
    assert build_report(replay, 0).allowed == 18
    assert replay.tallies["GET /", OTHER_CLIENTS].requests == 60


def test_the_report_lists_the_most_denied_first_and_no_more_than_asked_for() -> None:
    """`top` cuts the lists and not the sums."""
    lines = [line(0, address=f"192.0.2.{number}") for number in range(5) for _ in range(number + 1)]
    report = build_report(replayed(lines), 2)
    assert [(row.client, row.denied) for row in report.clients] == [("192.0.2.4", 3), ("192.0.2.3", 2)]
    assert (report.client_count, report.denied, report.rules[0].clients_denied) == (5, 6, 3)


def test_the_worst_endpoint_of_a_client_is_where_it_was_denied() -> None:
    """Not where it was most often."""
    rules = {"GET /": RateLimitRule.parse("1/minute"), "GET /b": RateLimitRule.parse("100/minute")}
    lines = [line(0)] * 3 + [line(0, "GET /b HTTP/1.1")] * 9
    assert build_report(replayed(lines, rules), 0).clients[0].worst_endpoint == "GET /"


def test_a_disabled_rule_lets_pass() -> None:
    """Its requests are allowed and counted under it."""
    rules = {"GET /": RateLimitRule(1, 1, "ip", enabled=False)}
    report = build_report(replayed([line(0)] * 3, rules), 0)
    assert (report.allowed, report.denied, report.rules[0].policies) == (3, 0, [])


def test_who_is_on_a_list_is_counted_under_the_list(tmp_path: Path) -> None:
    """Whatever the endpoint, with a rule or without: who is denied is not lost among requests without a rule."""
    lines = [
        *[line(0, address="192.0.2.1")] * 3,
        line(0, "GET /other HTTP/1.1", "198.51.100.9"),
        line(0, address="198.51.100.9"),
        line(0, "GET /other HTTP/1.1"),
        *[line(0, address="203.0.113.1")] * 2,
    ]
    replay = Replay(_rules_file(tmp_path, '[allow]\nip = ["192.0.2.1"]\n[deny]\nip = ["198.51.100.0/24"]\n'))
    replay.run(lines)
    report = build_report(replay, 0)
    assert {row.endpoint: (row.allowed, row.denied) for row in report.rules} == {
        "(allow list)": (4, 0),
        "(deny list)": (0, 2),
        "GET /": (1, 1),
    }
    assert (report.requests, report.no_rule) == (8, 0)
    assert next(row for row in report.rules if row.endpoint == "(deny list)").longest_wait_s is None


def test_a_dated_entry_ends_by_the_logs_time(tmp_path: Path) -> None:
    """Not by the clock of the machine, for which all of this log is long past."""
    entry = '[deny]\nip = [{ id = "192.0.2.1", until = 2015-05-17T00:00:10Z }]\n'
    replay = Replay(_rules_file(tmp_path, entry))
    replay.run([line(9), line(10)])
    assert {pair: tally.denied for pair, tally in replay.tallies.items()} == {
        ("(deny list)", "192.0.2.1"): 1,
        ("GET /", "192.0.2.1"): 0,
    }


def test_a_rule_in_shadow_is_counted_and_denies_nothing() -> None:
    """What it would have denied stands beside what was."""
    shadow = RateLimitRule(1, 1, "ip", name="strict", shadow=True)
    replay = Replay({"GET /": (RateLimitRule.parse("3/minute"), shadow)})
    replay.run([line(0)] * 5)
    row = build_report(replay, 0).rules[0]
    assert (row.policies, row.allowed, row.denied, row.shadow_denied) == (["ip-3-60s", "strict (shadow)"], 3, 2, 4)


def test_a_kill_switch_is_told_once(tmp_path: Path) -> None:
    """Nothing is limited then, and the report says why."""
    replay = Replay(_rules_file(tmp_path, "kill_switch = true\n", first=True))
    replay.run([line(second) for second in range(0, 50, 5)])
    report = build_report(replay, 0)
    assert (report.denied, report.requests) == (0, 10)
    assert sum("nothing is limited" in warning for warning in report.warnings) == 1
    assert len(report.warnings) <= 2


def _rules_file(folder: Path, text: str, *, first: bool = False) -> RuleBook:
    endpoints = '[endpoints]\n"GET /" = "1/minute"\n'
    path = folder / "rules.toml"
    path.write_text(text + endpoints if first else endpoints + text)
    return load_rules(path)


@pytest.mark.parametrize("reorder_lines", [-1, 10_000_001])
def test_a_reach_out_of_range_is_refused(reorder_lines: int) -> None:
    """The message names the option and the value."""
    with pytest.raises(InvalidInputError, match=f"reorder={reorder_lines}"):
        Replay(TWO_A_MINUTE, reorder_lines=reorder_lines)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("from_stdin", [False, True])
def test_a_log_is_read_from_a_file_an_archive_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, compressed: bool, from_stdin: bool
) -> None:
    """What the bytes are decides, not what the file is called; the last line may lack its end."""
    data = b"one\n\xff two\n\nfour"
    stored = gzip.compress(data[:7]) + gzip.compress(data[7:]) if compressed else data
    path = tmp_path / "access.txt"
    path.write_bytes(stored)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(stored))))  # type: ignore[arg-type]
    assert list(read_lines("-" if from_stdin else str(path))) == [b"one\n", b"\xff two\n", b"\n", b"four"]
    assert size_of("-" if from_stdin else str(path)) == (None if from_stdin else len(stored))


def test_an_overlong_line_is_cut_and_the_next_one_whole(tmp_path: Path) -> None:
    """A line without end costs no memory and no other line."""
    path = tmp_path / "access.log"
    path.write_bytes(b"a\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n")
    first, cut, last = read_lines(str(path))
    assert (first, len(cut), last) == (b"a\n", MAX_LINE_BYTES + 1, b"b\n")


@pytest.mark.parametrize("cut", [15, -4])
def test_a_broken_archive_is_an_error_that_says_where(tmp_path: Path, cut: int) -> None:
    """Cut off in the data or in the checksum."""
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress(line(0) * 500)[:cut])
    with pytest.raises(
        InvalidInputError, match=r"ACCESS_LOG=.*access.log.gz': cannot be read.*: Compressed file ended"
    ):
        list(read_lines(str(path)))


def test_an_archive_of_garbage_is_an_error(tmp_path: Path) -> None:
    """Bytes that only begin like an archive."""
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress(line(0) * 500)[:30] + b"\xff" * 400)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        list(read_lines(str(path)))


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    """For an archive these are compressed bytes, so that they add up to the file's size."""
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress(b"".join(line(second) for second in range(20_000))))
    told: list[int] = []
    assert sum(1 for _ in read_lines(str(path), told.append)) == 20_000
    assert told == sorted(told)
    assert 0 < told[0] <= told[-1] <= path.stat().st_size
