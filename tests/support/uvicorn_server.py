"""A real HTTP server in a thread, on a free port of the loopback."""

import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.config import WS_PROTOCOLS

WS: Any = (
    "websockets-sansio" if "websockets-sansio" in WS_PROTOCOLS else "auto"
)  # without the deprecated half of websockets


class UvicornServer:
    """Serve an ASGI application while a `with` block runs."""

    def __init__(self, app: Any, **options: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_level="warning", ws=WS, timeout_graceful_shutdown=5, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()
