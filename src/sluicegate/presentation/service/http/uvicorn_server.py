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

_MAX_USELESS_BYTES: Final = 1_048_576
"""How much of the head of a request is kept, or of a body discarded that was answered already."""


class _Protocol(HTTPProtocol):
    """One connection.

    uvicorn closes a connection on which nothing comes, but waits for ever for the rest of a request that has begun, and for a
    client that does not read.

    Args:
        limits: How long clients may take.
        *arguments: Those of uvicorn's own.
        **options: The same.
    """

    def __init__(self, limits: ServiceLimits, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._limits = limits
        self._awaited_after: object = None
        self._unread: asyncio.TimerHandle | None = None
        self._useless_bytes = 0

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - narrower in uvicorn than in asyncio
        super().connection_made(transport)
        self._look_again = self.loop.call_later(self._limits.request_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_again.cancel()
        self._end_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Drop the connection if too much comes that is neither a request nor its body: httptools bounds no request's head."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is before and self._is_idle():
            self._useless_bytes += len(data)
            if self._useless_bytes > _MAX_USELESS_BYTES:
                self.transport.abort()
        else:
            self._useless_bytes = 0

    def pause_writing(self) -> None:
        """Drop the connection if the client does not read on."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._limits.take_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_unread()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, and drop what its client has not read: that would be waited for."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _end_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()

    def _look(self) -> None:
        """Drop the connection if it has waited since the last look for the rest of a request, or for the first one."""
        is_waiting = (
            self._is_idle() and self.timeout_keep_alive_task is None
        )  # uvicorn ends its timer with the first byte
        if is_waiting and self._awaited_after is self.cycle:
            self.transport.abort()
            return
        self._awaited_after = self.cycle if is_waiting else self
        self._look_again = self.loop.call_later(self._limits.request_seconds, self._look)

    def shutdown(self) -> None:
        """Close the connection once it is quiet."""
        if self._is_idle():
            self.loop.call_later(_QUIET_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

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
                http=cast("type[asyncio.Protocol]", partial(_Protocol, limits)),
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
