"""What a check in memory costs that is counted, or traced: `python benchmarks/metrics_costs.py`, a quarter of a minute.

With the interpreter of `benchmarks/.venv` the limiter is compiled, as in a wheel; with that of `.venv` it is not.
"""

import asyncio
from collections.abc import Callable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider

import sluicegate
from rounds import Check, Contestant, alternate, one_by_one, ratio
from sluicegate import InlineEventBus, MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.metrics import PrometheusMetrics
from sluicegate.opentelemetry import OpenTelemetryMetrics, OpenTelemetryTraces

ENDPOINT = "GET /items"
RULES = {ENDPOINT: RateLimitRule.per_hour(1_000_000, burst=1_000_000)}
ROUNDS = 9
CHECKS = 10_000

Watch = Callable[[TokenBucketAdapter, InlineEventBus], object]


def count_for_prometheus(limiter: TokenBucketAdapter, bus: InlineEventBus) -> None:
    """Count for Prometheus."""
    PrometheusMetrics(limiter, bus)


def count_for_opentelemetry(limiter: TokenBucketAdapter, bus: InlineEventBus) -> None:
    """Count for OpenTelemetry, with its SDK."""
    OpenTelemetryMetrics(limiter, bus, meter_provider=MeterProvider([InMemoryMetricReader()]))


def trace_without_sdk(limiter: TokenBucketAdapter, bus: InlineEventBus) -> None:
    """Trace where nobody has set up the SDK."""
    OpenTelemetryTraces(limiter, bus, tracer_provider=NoOpTracerProvider())


def trace(limiter: TokenBucketAdapter, bus: InlineEventBus) -> None:
    """Trace with the SDK; its spans go nowhere, so that no exporter is measured."""
    OpenTelemetryTraces(limiter, bus, tracer_provider=TracerProvider())


WATCHED: tuple[tuple[str, Watch], ...] = (
    ("counted for Prometheus", count_for_prometheus),
    ("counted for OpenTelemetry", count_for_opentelemetry),
    ("traced, without the SDK", trace_without_sdk),
    ("traced, with the SDK", trace),
)


def watched_check(watch: Watch | None = None) -> Check:
    """Return the check of a limiter that is watched; None: that has no bus."""
    bus = None if watch is None else InlineEventBus()
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=RULES, event_bus=bus)
    if watch is not None and bus is not None:
        watch(limiter, bus)
    is_allowed = limiter.is_allowed
    return lambda client: is_allowed(endpoint=ENDPOINT, identifier=client)


async def main() -> None:
    """Print how many times as long as a plain check each of them takes."""
    names = [f"10.0.{number >> 8}.{number & 255}" for number in range(1_000)]
    plain = Contestant("nobody listens", one_by_one(watched_check(), names))
    idle = Contestant("a bus that nobody listens to", one_by_one(watched_check(lambda *_: None), names))
    watched = [Contestant(name, one_by_one(watched_check(watch), names)) for name, watch in WATCHED]
    everyone = [plain, idle, *watched]
    await alternate(everyone, rounds=ROUNDS, checks=CHECKS)
    print(
        "compiled" if sluicegate.COMPILED else "not compiled",
        f"median of {ROUNDS} rounds of {CHECKS:,} checks",
        sep="; ",
    )
    print(f"{'':30}{'us a check':>12}{'times the plain check':>24}")
    for one in everyone:
        print(f"{one.name:30}{one.median:>12.2f}{ratio(one, plain):>24.2f}")


if __name__ == "__main__":
    asyncio.run(main())
