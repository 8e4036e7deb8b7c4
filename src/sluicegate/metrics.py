"""The metrics of a limiter, for Prometheus."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.metrics"):
    from sluicegate.presentation.prometheus_metrics import PrometheusMetrics

__all__ = ["PrometheusMetrics"]
