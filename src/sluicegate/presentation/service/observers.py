"""What watches the limiter of a service: metrics, the live page, the audit log and OpenTelemetry, as the settings say."""

from typing import TYPE_CHECKING

from sluicegate.application.hot_keys import HotKeys
from sluicegate.application.live.worker_figures import WorkerMeter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.infrastructure.audit_log import AuditLog
from sluicegate.infrastructure.event_bus import InlineEventBus
from sluicegate.infrastructure.opentelemetry_sdk import is_exported, start_sdk
from sluicegate.infrastructure.redis_figures import redis_figures
from sluicegate.infrastructure.settings import Settings, identifier_secret
from sluicegate.presentation.live.api import LiveApi
from sluicegate.presentation.service.admin.peers import Peers
from sluicegate.presentation.service.settings import ServiceSettings

if TYPE_CHECKING:
    from sluicegate.presentation.prometheus_metrics import PrometheusMetrics


class Observers:
    """Watch a limiter.

    Args:
        settings: The settings of the service.
        limiter_settings: The settings of its limiter.

    Raises:
        InvalidInputError: If OpenTelemetry is asked for and cannot be set up.
    """

    def __init__(self, settings: ServiceSettings, limiter_settings: Settings) -> None:
        self._settings = settings
        self._limiter_settings = limiter_settings
        self._exports_metrics = is_exported("METRICS")
        if self._exports_metrics or (limiter_settings.traces and is_exported("TRACES")):
            start_sdk()
        watches = settings.counts or settings.audit_log or settings.shows or self._exports_metrics
        self.bus: InlineEventBus | None = InlineEventBus() if watches else None
        """The bus to give to the limiter; None: nothing watches it."""
        self.metrics: PrometheusMetrics | None = None
        """What Prometheus gets."""
        self.live: LiveApi | None = None
        """What the live page gets."""
        self._audit: AuditLog | None = None

    def watch(self, limiter: TokenBucketAdapter, peers: Peers | None = None) -> None:
        """Begin.

        Args:
            limiter: The limiter that was given the bus.
            peers: The processes that serve beside this one; None: there are none.

        Raises:
            InvalidInputError: If the audit log or the secret cannot be opened.
        """
        settings, bus = self._settings, self.bus
        if bus is None:
            return
        secret = identifier_secret(self._limiter_settings)
        if settings.audit_log:
            self._audit = AuditLog(settings.audit_log, secret=secret, raw_identifiers=settings.audit_raw)
            self._audit.subscribe(bus)
        if settings.counts:
            from sluicegate.presentation.prometheus_metrics import PrometheusMetrics  # noqa: PLC0415 - needs an extra

            self.metrics = PrometheusMetrics(limiter, bus)
        if self._exports_metrics:
            from sluicegate.presentation.opentelemetry_metrics import OpenTelemetryMetrics  # noqa: PLC0415 - needs an extra

            OpenTelemetryMetrics(limiter, bus, attributes={} if peers is None else {"worker": peers.own_name})
        if settings.shows:
            self.live = build_live(settings, limiter, bus, secret, peers)

    def close(self) -> None:
        """Write what was not written yet."""
        if self._audit is not None:
            self._audit.close()


def build_live(
    settings: ServiceSettings,
    limiter: TokenBucketAdapter,
    bus: InlineEventBus,
    secret: bytes | None = None,
    peers: Peers | None = None,
) -> LiveApi:
    """Count for the live page, and return what answers it.

    Args:
        settings: The settings of the service.
        limiter: Its limiter.
        bus: The limiter's bus.
        secret: What identifiers are hashed with; None: a secret of the service's own.
        peers: The processes that serve beside this one; None: there are none.
    """
    hot_keys = None
    if settings.hot_keys != "off":
        hot_keys = HotKeys(
            bus,
            secret=secret or settings.hot_keys_secret or None,
            raw_identifiers=settings.hot_keys == "raw",
        )
    if peers is None:
        return LiveApi(WorkerMeter(limiter, bus, redis_figures, hot_keys))
    meter = WorkerMeter(limiter, bus, redis_figures, hot_keys, peers.own_name)
    return LiveApi(meter, peers.ask, settings.workers)
