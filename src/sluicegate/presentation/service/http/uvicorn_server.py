"""The HTTP server: uvicorn, with what it lacks against slow clients and for leaving without losing a request."""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

from sluicegate.presentation.service.certificate import Certificate
from sluicegate.presentation.service.settings import ServiceLimits

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as HTTPProtocol  # the fastest that is installed

_QUIET_SECONDS: Final = 0.25
"""How long a connection must have been quiet at the end to be closed: a request may be under way."""


class _Protocol(HTTPProtocol):
    """One connection.

    Args:
        request_seconds: How long it may take until its first request has come.
        *arguments: Those of uvicorn's own.
        **options: The same.
    """

    def __init__(self, request_seconds: float, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._request_seconds = request_seconds

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - narrower in uvicorn than in asyncio
        super().connection_made(transport)
        self._first = self.loop.call_later(self._request_seconds, self._close_if_unused)

    def connection_lost(self, exc: Exception | None) -> None:
        self._first.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection once it is quiet."""
        if self._is_idle():
            self.loop.call_later(_QUIET_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_unused(self) -> None:
        if not self._has_request():
            self.transport.close()

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()
        else:
            super().shutdown()

    def _is_idle(self) -> bool:
        return not self._has_request() or self.cycle.response_complete

    def _has_request(self) -> bool:
        return bool(self.cycle)  # None before the first one, whatever its type says


class _Server(uvicorn.Server):
    """A server that leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class HttpServer:
    """Serve an ASGI application.

    Args:
        app: The application.
        listener: A listening socket.
        limits: How many requests at a time, and how long idle connections stay.
        certificate: For TLS; None: in clear.
    """

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - any application
        listener: socket.socket,
        limits: ServiceLimits,
        certificate: Certificate | None = None,
    ) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", partial(_Protocol, limits.request_seconds)),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=limits.max_concurrent,
                timeout_keep_alive=int(limits.idle_seconds),
                h11_max_incomplete_event_size=16_384,
            )
        )
        if certificate is not None:
            self._server.config.load()
            self._server.config.ssl = certificate.context()  # of files alone it would make one that never changes
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        # uvicorn has no event for it.
        while not self._server.started and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def leave(self) -> None:
        """Ask each client with its next response to connect elsewhere."""
        close = (b"connection", b"close")
        self._server.config.encoded_headers.append(close)  # uvicorn makes the others of them, once a second
        self._server.server_state.default_headers.append(close)

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more, answer what has begun for so many seconds, and close."""
        self._server.config.timeout_graceful_shutdown = max(1, int(grace_s))
        self._server.should_exit = True
        if self._task is not None:
            await self._task
