"""Replaying requests: what is counted, and that every bucket admits what an exact model admits."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import pytest

from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.replay.clients import Clients
from sluicegate.presentation.cli.replay.comparison import Comparison
from sluicegate.presentation.cli.replay.engine import OTHER_CLIENTS, Replay, client_of
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest
from sluicegate.presentation.cli.replay.report.builder import build_report
from sluicegate.presentation.cli.replay.report.figures import ReplayReport
from sluicegate.presentation.cli.replay.source.log_files import LogFiles
from support.access_logs import (
    MIDNIGHT_US,
    RULES,
    SHARED_LOG,
    generated_lines,
    needs_the_shared_log,
    reader_options,
    request_at,
)
from support.rational_bucket import RationalBucket

TWO_A_MINUTE = {"GET /": RateLimitRule.parse("2/minute")}


def replayed(
    requests: Iterable[LoggedRequest], rules: Mapping[str, RateLimitRule] = TWO_A_MINUTE, **options: int
) -> Replay:
    """Return a replay that has run."""
    replay = Replay(dict(rules), **options)  # type: ignore[arg-type]
    replay.run(requests)
    return replay


def reported(requests: Iterable[LoggedRequest], replay: Replay | None = None, top: int = 0) -> ReplayReport:
    """Return the report of requests that are replayed."""
    replay = Replay(TWO_A_MINUTE) if replay is None else replay
    clients = Clients()
    for request in requests:
        clients.observe(client_of(request), request)
        replay.check(request)
    return build_report(replay=replay, clients=clients, files=LogFiles(["x"], reader_options()), top=top)


@needs_the_shared_log
def test_every_bucket_of_a_real_log_admits_what_an_exact_model_admits() -> None:
    """Over all 10,000 lines, bucket by bucket, the limiter's integers and fractions agree; and there is something to deny."""
    rules = load_rules(RULES)
    replay = Replay(rules)
    files = LogFiles([str(SHARED_LOG)], reader_options())
    replay.run(files.requests())
    admitted, denied = _admitted_by_model(rules, SHARED_LOG)
    assert (files.lines, files.malformed) == (10_000, 0)
    assert {pair: tally.allowed for pair, tally in replay.tallies.items() if tally.allowed} == admitted
    assert {pair: tally.denied for pair, tally in replay.tallies.items() if tally.denied} == denied
    assert sum(denied.values()) > 100
    assert sum(admitted.values()) > 1_000


@pytest.mark.parametrize(
    ("count", "clients", "span_s"),
    [
        (4_000, 150, 900),
        pytest.param(
            1_000_000,
            20_000,
            86_400,
            marks=[
                pytest.mark.skipif("SLUICEGATE_LONG" not in os.environ, reason="SLUICEGATE_LONG is not set"),
                pytest.mark.timeout(1_800),
            ],
        ),
    ],
)
def test_every_bucket_of_a_generated_log_admits_what_an_exact_model_admits(
    tmp_path: Path, count: int, clients: int, span_s: int
) -> None:
    """The same for a log that is out of order, with people, robots and somebody who guesses passwords."""
    log = tmp_path / "access.log"
    with log.open("w") as file:
        file.writelines(generated_lines(count, clients=clients, seed=7, span_s=span_s))
    rules = load_rules(_site_rules(tmp_path))
    replay = Replay(rules)
    replay.run(LogFiles([str(log)], reader_options()).requests())
    admitted, denied = _admitted_by_model(rules, log)
    assert {pair: tally.allowed for pair, tally in replay.tallies.items() if tally.allowed} == admitted
    assert {pair: tally.denied for pair, tally in replay.tallies.items() if tally.denied} == denied
    assert replay.late == 0
    assert sum(denied.values()) > count // 100


def _site_rules(folder: Path) -> Path:
    path = folder / "rules.toml"
    path.write_text(
        '[endpoints]\n"GET /" = "2/minute"\n"POST /login" = ["3/minute burst 2", "40/minute per global"]\n'
        '"GET /api/v1/items/{id}" = "7/hour burst 4"\n"GET /blog/{slug}" = "1 per 7 seconds"\n'
    )
    return path


@pytest.mark.skipif("SLUICEGATE_LONG" not in os.environ, reason="SLUICEGATE_LONG is not set")
@pytest.mark.timeout(1_800)
def test_memory_does_not_grow_with_the_number_of_lines(tmp_path: Path) -> None:
    """A million lines of the same clients take no more than a quarter of a million."""
    rules, log = _site_rules(tmp_path), tmp_path / "access.log"
    most_kib: list[int] = []
    for count in (250_000, 1_000_000):
        with log.open("w") as file:
            file.writelines(generated_lines(count, clients=5_000, seed=3))
        code = (
            "import resource, sys; from sluicegate.presentation.cli.main import main;"
            f"assert main(['replay', {str(log)!r}, '--rules', {str(rules)!r}, '--json', '--top', '1']) == 0;"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        most_kib.append(int(run.stderr))
    assert most_kib[1] < 1.1 * most_kib[0]


def _admitted_by_model(
    rules: Mapping[str, tuple[RateLimitRule, ...]], log: Path
) -> tuple[Counter[tuple[str, str]], ...]:
    """Return what fractions admit and deny, by endpoint and client, from a reading of the log of the test's own."""
    pattern = re.compile(r'(\S+) \S+ \S+ \[(.*?)\] "(\S+) ([^ ?#]+)')
    requests: list[tuple[int, str, str]] = []
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
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
    replay = replayed(map(request_at, (0, 0, 0, 30, 30)))
    tally = replay.tallies["GET /", "192.0.2.1"]
    assert (tally.allowed, tally.denied, tally.longest_wait_s) == (3, 2, 30.0)
    assert (tally.first_denied_us, tally.last_denied_us) == (MIDNIGHT_US, MIDNIGHT_US + 30_000_000)


def test_clients_and_endpoints_are_counted_apart() -> None:
    """Each client has its own bucket, and an endpoint without a rule has none."""
    requests = [request_at(0)] * 3 + [request_at(0, "192.0.2.2")] + [request_at(0, path="/other")] * 2
    report = reported(requests)
    assert (report.requests, report.allowed, report.denied, report.no_rule) == (6, 3, 1, 2)
    assert [(row.client, row.allowed, row.denied) for row in report.clients] == [
        ("192.0.2.1", 2, 1),
        ("192.0.2.2", 1, 0),
    ]
    assert [(row.endpoint, row.requests) for row in report.no_rule_endpoints] == [("GET /other", 2)]


def test_a_client_is_what_it_is_for_the_middleware() -> None:
    """Addresses of one IPv6 network are one client, an IPv4 address in IPv6 writing is itself, and a host name stays."""
    clients = reader_options().clients
    addresses = ("2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1", "192.0.2.1", "host.example.org")
    assert [clients.client(address) for address in addresses] == [
        "2001:db8::/64",
        "2001:db8::/64",
        "192.0.2.1",
        "192.0.2.1",
        "host.example.org",
    ]


def test_more_clients_than_are_told_apart_are_counted_together() -> None:
    """Memory stays bounded, and no request is lost from the sums."""
    replay = replayed([request_at(0, f"192.0.2.{number % 9}") for number in range(90)], max_tallies=3)
    assert len(replay.tallies) == 4
    assert reported([], replay).allowed == 18
    assert replay.tallies["GET /", OTHER_CLIENTS].requests == 60


def test_the_report_lists_the_most_denied_first_and_no_more_than_asked_for() -> None:
    """`top` cuts the lists and not the sums."""
    report = reported((request_at(0, f"192.0.2.{number}") for number in range(5) for _ in range(number + 1)), top=2)
    assert [(row.client, row.denied) for row in report.clients] == [("192.0.2.4", 3), ("192.0.2.3", 2)]
    assert (report.client_count, report.denied, report.rules[0].clients_denied) == (5, 6, 3)


def test_the_worst_endpoint_of_a_client_is_where_it_was_denied() -> None:
    """Not where it was most often."""
    rules = {"GET /": RateLimitRule.parse("1/minute"), "GET /b": RateLimitRule.parse("100/minute")}
    requests = [request_at(0)] * 3 + [request_at(0, path="/b")] * 9
    assert reported(requests, Replay(rules)).clients[0].worst_endpoint == "GET /"


def test_an_overlong_path_is_counted_by_its_template() -> None:
    """The middleware limits it as well; one without a rule is shown by its beginning."""
    rules = {"GET /a/{rest:path}": RateLimitRule.parse("1/minute")}
    long_path = "/a/" + "x" * 5_000
    replay = Replay(rules)
    report = reported([request_at(0, path=long_path)] * 3 + [request_at(0, path="/b/" + "x" * 5_000)], replay)
    assert (report.allowed, report.denied, report.no_rule) == (1, 2, 1)
    assert max(len(path) for _, path in replay.without_rule) == 200


def test_an_overlong_name_of_a_client_is_counted() -> None:
    """As the middleware does, by a digest."""
    replay = replayed([request_at(0, "a" * 5_000)] * 3)
    ((_, who), tally) = next(iter(replay.tallies.items()))
    assert (tally.allowed, tally.denied) == (2, 1)
    assert len(who) < 100


def test_denials_are_told_by_rule_with_their_time() -> None:
    """Which of an endpoint's rules denied how much, first and last, and when most."""
    rules = {
        "GET /": (
            RateLimitRule(2, 2, "ip", name="each"),
            RateLimitRule(3, 3, "global", name="all"),
        )
    }
    requests = [request_at(0, "192.0.2.1")] * 3 + [request_at(1, "192.0.2.2")] * 4 + [request_at(9, "192.0.2.2")]
    row = reported(requests, Replay(rules)).rules[0]
    assert [(one.policy, one.denied, one.clients_denied) for one in row.policies] == [("each", 1, 1), ("all", 4, 1)]
    assert (row.first_denied, row.last_denied) == ("2015-05-17T00:00:00Z", "2015-05-17T00:00:09Z")
    assert (row.busiest, row.busiest_denied, row.busiest_s) == ("2015-05-17T00:00:01Z", 3, 1)


def test_users_are_counted_by_name_and_strangers_by_address() -> None:
    """A rule for users holds for whoever the log names, wherever he comes from."""
    replay = Replay({"GET /": RateLimitRule.parse("2/minute per user")}, scopes=("user",))
    ann = [request_at(0, f"192.0.2.{number}", names=("ann",)) for number in range(4)]
    stranger = [request_at(0, "192.0.2.1", names=("",))] * 3
    report = reported([*ann, *stranger], replay)
    assert {(row.client, row.allowed, row.denied) for row in report.clients} == {("ann", 2, 2), ("192.0.2.1", 2, 1)}


def test_a_comparison_tells_who_is_treated_differently() -> None:
    """Requests and clients that only one of two files denies, and those that both deny."""
    run = Replay({"GET /": RateLimitRule.parse("2/minute")})
    comparison = Comparison(run, Replay({"GET /": RateLimitRule.parse("4/minute")}))
    for request in [request_at(0, "192.0.2.1")] * 5 + [request_at(0, "192.0.2.2")] * 3:
        comparison.check(request)
    assert (comparison.only_here, comparison.only_against, comparison.both) == (3, 0, 1)
    assert (comparison.clients_only_here, comparison.clients_only_against) == (1, 0)
    assert [(one.client, one.denied, one.denied_against) for one in comparison.clients()] == [
        ("192.0.2.1", 3, 1),
        ("192.0.2.2", 1, 0),
    ]


def test_needs_are_measured_beside_the_limit() -> None:
    """A client that needed more than the rule's burst is one that it denied, and no other is."""
    replay = Replay({"GET /": RateLimitRule.parse("2/minute burst 3")}, measure_needs=True)
    requests = [request_at(second, f"192.0.2.{number}") for number in range(1, 7) for second in range(number)]
    report = reported(sorted(requests, key=lambda one: one.time_us), replay)
    assert replay.needs is not None
    ((_, _, max_tokens, needs),) = replay.needs.rows()
    assert {who for who, need in needs.items() if need > max_tokens} == {
        row.client for row in report.clients if row.denied
    }
    assert [(row.upper, row.honest) for row in report.needs] == [([1, 2, 4, 8], [1, 1, 2, 2])]


def test_a_disabled_rule_lets_pass() -> None:
    """Its requests are allowed and counted under it."""
    rules = {"GET /": RateLimitRule(1, 1, "ip", enabled=False)}
    report = reported([request_at(0)] * 3, Replay(rules))
    assert (report.allowed, report.denied, report.rules[0].policies) == (3, 0, [])


def test_who_is_on_a_list_is_counted_under_the_list(tmp_path: Path) -> None:
    """Whatever the endpoint, with a rule or without: who is denied is not lost among requests without a rule."""
    requests = [
        *[request_at(0, "192.0.2.1")] * 3,
        request_at(0, "198.51.100.9", "/other"),
        request_at(0, "198.51.100.9"),
        request_at(0, "192.0.2.1", "/other"),
        *[request_at(0, "203.0.113.1")] * 2,
    ]
    lists = '[allow]\nip = ["192.0.2.1"]\n[deny]\nip = ["198.51.100.0/24"]\n'
    report = reported(requests, Replay(_rules_file(tmp_path, lists)))
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
    replay.run([request_at(9), request_at(10)])
    assert {pair: tally.denied for pair, tally in replay.tallies.items()} == {
        ("(deny list)", "192.0.2.1"): 1,
        ("GET /", "192.0.2.1"): 0,
    }


def test_a_rule_in_shadow_is_counted_and_denies_nothing() -> None:
    """What it would have denied stands beside what was."""
    shadow = RateLimitRule(1, 1, "ip", name="strict", shadow=True)
    row = reported([request_at(0)] * 5, Replay({"GET /": (RateLimitRule.parse("3/minute"), shadow)})).rules[0]
    assert (row.allowed, row.denied, row.shadow_denied) == (3, 2, 4)
    assert (row.clients_shadow_denied, row.honest_clients_shadow_denied) == (1, 1)
    assert [(one.policy, one.shadow, one.denied, one.clients_denied) for one in row.policies] == [
        ("ip-3-60s", False, 2, 1),
        ("strict", True, 4, 1),
    ]


def test_a_kill_switch_is_told_once(tmp_path: Path) -> None:
    """Nothing is limited then, and the report says why."""
    replay = Replay(_rules_file(tmp_path, "kill_switch = true\n", first=True))
    report = reported(map(request_at, range(0, 50, 5)), replay)
    assert (report.denied, report.requests) == (0, 10)
    assert sum("nothing is limited" in warning for warning in report.warnings) == 1
    assert len(report.warnings) <= 2


def _rules_file(folder: Path, text: str, *, first: bool = False) -> RuleBook:
    endpoints = '[endpoints]\n"GET /" = "1/minute"\n'
    path = folder / "rules.toml"
    path.write_text(text + endpoints if first else endpoints + text)
    return load_rules(path)
