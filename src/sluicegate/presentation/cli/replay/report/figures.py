"""The figures of a replay. These structures are what `sluicegate replay --json` prints."""

import msgspec

from sluicegate.presentation.cli.replay.comparison import ComparedClient
from sluicegate.presentation.cli.replay.source.log_file import MalformedSample
from sluicegate.presentation.cli.replay.suggest.suggestion import Suggestion


class PolicyRow(msgspec.Struct, frozen=True):
    """What one rule of an endpoint denied.

    Args:
        policy: Its name.
        shadow: Whether it is in shadow mode: then it would have denied.
        denied: How many requests it denied; where several would have, the one that the client was told of counts.
        clients_denied: How many clients it denied at least once.
    """

    policy: str
    shadow: bool
    denied: int
    clients_denied: int


class RuleRow(msgspec.Struct, frozen=True):
    """The outcome of one endpoint's requests.

    Args:
        endpoint: The endpoint as its rule names it; `(allow list)` or `(deny list)` for requests that a list decided.
        policies: Its rules.
        requests: How many requests there were.
        allowed: How many of them were allowed.
        denied: How many were denied.
        denied_share: The denied part, 0 to 1.
        shadow_denied: How many a rule in shadow mode would have denied.
        clients: How many clients sent them.
        clients_denied: How many of these were denied at least once.
        clients_shadow_denied: How many a rule in shadow mode would have denied at least once.
        honest_clients: How many of the clients look honest.
        honest_clients_denied: How many of these were denied at least once.
        honest_clients_shadow_denied: How many of these a rule in shadow mode would have denied at least once.
        longest_wait_s: The longest wait in a denial, in seconds; None if none was denied, or no wait would have helped.
        first_denied: The time of the first denial (ISO 8601, UTC); None if there was none.
        last_denied: The time of the last one.
        busiest: When most were denied: the beginning of that span; None if none was.
        busiest_denied: How many were denied then.
        busiest_s: The length of that span in seconds.
    """

    endpoint: str
    policies: list[PolicyRow]
    requests: int
    allowed: int
    denied: int
    denied_share: float
    shadow_denied: int
    clients: int
    clients_denied: int
    clients_shadow_denied: int
    honest_clients: int
    honest_clients_denied: int
    honest_clients_shadow_denied: int
    longest_wait_s: float | None
    first_denied: str | None
    last_denied: str | None
    busiest: str | None
    busiest_denied: int
    busiest_s: int


class ClientRow(msgspec.Struct, frozen=True):
    """The outcome of one client's requests.

    Args:
        client: Its address, or its name.
        kind: What it looks like: `honest`, `robot`, `no agent`, `prober`, `outlier`.
        requests: How many of its requests a rule or a list decided.
        allowed: How many of them were allowed.
        denied: How many were denied.
        denied_share: The denied part, 0 to 1.
        worst_endpoint: The endpoint with the most denials; without any, the one with the most requests.
        first_denied: The time of the first denial (ISO 8601, UTC); None if there was none.
    """

    client: str
    kind: str
    requests: int
    allowed: int
    denied: int
    denied_share: float
    worst_endpoint: str
    first_denied: str | None


class WithoutRuleRow(msgspec.Struct, frozen=True):
    """A template without a rule, inferred from the paths, and how many requests it had."""

    endpoint: str
    requests: int


class Malformed(msgspec.Struct, frozen=True):
    """Lines that could not be replayed.

    Args:
        count: How many there were.
        first: The first few.
    """

    count: int
    first: list[MalformedSample]


class FileRow(msgspec.Struct, frozen=True):
    """A file that was read.

    Args:
        path: Its path.
        format: The format that it was read in; None if it had no line.
        lines: How many lines had something in them and were no header.
        malformed: How many of them could not be read.
    """

    path: str
    format: str | None
    lines: int
    malformed: int


class TimelineFigures(msgspec.Struct, frozen=True):
    """Requests under a rule or list over time.

    Args:
        start_s: The beginning of the first bin, in seconds since 1970.
        width_s: The width of a bin in seconds.
        allowed: How many were allowed in each bin.
        denied: How many were denied in each.
    """

    start_s: int
    width_s: int
    allowed: list[int]
    denied: list[int]


class OffenderRow(msgspec.Struct, frozen=True):
    """The denials of a client over time, in the bins of `HeatMap`."""

    client: str
    kind: str
    denied: list[int]


class HeatMap(msgspec.Struct, frozen=True):
    """Who was denied when.

    Args:
        start_s: The beginning of the first bin, in seconds since 1970.
        width_s: The width of a bin in seconds.
        rows: The most denied clients, most first.
    """

    start_s: int
    width_s: int
    rows: list[OffenderRow]


class NeedsRow(msgspec.Struct, frozen=True):
    """What burst the clients of a rule needed, beside what it gives.

    Args:
        endpoint: The endpoint.
        policy: The rule.
        max_tokens: Its burst.
        upper: The upper ends of the bins, each twice the one before: a client that needed 3 is in the bin of 4.
        honest: How many honest-looking clients are in each bin.
        others: How many other clients are.
    """

    endpoint: str
    policy: str
    max_tokens: int
    upper: list[int]
    honest: list[int]
    others: list[int]


class ComparisonFigures(msgspec.Struct, frozen=True):
    """What other rules would have done with the same requests.

    Args:
        rules: The other rules file.
        denied: How many requests it denies.
        only_here: Requests that only the rules deny.
        only_against: Requests that only the other rules deny.
        both: Requests that both deny.
        clients_only_here: Clients that only the rules deny.
        clients_only_against: Clients that only the other rules deny.
        endpoints: The outcome by endpoint of the other rules, the most denied first.
        client_count: How many rows `clients` would have in full.
        clients: Clients whose denials differ, the greatest difference first.
    """

    rules: str
    denied: int
    only_here: int
    only_against: int
    both: int
    clients_only_here: int
    clients_only_against: int
    endpoints: list[RuleRow]
    client_count: int
    clients: list[ComparedClient]


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a replay.

    Args:
        files: The files and their formats.
        lines: How many lines were not blank and no headers. Each is malformed or a request.
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
        client_kinds: How many clients look like what.
        honest_clients: How many clients that a rule or list decided look honest.
        honest_clients_denied: How many of these were denied at least once.
        rule_count: How many rows `rules` would have in full: endpoints with a rule, and lists that decided.
        client_count: How many rows `clients` would have in full.
        no_rule_endpoint_count: How many different templates without a rule there were.
        rules: Rows of endpoints, the most denied first.
        clients: Rows of clients, the most denied first.
        no_rule_endpoints: Templates without a rule, the most frequent first.
        timeline: Requests under a rule over time; None without any.
        heat_map: Who was denied when; None if nobody was.
        needs: What clients needed at each rule; empty unless it was measured.
        comparison: What other rules would have done; None: there are none.
        suggestion: What is suggested; None: nothing was asked for.
    """

    files: list[FileRow]
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
    client_kinds: dict[str, int]
    honest_clients: int
    honest_clients_denied: int
    rule_count: int
    client_count: int
    no_rule_endpoint_count: int
    rules: list[RuleRow]
    clients: list[ClientRow]
    no_rule_endpoints: list[WithoutRuleRow]
    timeline: TimelineFigures | None
    heat_map: HeatMap | None
    needs: list[NeedsRow]
    comparison: ComparisonFigures | None
    suggestion: Suggestion | None
