"""The metrics for OpenTelemetry, read with its SDK: they are the numbers that Prometheus gets, and equal what was decided."""

import random
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from sluicegate import InlineEventBus, MemoryStorage, RateLimitRule, RedisStorage, SyncTokenBucketAdapter
from sluicegate.application.metrics.catalogue import OF_EVENTS, OF_STATE
from sluicegate.opentelemetry import OpenTelemetryMetrics
from sluicegate.testing import FailingStorage
from support.metered import Metered
from support.redis_servers import RedisServer

LABELS = {metric.name: metric.labels for metric in (*OF_EVENTS, *OF_STATE)}


class Reader:
    """What a provider collects."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self) -> dict[tuple[str, ...], Any]:
        """Return all points: by the metric's name and the values of its labels, and of what else a point carries."""
        points: dict[tuple[str, ...], Any] = {}
        data = self._reader.get_metrics_data()
        for scope in [] if data is None else data.resource_metrics[0].scope_metrics:
            assert scope.scope.name == "sluicegate"
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    given = dict(point.attributes or {})
                    values = [str(given.pop(label)) for label in LABELS[metric.name]]
                    key = metric.name, *values, *[f"{name}={value}" for name, value in sorted(given.items())]
                    assert key not in points
                    points[key] = point
        return points

    def series(self) -> dict[tuple[str, ...], float]:
        """Return the values, in the names of Prometheus; of histograms how many there are and their sum."""
        names = {metric.name: metric.prometheus_name for metric in (*OF_EVENTS, *OF_STATE)}
        series: dict[tuple[str, ...], float] = {}
        for (name, *labels), point in self.points().items():
            if isinstance(point, NumberDataPoint):
                series[names[name], *labels] = point.value
            else:
                assert isinstance(point, HistogramDataPoint)
                series[f"{names[name]}_count", *labels] = point.count
                series[f"{names[name]}_sum", *labels] = point.sum
        return series


def measured(world: Metered, **more: Any) -> Reader:
    """Return what a limiter's numbers are read by."""
    reader = Reader()
    OpenTelemetryMetrics(world.limiter, world.bus, meter_provider=reader.provider, **more)
    return reader


async def test_the_numbers_are_those_that_prometheus_gets(redis_server: RedisServer) -> None:
    """Every series of it, whatever is decided: by the storage, lists, switches, shadows and failure policies, and of holds."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=5_000)
    for world in (Metered(), Metered(storage=FailingStorage()), Metered(storage=storage)):
        reader = measured(world)
        for endpoint in ("POST /login", "GET /tried", "GET /refuses", "GET /guards"):
            await world.ask(endpoint, times=3)
        await world.ask("GET /two", {"ip": "192.0.2.1", "user": "ann"}, times=3)
        await world.ask("POST /login", "192.0.2.66")
        world.limiter.rules.switch_off("login")
        await world.ask("POST /login")
        await world.limiter.reserve(endpoint="GET /refuses", identifier="192.0.2.9")
        got = reader.series()
        expected = {key: value for key, value in world.series().items() if not key[0].endswith("_bucket")}
        assert got == pytest.approx(expected)
        assert {key[0] for key in got} > {"sluicegate_requests_total", "sluicegate_limit_tokens"}
    await storage.aclose()


async def test_a_check_is_counted_as_it_was_decided() -> None:
    """By its names with dots, with units, and durations in buckets that suit a check."""
    world = Metered()
    reader = measured(world)
    allowed = Counter(
        [(await world.limiter.check(endpoint="POST /login", identifier="x")).result.allowed for _ in range(9)]
    )
    points = reader.points()
    for result, count in ("allowed", allowed[True]), ("denied", allowed[False]):
        assert points["sluicegate.requests", "POST /login", "login", result, "quota"].value == count
        assert points["sluicegate.request.duration", result].count == count
    assert points["sluicegate.request.duration", "allowed"].explicit_bounds[0] == 0.00001
    assert points["sluicegate.limit", "POST /login", "login", "ip", "enforced"].value == 2


async def test_a_hundred_thousand_clients_create_no_series() -> None:
    """Nor endpoints and rules that callers make up."""
    world = Metered('[endpoints]\n"GET /a" = "5/minute"\n"*" = "9/minute"\n')
    reader = measured(world)
    chance = random.Random(7)

    async def flood(times: int) -> None:
        for _ in range(times):
            name = chance.getrandbits(64)
            await world.limiter.is_allowed(endpoint="GET /a", identifier=f"{name}")
            await world.limiter.is_allowed(endpoint=f"GET /{name}", identifier=f"{name}")

    await flood(10)
    before = set(reader.points())
    await flood(50_000)
    points = reader.points()
    assert set(points) == before
    assert sum(point.value for key, point in points.items() if key[0] == "sluicegate.requests") == 100_020


async def test_several_limiters_of_a_process_are_told_apart() -> None:
    """By an attribute; without one the second would be lost, and is refused."""
    world = Metered({"GET /a": RateLimitRule.per_minute(1)})
    reader = measured(world, attributes={"limiter": "web"})
    bus = InlineEventBus()
    jobs = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a": RateLimitRule.per_minute(7)}, event_bus=bus)
    with pytest.raises(ValueError, match="attributes="):
        OpenTelemetryMetrics(jobs, bus, meter_provider=reader.provider, attributes={"limiter": "web"})
    OpenTelemetryMetrics(jobs, bus, meter_provider=reader.provider, attributes={"limiter": "jobs"})
    await world.ask("GET /a", times=2)
    jobs.is_allowed(endpoint="GET /a", identifier="x")
    points = reader.points()
    assert {(key[-1], point.value) for key, point in points.items() if key[0] == "sluicegate.limit"} == {
        ("limiter=web", 1),
        ("limiter=jobs", 7),
    }
    assert {(key[-1], key[3], point.value) for key, point in points.items() if key[0] == "sluicegate.requests"} == {
        ("limiter=web", "allowed", 1),
        ("limiter=web", "denied", 1),
        ("limiter=jobs", "allowed", 1),
    }


@pytest.mark.parametrize("attributes", ["limiter=web", {"limiter": 1}, {1: "web"}])
def test_attributes_are_texts_by_name(attributes: Any) -> None:
    """Anything else is refused by name, before anything is counted."""
    world = Metered()
    reader = Reader()
    with pytest.raises(ValueError, match="attributes"):
        OpenTelemetryMetrics(world.limiter, world.bus, meter_provider=reader.provider, attributes=attributes)
    OpenTelemetryMetrics(world.limiter, world.bus, meter_provider=reader.provider)


_SET_LATER = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sluicegate import InlineEventBus, MemoryStorage, SyncTokenBucketAdapter
from sluicegate.opentelemetry import OpenTelemetryMetrics, OpenTelemetryTraces

bus = InlineEventBus()
limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a": "5/minute"}, event_bus=bus)
OpenTelemetryMetrics(limiter, bus)
OpenTelemetryTraces(limiter, bus)
reader, spans, provider = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
metrics.set_meter_provider(MeterProvider([reader]))
trace.set_tracer_provider(provider)
limiter.is_allowed(endpoint="GET /a", identifier="x")
collected = {one.name: one.data.data_points for one in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics}
print(collected["sluicegate.requests"][0].value, collected["sluicegate.limit"][0].value)
print(collected["sluicegate.request.duration"][0].explicit_bounds[0], len(spans.get_finished_spans()))
"""


def test_providers_that_the_process_sets_later_get_numbers_and_spans() -> None:
    """As where an application sets up its observability after its limiter."""
    run = subprocess.run([sys.executable, "-c", _SET_LATER], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["1", "5", "1e-05", "1"], run.stderr
