"""The metrics for Prometheus. The only module that imports `prometheus_client`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sluicegate.application.metrics.catalogue import OF_EVENTS, OF_STATE, Metric
from sluicegate.application.metrics.limiter_state import Limiter, LimiterState
from sluicegate.application.metrics.meter import measure
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.infrastructure.redis_figures import redis_figures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The type of what `exposition` returns."""


class PrometheusMetrics:
    """Count what a limiter does, for Prometheus. Each limiter needs a registry of its own.

    Args:
        limiter: The limiter.
        bus: The bus that the limiter was given; an `InlineEventBus` is right, for nothing here waits.
        registry: Where the metrics are registered, such as `prometheus_client.REGISTRY`; None: one of its own.

    Raises:
        ValueError: If the registry has these metrics already.
    """

    def __init__(self, limiter: Limiter, bus: SubscribableBus, *, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        """Where the metrics are registered."""
        state = measure(limiter, bus, _Sink(self.registry), redis_figures)
        self.registry.register(_StateCollector(state))

    def exposition(self) -> str:
        """Return all metrics of the registry as text."""
        return generate_latest(self.registry).decode()

    def asgi_app(self) -> Any:  # noqa: ANN401 - an ASGI application, which each framework types in its own way
        """Return an ASGI application that answers with the metrics, to be mounted at `/metrics`."""
        return cast("Any", prometheus_client).make_asgi_app(registry=self.registry)


def merge_expositions(texts: Mapping[str, str]) -> str:
    """Return what several processes expose as one text, with the label `worker` on each series.

    Args:
        texts: What each exposes, by its name.
    """
    families: dict[str, Family] = {}
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text):
            merged = families.setdefault(family.name, Family(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry).decode()


class _Sink:
    """Keep what events count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}
        # `labels` takes a lock and looks the same child up in each call: it is most of what counting would cost.
        self._counted: dict[tuple[Metric, tuple[str, ...]], Counter] = {}
        self._recorded: dict[tuple[Metric, tuple[str, ...]], Histogram] = {}
        for metric in OF_EVENTS:
            name = metric.prometheus_name
            if metric.kind == "counter":
                self._counters[metric] = Counter(name, metric.help, metric.labels, registry=registry)
            else:
                self._histograms[metric] = Histogram(
                    name, metric.help, metric.labels, registry=registry, buckets=metric.bounds
                )

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        child = self._counted.get((metric, labels))
        if child is None:
            child = self._counted[metric, labels] = self._counters[metric].labels(*labels)
        child.inc(amount)

    def record(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        child = self._recorded.get((metric, labels))
        if child is None:
            child = self._recorded[metric, labels] = self._histograms[metric].labels(*labels)
        child.observe(value)


class _StateCollector(Collector):
    """Read the metrics of the limiter's state at each scrape."""

    def __init__(self, state: LimiterState) -> None:
        self._state = state

    def describe(self) -> Iterable[Family]:
        return [_family(metric) for metric in OF_STATE]

    def collect(self) -> Iterator[Family]:
        families: dict[Metric, CounterMetricFamily | GaugeMetricFamily] = {}
        for metric, labels, value in self._state.read():
            if metric not in families:
                families[metric] = _family(metric)
            families[metric].add_metric(labels, value)
        yield from families.values()


class _Families(Collector):
    """Give out what was collected elsewhere."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Family]:
        return self._families


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return family(metric.prometheus_name, metric.help, labels=metric.labels)
