"""The metrics of a limiter and the spans of its checks, for OpenTelemetry."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.opentelemetry"):
    from sluicegate.infrastructure.opentelemetry_traces import OpenTelemetryTraces
    from sluicegate.presentation.opentelemetry_metrics import OpenTelemetryMetrics

__all__ = ["OpenTelemetryMetrics", "OpenTelemetryTraces"]
