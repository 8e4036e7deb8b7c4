"""Make one picture of what the processes of a limiter tell."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import nlargest
from typing import Final

import msgspec

from sluicegate.application.live.hot_list import merge
from sluicegate.application.live.live_figures import (
    FailureRow,
    HotFigures,
    Latency,
    LiveFigures,
    ReasonRow,
    RuleRow,
    StorageRow,
    Traffic,
    WorkerRow,
)
from sluicegate.application.live.totals import Totals, quantile_ms
from sluicegate.application.live.worker_figures import RulesFigures, WorkerFigures
from sluicegate.application.metrics.catalogue import (
    ACTIVE_LEASES,
    BREAKER_OPEN,
    DENIALS_REPEATED,
    EVENTS_DROPPED,
    FAILURES,
    LIMIT,
    LIMIT_RATE,
    REQUESTS,
    RESERVED,
    RULES_CHANGES,
    RULES_REFUSALS,
    SHADOW_DENIED,
    STORAGE_CALLS,
    STORAGE_ROUND_TRIPS,
)

MAX_ROWS: Final = 200
"""How many rules a picture shows at most."""

_OF_RULES: Final = {"shadow_denied": SHADOW_DENIED, "in_flight": ACTIVE_LEASES, "reserved": RESERVED}
"""Metrics by rule, and the field of a row that has each."""


def picture(now: Sequence[WorkerFigures], before: Sequence[WorkerFigures], at: datetime, missing: int) -> LiveFigures:
    """Return one picture.

    Args:
        now: The figures of the processes that answered, the one that asks first; at least one.
        before: Their earlier figures, from the beginning of the window; empty: there is none yet.
        at: The wall clock.
        missing: How many processes did not answer.
    """
    own, totals = now[0], Totals(now, before)
    window_s = totals.window_us / 1e6 if totals.window_us else None
    measured = window_s is not None
    rows = list(_rule_rows(own, totals, measured=measured))
    return LiveFigures(
        at=at,
        window_seconds=window_s,
        workers=[_worker_row(one) for one in now],
        workers_missing=missing,
        traffic=_traffic(totals, measured=measured),
        reasons=_reasons(totals),
        rules=_busiest(rows),
        rules_left_out=max(0, len(rows) - MAX_ROWS),
        latency=_latency(totals.bins),
        latency_now=_latency(totals.bins_now),
        failures=[
            FailureRow(policy=policy, cause=cause, count=int(count))
            for (policy, cause), count in sorted(totals.by_labels(FAILURES).items())
        ],
        storage=_storage(now, totals),
        in_force=own.rules,
        rules_differ=len({one.rules.version for one in now}) > 1,
        rules_changes=_own(own, RULES_CHANGES.name),
        rules_refusals=_own(own, RULES_REFUSALS.name),
        hot=_hot(now),
        events_dropped=totals.one(EVENTS_DROPPED),
    )


def _traffic(totals: Totals, *, measured: bool) -> Traffic:
    counts = {"allowed": 0, "denied": 0}
    rates = {"allowed": 0.0, "denied": 0.0}
    for (_, _, result, _), count in totals.by_labels(REQUESTS).items():
        counts[result] += int(count)
    for (_, _, result, _), rate in totals.rates.items():
        rates[result] += rate
    return Traffic(
        allowed=counts["allowed"],
        denied=counts["denied"],
        deny_share=_share(counts["denied"], counts["allowed"]),
        allowed_per_second=rates["allowed"] if measured else None,
        denied_per_second=rates["denied"] if measured else None,
        deny_share_now=_share(rates["denied"], rates["allowed"]),
    )


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest else None


def _reasons(totals: Totals) -> list[ReasonRow]:
    counts: dict[tuple[str, str], int] = {}
    for (_, _, result, reason), count in totals.by_labels(REQUESTS).items():
        counts[result, reason] = counts.get((result, reason), 0) + int(count)
    return [ReasonRow(result=result, reason=reason, count=count) for (result, reason), count in sorted(counts.items())]


def _rule_rows(own: WorkerFigures, totals: Totals, *, measured: bool) -> Iterator[RuleRow]:
    """Yield the rules in force, each endpoint's with what none of them decided, then what belongs to no endpoint of theirs."""
    rows = _rules_in_force(own)
    for (endpoint, policy, result, _), count in totals.by_labels(REQUESTS).items():
        row = _row(rows, endpoint, policy)
        rows[endpoint, policy] = msgspec.structs.replace(row, **{result: getattr(row, result) + int(count)})
    for field, metric in _OF_RULES.items():
        for (endpoint, policy), count in totals.by_labels(metric).items():
            row = _row(rows, endpoint, policy)
            rows[endpoint, policy] = msgspec.structs.replace(row, **{field: int(count)})
    rates: dict[tuple[str, str, str], float] = {}
    for (endpoint, policy, result, _), rate in totals.rates.items():
        rates[endpoint, policy, result] = rates.get((endpoint, policy, result), 0.0) + rate
    places = {endpoint: place for place, endpoint in enumerate(dict.fromkeys([endpoint for endpoint, _ in rows]))}
    for (endpoint, policy), row in sorted(rows.items(), key=lambda item: places[item[0][0]]):
        if not measured:
            yield row
            continue
        yield msgspec.structs.replace(
            row,
            allowed_per_second=rates.get((endpoint, policy, "allowed"), 0.0),
            denied_per_second=rates.get((endpoint, policy, "denied"), 0.0),
        )


def _rules_in_force(own: WorkerFigures) -> dict[tuple[str, str], RuleRow]:
    rates = {tuple(labels): value for name, labels, value in own.numbers if name == LIMIT_RATE.name}
    named = set(own.rules.named)
    rows: dict[tuple[str, str], RuleRow] = {}
    for name, labels, value in own.numbers:
        if name != LIMIT.name:
            continue
        endpoint, policy, scope, mode = labels
        rows[endpoint, policy] = RuleRow(
            endpoint=endpoint,
            policy=policy,
            scope=scope,
            mode=mode,
            max_tokens=int(value),
            refill_per_second=rates.get(tuple(labels)),
            switched_off=_is_off(own.rules, policy),
            named=policy in named,
        )
    return rows


def _row(rows: dict[tuple[str, str], RuleRow], endpoint: str, policy: str) -> RuleRow:
    return rows.setdefault((endpoint, policy), RuleRow(endpoint=endpoint, policy=policy))


def _is_off(rules: RulesFigures, policy: str) -> bool:
    return any(not switch.policies or policy in switch.policies for switch in rules.switched_off)


def _busiest(rows: list[RuleRow]) -> list[RuleRow]:
    """Return the rows with the most checks, in their order."""
    if len(rows) <= MAX_ROWS:
        return rows
    kept = nlargest(MAX_ROWS, range(len(rows)), key=lambda at: (rows[at].allowed + rows[at].denied, -at))
    return [rows[at] for at in sorted(kept)]


def _latency(bins: Sequence[int]) -> Latency:
    return Latency(count=sum(bins), p50_ms=quantile_ms(bins, 0.5), p99_ms=quantile_ms(bins, 0.99))


def _worker_row(worker: WorkerFigures) -> WorkerRow:
    return WorkerRow(
        worker=worker.worker,
        started=worker.started,
        decisions=int(sum(value for name, _, value in worker.numbers if name == REQUESTS.name)),
        rules_version=worker.rules.version,
        storage_fault=worker.storage_fault,
    )


def _storage(now: Sequence[WorkerFigures], totals: Totals) -> StorageRow:
    row = StorageRow(kind=now[0].storage, faults=sorted({one.storage_fault for one in now if one.storage_fault}))
    if not totals.by_labels(BREAKER_OPEN):
        return row
    return msgspec.structs.replace(
        row,
        breakers_open=totals.one(BREAKER_OPEN),
        calls=totals.one(STORAGE_CALLS),
        round_trips=totals.one(STORAGE_ROUND_TRIPS),
        denials_repeated=totals.one(DENIALS_REPEATED),
    )


def _hot(now: Sequence[WorkerFigures]) -> HotFigures | None:
    asked = [one.asked for one in now if one.asked is not None]
    denied = [one.denied for one in now if one.denied is not None]
    if not asked or not denied:
        return None
    return HotFigures(identifiers=now[0].identifiers, asked=merge(asked), denied=merge(denied))


def _own(worker: WorkerFigures, name: str) -> int:
    return int(next((value for found, _, value in worker.numbers if found == name), 0))
