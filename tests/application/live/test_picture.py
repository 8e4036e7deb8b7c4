"""One picture of several processes: sums, rates, bounds, and what is left out."""

import msgspec

from sluicegate.application.live.live_figures import LiveFigures
from sluicegate.application.live.picture import MAX_ROWS, picture
from sluicegate.application.live.totals import quantile_ms
from sluicegate.application.live.worker_figures import WorkerFigures
from sluicegate.application.metrics.catalogue import DURATION
from sluicegate.application.rules.operator_changes import SwitchState
from support.live_figures import STARTED, worker_figures

LOGIN = ("POST /login", "login", "denied", "quota")
ALLOWED = ("POST /login", "login", "allowed", "quota")
LIMIT = ("sluicegate.limit", ("POST /login", "login", "ip", "enforced"), 5.0)


def picture_of(now: list[WorkerFigures], before: list[WorkerFigures] | None = None, missing: int = 0) -> LiveFigures:
    """Return the picture, as it is after a journey through JSON."""
    made = picture(now, before or [], STARTED, missing)
    return msgspec.json.decode(msgspec.json.encode(made), type=LiveFigures)


def test_counts_and_rates_of_processes_add_up() -> None:
    """Each process is measured by its own clock."""
    before = [worker_figures({ALLOWED: 10}, "0", 0), worker_figures({ALLOWED: 7, LOGIN: 1}, "1", 9_000_000)]
    now = [
        worker_figures({ALLOWED: 14, LOGIN: 6}, "0", 2_000_000, numbers=[LIMIT]),
        worker_figures({ALLOWED: 8, LOGIN: 1}, "1", 10_000_000),
    ]
    made = picture_of(now, before)
    assert (made.traffic.allowed, made.traffic.denied) == (22, 7)
    assert (made.traffic.allowed_per_second, made.traffic.denied_per_second) == (2 + 1, 3)
    assert (made.traffic.deny_share, made.traffic.deny_share_now) == (7 / 29, 0.5)
    (row,) = made.rules
    assert (row.allowed, row.denied, row.allowed_per_second, row.denied_per_second) == (22, 7, 3, 3)
    assert (row.scope, row.mode, row.max_tokens, row.refill_per_second) == ("ip", "enforced", 5, None)
    assert [(one.worker, one.decisions) for one in made.workers] == [("0", 20), ("1", 9)]
    assert made.window_seconds == 2


def test_nothing_is_invented_before_the_first_window() -> None:
    """Rates are unknown, not 0; a process that was started again has none yet, and no negative ones."""
    later = STARTED.replace(hour=8)
    now = [worker_figures({ALLOWED: 3}, read_us=5, started=later)]
    for before in ([], [worker_figures({ALLOWED: 99}, read_us=1)]):
        made = picture_of(now, before)
        assert (made.window_seconds, made.traffic.allowed_per_second, made.rules[0].denied_per_second) == (None,) * 3
        assert (made.traffic.allowed, made.traffic.deny_share_now) == (3, None)
    assert picture_of([worker_figures({})]).traffic.deny_share is None


def test_processes_that_do_not_answer_or_differ_are_told() -> None:
    """Also one whose storage does not answer, and how many breakers are open."""
    rules = msgspec.structs.replace(worker_figures({}).rules, version="v2")
    open_breaker = [("sluicegate.storage.breaker_open", (), 1.0), ("sluicegate.storage.calls", (), 4.0)]
    now = [
        worker_figures({}, "0", numbers=open_breaker),
        worker_figures({}, "1", rules=rules, storage_fault="timeout", numbers=open_breaker),
    ]
    made = picture_of(now, missing=3)
    assert (made.workers_missing, made.rules_differ) == (3, True)
    assert (made.storage.faults, made.storage.breakers_open, made.storage.calls) == (["timeout"], 2, 8)
    assert picture_of([worker_figures({})]).storage.breakers_open is None


def test_what_no_rule_decided_stands_with_its_endpoint_and_what_is_unknown_last() -> None:
    """A rule that is switched off says so."""
    counts = {("other", "other", "allowed", "quota"): 1, ("POST /login", "", "allowed", "switched_off"): 2}
    rules = msgspec.structs.replace(
        worker_figures({}).rules, named=["login"], switched_off=[SwitchState(("login",), None, "incident")]
    )
    other = ("sluicegate.limit", ("GET /a", "ip-1-60s", "ip", "shadow"), 1.0)
    made = picture_of([worker_figures(counts, numbers=[LIMIT, other], rules=rules)])
    assert [(row.endpoint, row.policy, row.switched_off, row.named) for row in made.rules] == [
        ("POST /login", "login", True, True),
        ("POST /login", "", False, False),
        ("GET /a", "ip-1-60s", False, False),
        ("other", "other", False, False),
    ]


def test_of_many_rules_the_busiest_are_shown() -> None:
    """In the order of the rules; how many are left out is told."""
    counts = {(f"GET /{n}", "p", "allowed", "quota"): n for n in range(MAX_ROWS + 3)}
    made = picture_of([worker_figures(counts)])
    assert (len(made.rules), made.rules_left_out) == (MAX_ROWS, 3)
    assert [row.allowed for row in made.rules] == list(range(3, MAX_ROWS + 3))


def test_latency_is_an_upper_bound_of_a_bin() -> None:
    """Since the beginning, and of the window."""
    bins = [0] * (len(DURATION.bounds) + 1)
    slow = list(bins)
    bins[2], slow[2], slow[9] = 98, 98, 2
    now = [worker_figures({}, read_us=1_000_000, durations={"allowed": slow})]
    made = picture_of(now, [worker_figures({}, durations={"allowed": bins})])
    assert (made.latency.count, made.latency.p50_ms, made.latency.p99_ms) == (100, 0.1, 25)
    assert (made.latency_now.count, made.latency_now.p50_ms) == (2, 25)
    assert quantile_ms([0, 0], 0.5) is None
    assert quantile_ms([0] * len(DURATION.bounds) + [1], 0.5) is None
