"""A limiter whose metrics are read as Prometheus reads them."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sluicegate import InlineEventBus, MemoryStorage, TokenBucketAdapter
from sluicegate.application.metrics.catalogue import OF_EVENTS, OF_STATE
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.metrics import PrometheusMetrics

RULES = """
[policies]
login = "2/minute"
tight = "2/minute per user"
tried = { rate = "1/minute", shadow = true }
refuses = { rate = "1/minute", on_storage_error = "deny" }
guards = { rate = "1/minute", on_storage_error = "local" }

[endpoints]
"POST /login" = "login"
"GET /two" = ["3/minute", "tight"]
"GET /tried" = "tried"
"GET /refuses" = "refuses"
"GET /guards" = "guards"

[deny]
ip = ["192.0.2.66"]

[allow]
ip = ["192.0.2.77"]
"""


class Metered:
    """A limiter with metrics.

    Args:
        rules: The text of a rules file, or rules.
        storage: Where the buckets are; None: in memory.
        bus: Its bus; None: an inline one.
    """

    def __init__(self, rules: Any = RULES, storage: Any = None, bus: Any = None) -> None:
        self.bus = bus or InlineEventBus()
        self.limiter = TokenBucketAdapter(
            storage=storage or MemoryStorage(),
            rules=parse_rules(rules) if isinstance(rules, str) else rules,
            event_bus=self.bus,
        )
        self.metrics = PrometheusMetrics(self.limiter, self.bus)

    async def ask(self, endpoint: str, identifier: Any = "192.0.2.1", times: int = 1) -> None:
        """Check."""
        for _ in range(times):
            await self.limiter.is_allowed(endpoint=endpoint, identifier=identifier)

    def series(self) -> dict[tuple[str, ...], float]:
        """Return all series but the times at which they were created: name and values of the labels."""
        return dict(series_of(self.metrics.exposition()))

    def requests(self) -> dict[tuple[str, ...], float]:
        """Return the values of `sluicegate_requests_total` by endpoint, policy, result and reason."""
        return {key[1:]: value for key, value in self.series().items() if key[0] == "sluicegate_requests_total"}


def series_of(text: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Read an exposition."""
    names = {metric.prometheus_name: metric.labels for metric in (*OF_EVENTS, *OF_STATE)}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                order = names.get(sample.name, tuple(sorted(sample.labels)))
                yield (sample.name, *[sample.labels[label] for label in order]), sample.value
