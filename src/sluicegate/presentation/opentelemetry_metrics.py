"""The metrics for OpenTelemetry, by its API alone: the application brings the SDK, and says where they go."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, cast
from weakref import WeakKeyDictionary

from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
    get_meter_provider,
)

from sluicegate.application.metrics.catalogue import OF_EVENTS, OF_STATE, Metric
from sluicegate.application.metrics.limiter_state import Limiter, LimiterState
from sluicegate.application.metrics.meter import measure
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.infrastructure.redis_figures import redis_figures
from sluicegate.runtime.mutex import new_mutex

_UCUM: Final = {"seconds": "s", "tokens": "{token}", "tokens_per_second": "{token}/s"}

_measured: WeakKeyDictionary[MeterProvider, set[tuple[tuple[str, str], ...]]] = WeakKeyDictionary()


class OpenTelemetryMetrics:
    """Count what a limiter does, for OpenTelemetry. Its metrics are those that Prometheus gets, with dots in their names.

    Args:
        limiter: The limiter.
        bus: The bus that the limiter was given; an `InlineEventBus` is right, for nothing here waits.
        meter_provider: Gets the numbers; None: the one that the process has set.
        attributes: What each number carries besides, such as `{"limiter": "jobs"}`: it tells several limiters of a process apart.

    Raises:
        InvalidInputError: If the provider has the metrics of a limiter with these attributes already.
        InvalidTypeError: If the attributes are no texts by name.
    """

    def __init__(
        self,
        limiter: Limiter,
        bus: SubscribableBus,
        *,
        meter_provider: MeterProvider | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        provider = get_meter_provider() if meter_provider is None else meter_provider
        common = _require_texts(attributes or {})
        _require_first(provider, tuple(sorted(common.items())))
        # Of two meters that are alike, the SDK asks only the first one's callbacks.
        meter = provider.get_meter("sluicegate", attributes=common)
        state = measure(limiter, bus, _Sink(meter, common), redis_figures)
        for metric in OF_STATE:
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(metric.name, [_reader(state, metric, common)], unit=_unit(metric), description=metric.help)


class _Sink:
    """Keep what events count. The SDK gets totals when it collects: each `add` of its own would cost several times as much."""

    def __init__(self, meter: Meter, common: Mapping[str, str]) -> None:
        self._common = common
        self._known: dict[tuple[Metric, tuple[str, ...]], dict[str, str]] = {}
        self._mutex = new_mutex()
        self._totals: dict[Metric, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[Metric, Histogram] = {}
        for metric in OF_EVENTS:
            if metric.kind == "counter":
                self._totals[metric] = {}
                meter.create_observable_counter(
                    metric.name, [partial(self._read, metric)], unit=_unit(metric), description=metric.help
                )
            else:
                self._histograms[metric] = meter.create_histogram(
                    metric.name,
                    unit=_unit(metric),
                    description=metric.help,
                    explicit_bucket_boundaries_advisory=metric.bounds,
                )

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        totals = self._totals[metric]
        with self._mutex:
            totals[labels] = totals.get(labels, 0) + amount

    def _read(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        with self._mutex:
            totals = list(self._totals[metric].items())
        return [Observation(total, self._attributes(metric, labels)) for labels, total in totals]

    def record(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._histograms[metric].record(value, self._attributes(metric, labels))

    def _attributes(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        known = self._known.get((metric, labels))
        if known is None:
            known = self._known[metric, labels] = _attributes(metric, labels, self._common)
        return known


def _reader(
    state: LimiterState, metric: Metric, common: Mapping[str, str]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Return the callback that reads a metric when the SDK collects."""

    def read(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, _attributes(one, labels, common)) for one, labels, value in state.read_one(metric)]

    return read


def _attributes(metric: Metric, labels: tuple[str, ...], common: Mapping[str, str]) -> dict[str, str]:
    return {**common, **dict(zip(metric.labels, labels, strict=True))}


def _unit(metric: Metric) -> str:
    return _UCUM.get(metric.unit, "")


def _require_texts(attributes: object) -> dict[str, str]:
    if not isinstance(attributes, Mapping):
        raise InvalidTypeError(f"attributes={attributes!r:.80}: expected texts by name")
    texts: dict[str, str] = {}
    for name, value in cast("Mapping[object, object]", attributes).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidTypeError(f"attributes[{name!r:.80}]={value!r:.80}: expected a text")
        texts[name] = value
    return texts


def _require_first(provider: MeterProvider, attributes: tuple[tuple[str, str], ...]) -> None:
    taken = _measured.setdefault(provider, set())
    if attributes in taken:
        raise InvalidInputError(
            f"attributes={dict(attributes)}: the meter provider has the metrics of a limiter with these; give another one others"
        )
    taken.add(attributes)
