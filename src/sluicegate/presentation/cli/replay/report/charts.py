"""Work out what the charts show: requests over time, who was denied when, needs beside limits."""

from sluicegate.presentation.cli.replay.clients import HONEST, Clients
from sluicegate.presentation.cli.replay.engine import ALLOWED, DENIED, Replay
from sluicegate.presentation.cli.replay.report.figures import HeatMap, NeedsRow, OffenderRow, TimelineFigures
from sluicegate.presentation.cli.replay.rule_needs import RuleNeeds
from sluicegate.presentation.cli.replay.timeline import Timeline

_OFFENDERS = 20


def timeline_figures(timeline: Timeline) -> TimelineFigures | None:
    """Return the requests over time; None if there are none."""
    rows = list(timeline.rows())
    if not rows:
        return None
    return TimelineFigures(
        rows[0][0],
        timeline.width_s,
        [counts[ALLOWED] for _, counts in rows],
        [counts[DENIED] for _, counts in rows],
    )


def heat_map(replay: Replay, clients: Clients) -> HeatMap | None:
    """Return the denials of the most denied clients over time, in bins that all of them share; None without any."""
    found = replay.offenders.most_denied(_OFFENDERS)
    if not found:
        return None
    shared = Timeline(max_bins=replay.offenders.max_bins)
    for _, timeline in found:
        for start_s, (count,) in timeline.rows():
            if count:
                shared.add(start_s * 1_000_000)
    # Bins of a client that are wider than the shared ones would count at their beginning.
    width_s = max([shared.width_s, *(timeline.width_s for _, timeline in found)])
    shared.widen(width_s)
    starts = {start_s: place for place, (start_s, _) in enumerate(shared.rows())}
    rows: list[OffenderRow] = []
    for who, timeline in found:
        denied = [0] * len(starts)
        for start_s, (count,) in timeline.rows():
            if count:
                denied[starts[start_s // width_s * width_s]] += count
        rows.append(OffenderRow(who, clients.kind(who), denied))
    return HeatMap(min(starts), width_s, rows)


def needs_rows(needs: RuleNeeds, clients: Clients) -> list[NeedsRow]:
    """Return what the clients of each rule needed, in bins that double, the rules that deny most clients first.

    Rules without clients are left out.
    """
    rows: list[tuple[int, NeedsRow]] = []
    for endpoint, policy, max_tokens, need_of in needs.rows():
        if not need_of:
            continue
        bins = max(*need_of.values(), max_tokens).bit_length() + 1
        honest, others = [0] * bins, [0] * bins
        for who, need in need_of.items():
            counted = honest if clients.kind(who) == HONEST else others
            counted[(need - 1).bit_length()] += 1
        denied = sum(need > max_tokens for need in need_of.values())
        rows.append(
            (denied, NeedsRow(endpoint, policy, max_tokens, [1 << number for number in range(bins)], honest, others))
        )
    return [row for _, row in sorted(rows, key=lambda one: -one[0])]
