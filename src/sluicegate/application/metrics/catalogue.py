"""The metrics: their names, units, labels and meaning. Every exporter has exactly these."""

from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Metric(msgspec.Struct, frozen=True, cache_hash=True):
    """One metric.

    Args:
        name: Its name with dots, as OpenTelemetry has it; Prometheus writes underscores, and appends unit and `total`.
        kind: A counter, a gauge or a histogram.
        help: What it means.
        labels: The names of its labels. No label has a value that a client chooses.
        unit: Its unit, where it has one: `seconds`, `tokens` or `tokens_per_second`.
        bounds: Of a histogram, the upper bounds of its buckets.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """The name that Prometheus shows."""
        name = self.name.replace(".", "_")
        name = f"{name}_{self.unit}" if self.unit else name
        return f"{name}_total" if self.kind == "counter" else name


_RULE: Final = ("endpoint", "policy")
_CHECK_BOUNDS_S: Final = (
    0.00001,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    1.0,
)  # memory answers in microseconds, and the default deadline is 50 ms
_CALL_BOUNDS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

REQUESTS: Final = Metric(
    "sluicegate.requests",
    "counter",
    "Checks by what was decided, and why.",
    (*_RULE, "result", "reason"),
)
DURATION: Final = Metric(
    "sluicegate.request.duration",
    "histogram",
    "How long checks took that asked the storage.",
    ("result",),
    "seconds",
    _CHECK_BOUNDS_S,
)
FAILURES: Final = Metric(
    "sluicegate.failures",
    "counter",
    "Checks that a failure policy answered, by the policy and by what kept the storage from answering.",
    ("on_storage_error", "cause"),
)
SHADOW_DENIED: Final = Metric(
    "sluicegate.shadow_denied", "counter", "Requests that rules in shadow mode would have denied.", _RULE
)
UNCHARGED: Final = Metric(
    "sluicegate.uncharged",
    "counter",
    "Tokens of commits beyond the greatest debt, which were not charged.",
    _RULE,
    "tokens",
)
LEASE_DURATION: Final = Metric(
    "sluicegate.request_lease.duration",
    "histogram",
    "How long calls were in flight that have ended.",
    _RULE,
    "seconds",
    _CALL_BOUNDS_S,
)
ACTIVE_LEASES: Final = Metric(
    "sluicegate.active_request_leases", "gauge", "Calls that this process began and that are in flight.", _RULE
)
RESERVED: Final = Metric(
    "sluicegate.reserved",
    "gauge",
    "Tokens that this process has reserved and that are not settled yet.",
    _RULE,
    "tokens",
)
LIMIT: Final = Metric(
    "sluicegate.limit",
    "gauge",
    "The capacity that a rule in force is configured with.",
    (*_RULE, "scope", "mode"),
    "tokens",
)
LIMIT_RATE: Final = Metric(
    "sluicegate.limit.refill",
    "gauge",
    "The rate that a rule in force is configured with.",
    (*_RULE, "scope", "mode"),
    "tokens_per_second",
)
RULES_CHANGES: Final = Metric("sluicegate.rules.changes", "counter", "How often other rules came into force.")
RULES_REFUSALS: Final = Metric("sluicegate.rules.refusals", "counter", "How often rules were refused.")
RULES_VALID: Final = Metric(
    "sluicegate.rules.valid", "gauge", "1; 0 from when rules were refused until others come into force."
)
SWITCHED_OFF: Final = Metric("sluicegate.rules.switched_off", "gauge", "Kill switches that are thrown.")
OVERRIDES: Final = Metric("sluicegate.rules.overrides", "gauge", "Overrides that were added while the limiter runs.")
EVENTS_DROPPED: Final = Metric(
    "sluicegate.events.dropped", "counter", "Events and log lines that were lost: these numbers may be too low."
)
STORAGE_CALLS: Final = Metric("sluicegate.storage.calls", "counter", "Calls that were sent to the storage's server.")
STORAGE_ROUND_TRIPS: Final = Metric(
    "sluicegate.storage.round_trips", "counter", "Batches in which these calls were sent."
)
DENIALS_REPEATED: Final = Metric(
    "sluicegate.storage.denials_repeated", "counter", "Checks that were denied from the cache of denials."
)
BREAKER_OPEN: Final = Metric(
    "sluicegate.storage.breaker_open", "gauge", "1 while a server of the storage is not asked, else 0."
)
BORROWED: Final = Metric(
    "sluicegate.lease.borrowed", "counter", "Tokens that were lent to this process.", unit="tokens"
)
RETURNED: Final = Metric("sluicegate.lease.returned", "counter", "Lent tokens that were given back.", unit="tokens")
LENT: Final = Metric(
    "sluicegate.lease.held", "gauge", "Lent tokens that this process has and has not spent.", unit="tokens"
)
LOST: Final = Metric(
    "sluicegate.lease.lost", "counter", "Lent tokens that ended unspent, or are in doubt.", unit="tokens"
)

OF_EVENTS: Final = (REQUESTS, DURATION, FAILURES, SHADOW_DENIED, UNCHARGED, LEASE_DURATION)
"""Those that are counted as events come."""

OF_CLAIMS: Final = (ACTIVE_LEASES, RESERVED)
OF_RULES: Final = (LIMIT, LIMIT_RATE)
OF_STATE: Final = (
    *OF_CLAIMS,
    *OF_RULES,
    RULES_CHANGES,
    RULES_REFUSALS,
    RULES_VALID,
    SWITCHED_OFF,
    OVERRIDES,
    EVENTS_DROPPED,
    STORAGE_CALLS,
    STORAGE_ROUND_TRIPS,
    DENIALS_REPEATED,
    BREAKER_OPEN,
    LENT,
    BORROWED,
    RETURNED,
    LOST,
)
"""Those that are read at collection."""
