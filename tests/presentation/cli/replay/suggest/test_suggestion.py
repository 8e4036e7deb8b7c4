"""Suggested limits: verified by replaying them, with honest clients and others."""

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.application.rules.rule_lint import lint
from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.replay.clients import HONEST
from sluicegate.presentation.cli.replay.engine import Replay
from sluicegate.presentation.cli.replay.formats.record import AGENT_OTHER, AGENT_ROBOT, LoggedRequest
from sluicegate.presentation.cli.replay.source.log_files import LogFiles
from sluicegate.presentation.cli.replay.suggest.collector import SuggestionCollector, SuggestionOptions
from sluicegate.presentation.cli.replay.suggest.frontier import RATES_PER_HOUR
from sluicegate.presentation.cli.replay.suggest.rules_text import rules_text, suggested_rules
from support.access_logs import (
    MIDNIGHT,
    SHARED_LOG,
    generated_lines,
    log_files,
    needs_the_shared_log,
    reader_options,
    request_at,
)


def collected(requests: Iterable[LoggedRequest], **options: object) -> SuggestionCollector:
    """Return a collector that has seen requests."""
    collector = SuggestionCollector(SuggestionOptions(**options))  # type: ignore[arg-type]
    collector.run(requests)
    return collector


def assert_kept(collector: SuggestionCollector, requests: Iterable[LoggedRequest], share: Fraction) -> int:
    """Replay what is suggested; at no endpoint are more honest clients denied than the share. Return the denials."""
    replay = Replay(suggested_rules(collector.suggestion(), shadow=False))
    replay.run(requests)
    honest: dict[str, int] = {}
    denied: dict[str, int] = {}
    for (endpoint, who), tally in replay.tallies.items():
        if collector.clients.kind(who) == HONEST:
            honest[endpoint] = honest.get(endpoint, 0) + 1
            denied[endpoint] = denied.get(endpoint, 0) + (tally.denied > 0)
    assert all(denied[endpoint] <= share * honest[endpoint] for endpoint in honest)
    return sum(tally.denied for tally in replay.tallies.values())


@needs_the_shared_log
@pytest.mark.parametrize("percent", [0, 1, 5, 20])
def test_what_a_real_log_suggests_is_kept_by_it(percent: int) -> None:
    """Replaying the suggestion denies at most the share of honest-looking clients at each endpoint."""
    requests = list(LogFiles([str(SHARED_LOG)], reader_options()).requests())
    share = Fraction(percent, 100)
    assert assert_kept(collected(requests, share=share), requests, share) > 0  # robots are denied


def test_what_a_generated_log_suggests_is_kept_by_it(tmp_path: Path) -> None:
    """People, robots, and somebody who guesses passwords and sets no limit."""
    files = log_files(tmp_path, generated_lines(6_000, clients=200, seed=11))
    requests = list(files.requests())
    collector = collected(requests, share=Fraction(1, 50))
    assert collector.clients.kind("203.0.113.66") == "prober"
    assert assert_kept(collector, requests, Fraction(1, 50)) > 100
    login = next(one for one in collector.suggestion().endpoints if one.endpoint == "POST /login")
    assert login.frontier[0].p99 < 50 < login.requests


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 7_000), st.integers(0, 9), st.sampled_from(["/", "/a", "/b/7"])),
        min_size=1,
        max_size=80,
    ),
    st.sampled_from([Fraction(0), Fraction(1, 10), Fraction(1, 3)]),
    st.sampled_from([1, 60, 600, 86_400]),
)
def test_whatever_the_traffic_the_suggestion_is_kept(
    events: list[tuple[int, int, str]], share: Fraction, window_s: int
) -> None:
    """Few clients, bursts, pauses, any window."""
    requests = [request_at(second, f"192.0.2.{client}", path) for second, client, path in sorted(events)]
    assert_kept(collected(requests, share=share, window_s=window_s), requests, share)


def test_the_file_is_a_rules_file_in_shadow(tmp_path: Path) -> None:
    """It can be read, has nothing that lint complains of as an error, and its rules are those that were suggested."""
    requests = list(log_files(tmp_path, generated_lines(3_000, clients=200, seed=2)).requests())
    suggestion = collected(requests).suggestion()
    path = tmp_path / "rules.toml"
    path.write_text(rules_text(suggestion, "access.log"))
    rules = load_rules(path)
    assert {endpoint: (one.max_tokens, one.refill_rate) for endpoint, (one,) in rules.items()} == {
        endpoint: (one.max_tokens, one.refill_rate)
        for endpoint, one in suggested_rules(suggestion, shadow=True).items()
    }
    assert all(one.shadow for several in rules.values() for one in several)
    assert {finding.code for finding in lint(rules, MIDNIGHT)} <= {"login_without_ip"}
    assert "WARNING: the log is shorter than a week" in path.read_text()


def test_hostile_paths_and_names_cannot_write_rules(tmp_path: Path) -> None:
    """Quotes, line ends and TOML in a path stay within their text."""
    evil = '/x"\n"*" = "1000/second'
    requests = [request_at(second, f"192.0.2.{second}", evil) for second in range(30)]
    requests += [request_at(31, path='/say"hi"')]
    given = ["GET /given\n[deny]\nip"]
    requests += [request_at(32, path="/given\n[deny]\nip")]
    text = rules_text(collected(requests, endpoints=given).suggestion(), 'log"\n[allow]\nip = ["0.0.0.0/1"]')
    path = tmp_path / "rules.toml"
    path.write_text(text)
    assert set(load_rules(path)) == {*given, "GET /{slug}/second", 'GET /say"hi"'}
    assert not load_rules(path).index_lists()


def test_robots_and_outliers_set_no_limit() -> None:
    """Fifty people who look twice, a robot and a scraper with a browser's name that look a thousand times."""
    requests = [request_at(60 * number, f"192.0.2.{number}", agent=AGENT_OTHER) for number in range(50)]
    requests += [request_at(60 * number + 5, f"192.0.2.{number}", agent=AGENT_OTHER) for number in range(50)]
    requests += [request_at(number, "198.51.100.1", agent=AGENT_ROBOT) for number in range(1_000)]
    requests += [request_at(number, "198.51.100.2", agent=AGENT_OTHER) for number in range(1_000)]
    collector = collected(sorted(requests, key=lambda one: one.time_us), share=Fraction(0))
    assert collector.suggestion().clients == {"honest": 50, "robot": 1, "no agent": 0, "prober": 0, "outlier": 1}
    (found,) = [one for one in collector.suggestion().endpoints if one.limit]
    assert (found.limit, found.honest_clients, found.other_clients) == ("12/hour burst 2", 50, 2)


def test_an_endpoint_that_only_robots_ask_for_gets_no_limit() -> None:
    """And the file says why."""
    requests = [request_at(second, path="/feed", agent=AGENT_ROBOT) for second in range(5)]
    suggestion = collected(requests).suggestion()
    assert [one.limit for one in suggestion.endpoints] == [None]
    assert "no honest-looking client" in rules_text(suggestion, "log")


def test_the_chosen_point_lets_a_client_take_least_in_the_window() -> None:
    """Of the frontier's points whose bucket fills within the window; found by trying all."""
    requests = [
        request_at(600 * number + second, f"192.0.2.{number}")
        for number in range(40)
        for second in (0, 1, 2, 3, 100, 200, 300)
    ]
    for window_s in (10, 60, 600, 3_600):
        (found,) = collected(requests, window_s=window_s).suggestion().endpoints
        takes = {
            name: point.high + per_hour * window_s / 3_600
            for (name, per_hour), point in zip(RATES_PER_HOUR.items(), found.frontier, strict=True)
            if point.high <= per_hour * window_s / 3_600
        }
        assert found.frontier[found.chosen].rate == min(takes, key=lambda name: takes[name])


def test_thin_and_short_logs_are_warned_of() -> None:
    """With how many clients decide, and how long the log is."""
    suggestion = collected([request_at(second, f"192.0.2.{second}") for second in range(30)]).suggestion()
    (found,) = suggestion.endpoints
    assert found.confidence == "low"
    assert found.warnings == ["only 30 honest-looking clients: the limit is what the greediest of them needed"]
    assert suggestion.warnings == ["the log is shorter than a day: it does not show the busy hours of others"]
    many = [request_at(number % 600, f"198.51.{number // 250}.{number % 250}") for number in range(2_000)]
    assert collected(many).suggestion().endpoints[0].confidence == "high"


def test_given_templates_come_first_and_the_rest_is_inferred() -> None:
    """What they fit is counted under them."""
    requests = [request_at(second, path=f"/{name}/{second}") for second in range(9) for name in ("a", "b")]
    suggestion = collected(requests, endpoints=["GET /a/{what}"]).suggestion()
    assert [(one.endpoint, one.requests) for one in suggestion.endpoints] == [
        ("GET /a/{what}", 9),
        ("GET /b/{id:int}", 9),
    ]


def test_only_the_busiest_endpoints_get_a_limit_and_the_rest_share_one() -> None:
    """As many as were asked for, and `*`."""
    requests = [request_at(number, path=f"/{name * 3}") for number in range(30) for name in "abcde"[: 1 + number // 6]]
    suggestion = collected(requests, max_endpoints=2).suggestion()
    assert [one.endpoint for one in suggestion.endpoints] == ["GET /aaa", "GET /bbb", "*"]


def test_templates_hold_for_what_comes_after_they_were_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first requests teach; a path that was never seen then fits what was learned."""
    monkeypatch.setattr("sluicegate.presentation.cli.replay.suggest.collector.LEARNED_REQUESTS", 20)
    requests = [request_at(number, path=f"/users/{number}") for number in range(50)]
    (found,) = collected(requests).suggestion().endpoints
    assert (found.endpoint, found.requests) == ("GET /users/{id:int}", 50)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"share": Fraction(1)}, "share=100"),
        ({"share": Fraction(-1, 100)}, "share=-1"),
        ({"window_s": 0}, "window=0"),
        ({"endpoints": ["send_email"]}, "endpoint='send_email'"),
    ],
)
def test_what_cannot_be_suggested_for_is_refused(options: dict[str, object], named: str) -> None:
    """The message names the option and its value."""
    with pytest.raises(InvalidInputError, match=named):
        SuggestionOptions(**options)  # type: ignore[arg-type]


def test_a_needs_histogram_counts_every_honest_client() -> None:
    """And can be printed as JSON."""
    (found,) = collected([request_at(second, f"192.0.2.{second % 5}") for second in range(20)]).suggestion().endpoints
    assert sum(count for _, count in found.needs) == 5
    assert json.dumps(found.needs)
