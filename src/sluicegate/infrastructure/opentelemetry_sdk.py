"""OpenTelemetry's SDK in a process that is an application of ours: it exports as its environment variables, `OTEL_…`, say."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, TypeAlias

from sluicegate.domain.errors import InvalidInputError

Signal: TypeAlias = Literal["METRICS", "TRACES"]


def is_exported(signal: Signal, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment names an exporter for a signal.

    Args:
        signal: The signal.
        environ: The environment variables.
    """
    return environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() not in {"", "none"}


def start_sdk() -> None:
    """Set up the providers of this process, unless a launcher such as `opentelemetry-instrument` has done so.

    They export what is left when the process exits.

    Raises:
        InvalidInputError: If the SDK or an exporter is not installed, or a variable is invalid.
    """
    try:
        configuration: Any = import_module("opentelemetry.sdk._configuration")
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - needs packages that users choose
        from opentelemetry.trace import get_tracer_provider  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"OTEL_METRICS_EXPORTER and OTEL_TRACES_EXPORTER need the package {error.name!r}:"
            " pip install opentelemetry-sdk opentelemetry-exporter-otlp"
        ) from None
    if isinstance(get_tracer_provider(), TracerProvider):
        return
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", "sluicegate")
    try:
        configuration._OTelSDKConfigurator().configure()  # noqa: SLF001 - what launchers extend
    except (RuntimeError, ValueError, ImportError) as error:
        raise InvalidInputError(f"OTEL_METRICS_EXPORTER, OTEL_TRACES_EXPORTER: {error}") from None
