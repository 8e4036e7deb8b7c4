"""Work out the figures of a replay that has run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from sluicegate.presentation.cli.replay.clients import HONEST, Clients
from sluicegate.presentation.cli.replay.comparison import Comparison
from sluicegate.presentation.cli.replay.engine import Replay
from sluicegate.presentation.cli.replay.report.charts import heat_map, needs_rows, timeline_figures
from sluicegate.presentation.cli.replay.report.figures import (
    ClientRow,
    ComparisonFigures,
    FileRow,
    Malformed,
    PolicyRow,
    ReplayReport,
    RuleRow,
    WithoutRuleRow,
)
from sluicegate.presentation.cli.replay.source.log_files import LogFiles
from sluicegate.presentation.cli.replay.source.log_lines import display_name
from sluicegate.presentation.cli.replay.suggest.path_templates import infer
from sluicegate.presentation.cli.replay.suggest.suggestion import Suggestion
from sluicegate.presentation.cli.replay.tally import Tally

T = TypeVar("T")


def build_report(  # noqa: PLR0913 - the parts of a report, given by name
    *,
    replay: Replay,
    clients: Clients,
    files: LogFiles,
    top: int,
    comparison: Comparison | None = None,
    against_name: str = "",
    suggestion: Suggestion | None = None,
) -> ReplayReport:
    """Build the report of a replay that has run.

    Args:
        replay: The replay.
        clients: What each client looks like.
        files: What was read.
        top: How many rows of each list to include; 0: all.
        comparison: The replay beside another one.
        against_name: The name of the other rules file.
        suggestion: What is suggested.
    """
    total = Tally()
    honest: dict[str, bool] = {}
    for (_, who), tally in replay.tallies.items():
        total.add(tally)
        if clients.kind(who) == HONEST:
            honest[who] = honest.get(who, False) or tally.denied > 0
    rules = rule_rows(replay, clients)
    rows = sorted(_client_rows(replay, clients), key=lambda row: (-row.denied, -row.requests, row.client))
    without_rule = sorted(infer(replay.without_rule), key=lambda one: -one.requests)
    return ReplayReport(
        files=[
            FileRow(display_name(one.path), one.format.name if one.format else None, one.lines, one.malformed)
            for one in files.files
        ],
        lines=files.lines,
        requests=total.requests + replay.requests_without_rule,
        allowed=total.allowed,
        denied=total.denied,
        denied_share=total.denied_share,
        no_rule=replay.requests_without_rule,
        malformed=Malformed(files.malformed, files.samples),
        late=replay.late,
        evicted_unfull=replay.evicted_unfull,
        first=iso(replay.first_us),
        last=iso(replay.last_us),
        warnings=replay.warnings,
        client_kinds=clients.counts(),
        honest_clients=len(honest),
        honest_clients_denied=sum(honest.values()),
        rule_count=len(rules),
        client_count=len(rows),
        no_rule_endpoint_count=len(without_rule),
        rules=_top(rules, top),
        clients=_top(rows, top),
        no_rule_endpoints=_top([WithoutRuleRow(one.endpoint, one.requests) for one in without_rule], top),
        timeline=timeline_figures(replay.timeline),
        heat_map=heat_map(replay, clients),
        needs=[] if replay.needs is None else _top(needs_rows(replay.needs, clients), top),
        comparison=None if comparison is None else _comparison(comparison, against_name, clients, top),
        suggestion=suggestion,
    )


def rule_rows(replay: Replay, clients: Clients) -> list[RuleRow]:
    """Return the outcome by endpoint, the most denied first."""
    totals = {endpoint_rules.endpoint: Tally() for endpoint_rules in replay.rule_set.all_rules}
    counts: dict[str, Counter[str]] = {}
    denied_by: Counter[tuple[str, str]] = Counter()
    for (endpoint, who), tally in replay.tallies.items():
        totals.setdefault(endpoint, Tally()).add(tally)
        is_honest = clients.kind(who) == HONEST
        denied, shadow = tally.denied > 0, tally.shadow_denied > 0
        count = counts.setdefault(endpoint, Counter())
        count.update(clients=1, denied=denied, shadow=shadow)
        count.update(honest=is_honest, honest_denied=is_honest and denied, honest_shadow=is_honest and shadow)
        denied_by.update((endpoint, policy) for policy in tally.policies)
    policies = {one.endpoint: (one.limits, one.shadows) for one in replay.rule_set.all_rules}
    rows: list[RuleRow] = []
    for endpoint, total in totals.items():
        count = counts.get(endpoint, Counter())
        busiest = replay.denials_of[endpoint].busiest() if endpoint in replay.denials_of else None
        limits, shadows = policies.get(endpoint, ((), ()))
        rows.append(
            RuleRow(
                endpoint,
                [
                    _policy_row(replay, denied_by, endpoint, limit.rule.policy, shadow=limit.rule.shadow)
                    for limit in (*limits, *shadows)
                ],
                total.requests,
                total.allowed,
                total.denied,
                total.denied_share,
                total.shadow_denied,
                count["clients"],
                count["denied"],
                count["shadow"],
                count["honest"],
                count["honest_denied"],
                count["honest_shadow"],
                total.longest_wait_s if total.denied and total.longest_wait_s != float("inf") else None,
                iso(total.first_denied_us),
                iso(total.last_denied_us),
                None if busiest is None else iso(busiest[0] * 1_000_000),
                0 if busiest is None else busiest[1],
                0 if busiest is None else replay.denials_of[endpoint].width_s,
            )
        )
    return sorted(rows, key=lambda row: (-row.denied, -row.shadow_denied, -row.requests))


def _policy_row(
    replay: Replay, denied_by: Counter[tuple[str, str]], endpoint: str, policy: str, *, shadow: bool
) -> PolicyRow:
    tally = replay.denied_by.get((endpoint, policy), Tally())
    return PolicyRow(policy, shadow, tally.shadow_denied if shadow else tally.denied, denied_by[endpoint, policy])


def _client_rows(replay: Replay, clients: Clients) -> Iterable[ClientRow]:
    totals: dict[str, Tally] = {}
    worst: dict[str, tuple[int, int, str]] = {}
    for (endpoint, who), tally in replay.tallies.items():
        totals.setdefault(who, Tally()).add(tally)
        worst[who] = max(worst.get(who, (-1, -1, "")), (tally.denied, tally.requests, endpoint))
    for who, total in totals.items():
        yield ClientRow(
            who,
            clients.kind(who),
            total.requests,
            total.allowed,
            total.denied,
            total.denied_share,
            worst[who][2],
            iso(total.first_denied_us),
        )


def _comparison(comparison: Comparison, name: str, clients: Clients, top: int) -> ComparisonFigures:
    differing = comparison.clients()
    return ComparisonFigures(
        name,
        comparison.both + comparison.only_against,
        comparison.only_here,
        comparison.only_against,
        comparison.both,
        comparison.clients_only_here,
        comparison.clients_only_against,
        _top(rule_rows(comparison.against, clients), top),
        len(differing),
        _top(differing, top),
    )


def iso(time_us: int | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, to the second; None for None."""
    if time_us is None:
        return None
    return datetime.fromtimestamp(time_us // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _top(rows: Sequence[T], top: int) -> list[T]:
    return list(rows[:top] if top else rows)
