"""The metrics of a limiter, for OpenTelemetry."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.opentelemetry"):
    from sluicegate.presentation.opentelemetry_metrics import OpenTelemetryMetrics

__all__ = ["OpenTelemetryMetrics"]
