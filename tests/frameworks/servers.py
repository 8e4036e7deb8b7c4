"""The servers of the matrix, each as a process on a port of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from frameworks.raw_requests import ask

_TESTS = Path(__file__).parents[1]
_START_S = 60
_ASGI, _WSGI = "frameworks.asgi_apps:app", "frameworks.wsgi_apps:app"

# `{port}` stands for the port. Those named `root` have a root path that the server tells the application.
COMMANDS: dict[str, str] = {
    "asgi uvicorn-h11": f"-m uvicorn {_ASGI} --port {{port}} --http h11 --no-access-log --log-level error",
    "asgi uvicorn-httptools": f"-m uvicorn {_ASGI} --port {{port}} --http httptools --no-access-log --log-level error",
    "asgi uvicorn-root": f"-m uvicorn {_ASGI} --port {{port}} --root-path /api --no-access-log --log-level error",
    "asgi hypercorn": f"-m hypercorn {_ASGI} --bind 127.0.0.1:{{port}} --log-level error",
    "asgi hypercorn-root": f"-m hypercorn {_ASGI} --bind 127.0.0.1:{{port}} --root-path /api --log-level error",
    "asgi granian": f"-m granian {_ASGI} --interface asgi --port {{port}} --log-level error",
    "asgi granian-root": f"-m granian {_ASGI} --interface asgi --port {{port}} --url-path-prefix /api --log-level error",
    "asgi daphne": f"-m daphne -p {{port}} -v 0 {_ASGI}",
    "asgi daphne-root": f"-m daphne -p {{port}} -v 0 --root-path /api {_ASGI}",
    "wsgi gunicorn": f"-m gunicorn {_WSGI} --bind 127.0.0.1:{{port}} --log-level error",
    "wsgi gunicorn-root": f"-m gunicorn {_WSGI} --bind 127.0.0.1:{{port}} --env SCRIPT_NAME=/api --log-level error",
    "wsgi waitress": f"-m waitress --listen 127.0.0.1:{{port}} {_WSGI}",
    "wsgi waitress-root": f"-m waitress --listen 127.0.0.1:{{port}} --url-prefix /api {_WSGI}",
    "wsgi granian": f"-m granian {_WSGI} --interface wsgi --port {{port}} --log-level error",
    "wsgi hypercorn": f"-m hypercorn wsgi:{_WSGI} --bind 127.0.0.1:{{port}} --log-level error",
}


@contextmanager
def serving(name: str) -> Iterator[int]:
    """Run a server and yield its port, once its applications answer."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_TESTS.parent / "src"), str(_TESTS)])}
    command = [sys.executable, *COMMANDS[name].format(port=port).split()]
    with TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, cwd=_TESTS, stdout=log, stderr=log)
        try:
            _wait(port, process, "starlette" if name.startswith("asgi") else "flask", log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], app: str, log: object) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if ask(port, app, b"/login").status or ask(port, app, b"/api/login").status:
                return
        except OSError:
            time.sleep(0.05)
    log.seek(0)  # type: ignore[attr-defined]
    raise AssertionError(f"the server did not start: {log.read().decode(errors='replace')}")  # type: ignore[attr-defined]
