"""`sluicegate serve` exports metrics and spans as the SDK's environment variables say, to a collector that speaks OTLP."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sluicegate.infrastructure.opentelemetry_sdk import is_exported
from sluicegate.presentation.cli.main import main
from support.serving import Serving

RULES = '[endpoints]\n"GET /a" = "5/day"\n'
FREE = ("--grpc", "off", "--http", "127.0.0.1:0", "--leave-seconds", "0")
CHECKS = 8


class Collector(ThreadingHTTPServer):
    """Keep what is exported."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.metrics: list[Any] = []
        """The metrics of each export, with the attributes of its resource."""
        self.spans: list[Any] = []
        """All spans."""

    def environ(self) -> dict[str, str]:
        """Return what makes a process export to it, and not before its end."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        }

    def take(self, path: str, body: bytes) -> None:
        """Decode an export."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            return
        assert path == "/v1/metrics"
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            found = [metric for scope in resource.scope_metrics for metric in scope.metrics]
            self.metrics.append((texts(resource.resource.attributes), found))


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take an export."""
        self.server.take(self.path, self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


def texts(attributes: Any) -> dict[str, str]:
    """Return attributes that are texts."""
    return {one.key: one.value.string_value for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """Return a rules file."""
    (tmp_path / "rules.toml").write_text(RULES)
    return str(tmp_path / "rules.toml")


def check_often(serving: Serving) -> None:
    """Make checks, each on a connection of its own."""
    for _ in range(CHECKS):
        body = {"endpoint": "GET /a", "identifier": "192.0.2.1"}
        assert httpx.post(f"http://{serving.addresses['http']}/v1/check", json=body, timeout=60).status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_all_that_was_counted_has_arrived_when_it_ends(
    workers: int, collector: Collector, rules: str, tmp_path: Path
) -> None:
    """The sum over all processes is what was decided; a span for each check; no identifier."""
    asked = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "otlp", "SLUICEGATE_TRACES": "true"}
    environ = collector.environ() | asked | {"SLUICEGATE_STORAGE_URL": f"shm://{tmp_path}/buckets"}
    options = ("--rules", rules, *FREE, "--workers", str(workers))
    with Serving(*options, log=tmp_path / "log", environ=environ) as serving:
        check_often(serving)
        assert serving.stop() == 0
    counted: Counter[str] = Counter()
    for resource, metrics in collector.metrics:
        assert resource["service.name"] == "sluicegate"
        for point in [point for one in metrics if one.name == "sluicegate.requests" for point in one.sum.data_points]:
            attributes = texts(point.attributes)
            assert attributes["endpoint"] == "GET /a"
            assert attributes.get("worker", "none") in ({"none"} if workers == 1 else {"0", "1"})
            counted[attributes["result"]] += round(point.as_double or point.as_int)
    assert counted == {"allowed": 5, "denied": CHECKS - 5}
    assert len(collector.metrics) == workers
    assert [span.name for span in collector.spans] == ["rate_limit GET /a"] * CHECKS
    assert "192.0.2.1" not in f"{collector.metrics} {collector.spans}"


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_METRICS_EXPORTER": ""}, False),
        ({"OTEL_METRICS_EXPORTER": " None"}, False),
        ({"OTEL_METRICS_EXPORTER": "console,otlp"}, True),
    ],
)
def test_metrics_are_exported_where_an_exporter_is_named(environ: dict[str, str], asked: bool) -> None:
    """An endpoint alone asks for nothing, and each signal is asked for by itself."""
    assert is_exported("METRICS", environ) is asked


def test_a_service_ends_without_its_collector(collector: Collector, rules: str, tmp_path: Path) -> None:
    """The checks are answered, and the log says that the metrics were lost."""
    collector.server_close()
    environ = collector.environ() | {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with Serving("--rules", rules, *FREE, log=tmp_path / "log", environ=environ) as serving:
        check_often(serving)
        assert serving.stop() == 0
    assert "Failed to export metrics" in (tmp_path / "log").read_text()


def test_an_exporter_that_is_not_there_is_named(rules: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is served."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "pigeon")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "test")
    assert main(["serve", "--rules", rules, *FREE]) == 2
    assert "OTEL_METRICS_EXPORTER" in (told := capsys.readouterr().err)
    assert "pigeon" in told
