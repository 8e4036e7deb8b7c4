"""The result of a replay. These structures are what `sluicegate replay --json` prints."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from sluicegate.domain.compiled_rules import CompiledRules
from sluicegate.presentation.cli.replay.engine import MalformedSample, Replay
from sluicegate.presentation.cli.replay.tally import Tally

T = TypeVar("T")


class RuleRow(msgspec.Struct, frozen=True):
    """The outcome of one endpoint's requests.

    Args:
        endpoint: The endpoint as its rule names it; `(allow list)` or `(deny list)` for requests that a list decided.
        policies: The names of its rules.
        requests: How many requests there were.
        allowed: How many of them were allowed.
        denied: How many were denied.
        denied_share: The denied part, 0 to 1.
        shadow_denied: How many a rule in shadow mode would have denied.
        clients: How many clients sent them.
        clients_denied: How many of these were denied at least once.
        longest_wait_s: The longest wait in a denial, in seconds; None if none was denied, or no wait would have helped.
    """

    endpoint: str
    policies: list[str]
    requests: int
    allowed: int
    denied: int
    denied_share: float
    shadow_denied: int
    clients: int
    clients_denied: int
    longest_wait_s: float | None


class ClientRow(msgspec.Struct, frozen=True):
    """The outcome of one client's requests.

    Args:
        client: Its address.
        requests: How many of its requests a rule or a list decided.
        allowed: How many of them were allowed.
        denied: How many were denied.
        denied_share: The denied part, 0 to 1.
        worst_endpoint: The endpoint with the most denials; without any, the one with the most requests.
        first_denied: The time of the first denial (ISO 8601, UTC); None if there was none.
    """

    client: str
    requests: int
    allowed: int
    denied: int
    denied_share: float
    worst_endpoint: str
    first_denied: str | None


class WithoutRuleRow(msgspec.Struct, frozen=True):
    """An endpoint without a rule, and how many requests it had."""

    endpoint: str
    requests: int


class Malformed(msgspec.Struct, frozen=True):
    """How many lines could not be replayed, and the first few."""

    count: int
    first: list[MalformedSample]


class ReplayReport(msgspec.Struct, frozen=True):
    """The result of a replay.

    Args:
        lines: Lines that are not blank. Each is malformed or a request.
        requests: Requests that were checked: allowed, denied or without a rule.
        allowed: Requests that a rule or a list allowed.
        denied: Requests that a rule or a list denied.
        denied_share: The denied part of these two, 0 to 1.
        no_rule: Requests without a rule or a list entry.
        malformed: Lines that could not be replayed.
        late: Requests that were too far out of order to be put in order.
        evicted_unfull: Buckets that were evicted before they were full; above 0, more requests were allowed than with
            enough memory.
        first: The time of the first request (ISO 8601, UTC); None if there was none.
        last: The time of the last request.
        warnings: The limiter's warnings, such as about a kill switch.
        rule_count: How many rows `rules` would have in full: endpoints with a rule, and lists that decided.
        client_count: How many rows `clients` would have in full.
        no_rule_endpoint_count: How many different endpoints without a rule were counted.
        rules: Rows of endpoints, the most denied first.
        clients: Rows of clients, the most denied first.
        no_rule_endpoints: Endpoints without a rule, the most frequent first.
    """

    lines: int
    requests: int
    allowed: int
    denied: int
    denied_share: float
    no_rule: int
    malformed: Malformed
    late: int
    evicted_unfull: int
    first: str | None
    last: str | None
    warnings: list[str]
    rule_count: int
    client_count: int
    no_rule_endpoint_count: int
    rules: list[RuleRow]
    clients: list[ClientRow]
    no_rule_endpoints: list[WithoutRuleRow]


def build_report(replay: Replay, top: int) -> ReplayReport:
    """Build the report of a replay that has run.

    Args:
        replay: The replay.
        top: How many rows of each list to include; 0: all.
    """
    total = Tally()
    for tally in replay.tallies.values():
        total.add(tally)
    rules = sorted(_rule_rows(replay), key=lambda row: (-row.denied, -row.requests))
    clients = sorted(_client_rows(replay), key=lambda row: (-row.denied, -row.requests, row.client))
    return ReplayReport(
        lines=replay.lines,
        requests=total.requests + replay.requests_without_rule,
        allowed=total.allowed,
        denied=total.denied,
        denied_share=total.denied_share,
        no_rule=replay.requests_without_rule,
        malformed=Malformed(replay.malformed, replay.malformed_samples),
        late=replay.late,
        evicted_unfull=replay.evicted_unfull,
        first=_iso(replay.first_s),
        last=_iso(replay.last_s),
        warnings=replay.warnings,
        rule_count=len(rules),
        client_count=len(clients),
        no_rule_endpoint_count=len(replay.without_rule),
        rules=_top(rules, top),
        clients=_top(clients, top),
        no_rule_endpoints=_top([WithoutRuleRow(*item) for item in replay.without_rule.most_common()], top),
    )


def _rule_rows(replay: Replay) -> Iterable[RuleRow]:
    totals = {endpoint_rules.endpoint: Tally() for endpoint_rules in replay.rule_set.all_rules}
    clients: Counter[str] = Counter()
    clients_denied: Counter[str] = Counter()
    for (endpoint, _), tally in replay.tallies.items():
        totals.setdefault(endpoint, Tally()).add(tally)
        clients[endpoint] += 1
        clients_denied[endpoint] += tally.denied > 0
    policies = _policies(replay.rule_set)
    for endpoint, total in totals.items():
        yield RuleRow(
            endpoint,
            policies.get(endpoint, []),
            total.requests,
            total.allowed,
            total.denied,
            total.denied_share,
            total.shadow_denied,
            clients[endpoint],
            clients_denied[endpoint],
            total.longest_wait_s if total.denied and total.longest_wait_s != float("inf") else None,
        )


def _client_rows(replay: Replay) -> Iterable[ClientRow]:
    totals: dict[str, Tally] = {}
    worst: dict[str, tuple[int, int, str]] = {}
    for (endpoint, client), tally in replay.tallies.items():
        totals.setdefault(client, Tally()).add(tally)
        worst[client] = max(worst.get(client, (-1, -1, "")), (tally.denied, tally.requests, endpoint))
    for client, total in totals.items():
        yield ClientRow(
            client,
            total.requests,
            total.allowed,
            total.denied,
            total.denied_share,
            worst[client][2],
            _iso(total.first_denied_s),
        )


def _policies(rules: CompiledRules) -> dict[str, list[str]]:
    return {
        endpoint_rules.endpoint: [
            *(limit.rule.policy for limit in endpoint_rules.limits),
            *(f"{limit.rule.policy} (shadow)" for limit in endpoint_rules.shadows),
        ]
        for endpoint_rules in rules.all_rules
    }


def _iso(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _top(rows: Sequence[T], top: int) -> list[T]:
    return list(rows[:top] if top else rows)
