"""What people see who watch a limiter: one picture of all its processes. Its fields are those of the JSON."""

from datetime import datetime

import msgspec

from sluicegate.application.live.hot_list import HotList
from sluicegate.application.live.worker_figures import Identifiers, RulesFigures


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process.

    Args:
        worker: Its name.
        started: When it began to count.
        decisions: How many checks it has decided.
        rules_version: The version of its rules.
        storage_fault: Why its storage does not answer, in one word; None: it does.
    """

    worker: str
    started: datetime
    decisions: int
    rules_version: str
    storage_fault: str | None


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """How many checks were decided, and how fast.

    Args:
        allowed: Allowed since the processes began.
        denied: Denied since then.
        deny_share: The denied part of both, 0 to 1; None: there were none.
        allowed_per_second: In the latest window; None: it has not ended yet.
        denied_per_second: The same.
        deny_share_now: The denied part of the latest window; None: there were none.
    """

    allowed: int
    denied: int
    deny_share: float | None
    allowed_per_second: float | None
    denied_per_second: float | None
    deny_share_now: float | None


class ReasonRow(msgspec.Struct, frozen=True, kw_only=True):
    """Checks with the same result for the same reason."""

    result: str
    reason: str
    count: int


class RuleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, and the checks that it decided.

    Args:
        endpoint: The endpoint, `other` for what is no endpoint of the rules.
        policy: The rule's name; empty: no single rule decided.
        scope: What it counts by; empty where it is no rule.
        mode: `enforced`, `shadow` or `disabled`; empty where it is no rule.
        max_tokens: Its capacity; None where it is no rule.
        refill_per_second: Its rate; None where it has none.
        switched_off: Whether a kill switch has switched it off.
        named: Whether it has a name of its own, by which it can be switched off.
        allowed: Checks that it allowed, of several rules the one that had least left.
        denied: Checks that it denied.
        shadow_denied: Checks that it would have denied if it were not in shadow mode.
        in_flight: Calls in flight that these processes began; None: there were none since they count.
        reserved: Tokens that these processes have reserved and that are not settled yet; None: there were none.
        allowed_per_second: In the latest window; None: it has not ended yet.
        denied_per_second: The same.
    """

    endpoint: str
    policy: str
    scope: str = ""
    mode: str = ""
    max_tokens: int | None = None
    refill_per_second: float | None = None
    switched_off: bool = False
    named: bool = False
    allowed: int = 0
    denied: int = 0
    shadow_denied: int = 0
    in_flight: int | None = None
    reserved: int | None = None
    allowed_per_second: float | None = None
    denied_per_second: float | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long checks took that asked the storage, as upper bounds; None: there was none, or the highest bound was exceeded.

    Args:
        count: How many there were.
        p50_ms: Half of them took this many milliseconds at most.
        p99_ms: 99 of 100 took this many milliseconds at most.
    """

    count: int
    p50_ms: float | None
    p99_ms: float | None


class FailureRow(msgspec.Struct, frozen=True, kw_only=True):
    """Checks that a failure policy answered."""

    policy: str
    cause: str
    count: int


class StorageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Where the buckets are.

    Args:
        kind: Its class.
        faults: Why it does not answer, each once; empty: it does.
        breakers_open: In how many processes a server of it is not asked for now; None: it has no server.
        calls: Calls that were sent to its server; None: it has none.
        round_trips: Batches in which they were sent.
        denials_repeated: Checks that were denied from the cache of denials.
    """

    kind: str
    faults: list[str]
    breakers_open: int | None = None
    calls: int | None = None
    round_trips: int | None = None
    denials_repeated: int | None = None


class HotFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Who is hot.

    Args:
        identifiers: How clients are shown.
        asked: The keys with the most requests.
        denied: The keys with the most denials.
    """

    identifiers: Identifiers
    asked: HotList
    denied: HotList


class LiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Args:
        at: When.
        window_seconds: How long the latest window was; None: it has not ended yet.
        workers: The processes whose numbers these are.
        workers_missing: How many did not answer in time: their numbers are not in here.
        traffic: All checks.
        reasons: The same by result and reason.
        rules: By rule, in the order of the rules.
        rules_left_out: How many rows more there would be, those with the fewest checks.
        latency: Since the processes began.
        latency_now: In the latest window.
        failures: What the failure policy answered, and why.
        storage: Where the buckets are.
        in_force: The rules in force.
        rules_differ: Whether processes have rules of different versions.
        rules_changes: How often others came into force, in the process that answers.
        rules_refusals: How often others were refused there.
        hot: The hottest keys; None if they are not counted.
        events_dropped: Events and log lines that were lost: the numbers may be too low.
    """

    at: datetime
    window_seconds: float | None
    workers: list[WorkerRow]
    workers_missing: int
    traffic: Traffic
    reasons: list[ReasonRow]
    rules: list[RuleRow]
    rules_left_out: int
    latency: Latency
    latency_now: Latency
    failures: list[FailureRow]
    storage: StorageRow
    in_force: RulesFigures
    rules_differ: bool
    rules_changes: int
    rules_refusals: int
    hot: HotFigures | None
    events_dropped: int
