"""Run what concerns each dependency with the oldest version that is supported, and what concerns redis-py with each of its lines.

`make test-versions` runs it in an environment of its own, in which versions are swapped. The newest versions are what `make test`
runs. It also runs what concerns HTTP with httptools, and asks pip whether the extra `redis` can be installed beside packages that
bound redis-py's version.
"""

import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

FLOORS = {
    "django": "4.2",
    "djangorestframework": "3.14",
    "fastapi": "0.100.0",
    "flask": "3.0.0",
    "grpcio": "1.66.0",
    "grpcio-health-checking": "1.66.0",
    "grpcio-reflection": "1.66.0",
    "hiredis": "3.0.0",
    "httpx": "0.23.0",
    "httpx2": "2.16.0",
    "msgspec": "0.18.6",
    "mypy_extensions": "1.0.0",
    "opentelemetry-api": "1.30.0",
    "prometheus-client": "0.14.0",
    "protobuf": "5.27.2",
    "py-radix": "1.1.0",
    "pyyaml": "6.0.1",
    "redis": "5.2.0",
    "rich": "13.8.0",
    "starlette": "0.27.0",
    "structlog": "22.1.0",
    "typer": "0.29.0",
    "uuid-utils": "0.6.0",
    "uvicorn": "0.29.0",
    "watchfiles": "1.3.0",
}
"""The oldest versions that `pyproject.toml` allows; the tests compare the two."""

REDIS = ("6.4.0", "7.1.1", "8.0.0")
"""The lines of redis-py between the oldest and the newest."""

BESIDE = ("limits[redis]", "arq", "kombu[redis]", "throttled-py[redis]")
"""Packages that applications have beside this one, and that bound redis-py's version."""

# Without httpx2: with the oldest starlette it is too much for pip to resolve.
EXTRAS = "redis,cli,fastapi,flask,django,drf,httpx,rules,metrics,otel,service"
TOOLS = (
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "hypothesis",
    "http-sf",
    "websockets",
    "fakeredis",
    "gunicorn",
    "opentelemetry-sdk",
    "xds-protos",
)

ON_REDIS = (
    "tests/contract/test_redis_storage.py",
    *(
        f"tests/infrastructure/redis/test_{name}.py"
        for name in ("connection", "errors", "secrets", "target", "topologies")
    ),
    "-k",
    "not moved and not dies and not on_the_move and not failover",
)
ELSEWHERE = (
    "--ignore=tests/presentation/client/test_transports.py",  # it wants httpx2 beside httpx
    "tests/infrastructure/rules_file",
    "tests/infrastructure/test_opentelemetry_traces.py",
    "tests/infrastructure/test_structlog_logger.py",
    "tests/presentation/cli/test_main.py",
    "tests/presentation/cli/test_rules_cli.py",
    "tests/presentation/client",
    *(f"tests/presentation/service/test_{name}.py" for name in ("envoy_protocol", "http_api", "redis_protocol", "tls")),
    "tests/presentation/service/test_reservations.py",
    "tests/presentation/test_httpx_transport.py",
    "tests/presentation/test_opentelemetry_metrics.py",
    "tests/presentation/test_prometheus_metrics.py",
    "tests/presentation/web",
    "-k",
    # Starlette before 0.33 does not take a root path off the path.
    "not root_path and not fuzz and not hundred_thousand",
)

OF_HTTP = tuple(f"tests/presentation/service/test_{name}.py" for name in ("http_api", "slow_http_clients", "tls"))
"""What concerns uvicorn's protocols, of which `make test` has the slower one."""


def pip(*arguments: str) -> None:
    """Run pip in this environment."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], cwd=ROOT, check=True
    )


def run_tests(name: str, arguments: Sequence[str]) -> None:
    """Run tests; a warning of an old library is no error."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=ignore",
        *arguments,
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    print(f"{name}: passed in {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201 - this is a script


def main() -> None:
    """Install and test, the oldest first."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("\n".join(f"{name}=={version}" for name, version in FLOORS.items()))
        pins.flush()
        pip("install", "-c", pins.name, "-e", f".[{EXTRAS}]", "starlette", "uvicorn", *TOOLS)
    run_tests("the oldest versions, Redis", ON_REDIS)
    run_tests("the oldest versions, all else", ELSEWHERE)
    pip("install", "httptools")
    run_tests("the service with httptools", OF_HTTP)
    for version in REDIS:
        pip("install", f"redis=={version}", "hiredis>=3.2")
        run_tests(f"redis-py {version}", ON_REDIS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = (*project["dependencies"], *project["optional-dependencies"]["redis"])
    for package in BESIDE:
        pip("install", "--dry-run", "--ignore-installed", *ours, package)
        print(f"beside {package}: can be installed", flush=True)  # noqa: T201 - this is a script


if __name__ == "__main__":
    main()
