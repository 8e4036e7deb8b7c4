"""The server of the Redis protocol."""

import asyncio
import socket
from typing import Final

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.presentation.service.certificate import Certificate
from sluicegate.presentation.service.resp.connection import RespConnection, RespSettings
from sluicegate.presentation.service.settings import ServiceLimits

_GOODBYE_S: Final = 1.0
"""How long a client may take to end TLS once its connection is closed."""


class RespServer:
    """Serve the Redis protocol.

    Args:
        limiter: Decides.
        listener: A listening socket.
        limits: How many connections, and how long idle ones stay.
        password: What clients must say; empty: nothing.
        storage_errors: Whether a check that the storage did not decide is an error.
        certificate: For TLS; None: in clear.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        limiter: TokenBucketAdapter,
        listener: socket.socket,
        limits: ServiceLimits,
        *,
        password: str = "",
        storage_errors: bool = False,
        certificate: Certificate | None = None,
    ) -> None:
        self._listener = listener
        self._certificate = certificate
        self._settings = RespSettings(
            limiter,
            password=password,
            storage_errors=storage_errors,
            idle_seconds=limits.idle_seconds,
            login_seconds=limits.request_seconds,
            max_connections=limits.max_connections,
        )
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to serve."""
        loop = asyncio.get_running_loop()
        encrypted = self._certificate is not None
        self._server = await loop.create_server(
            lambda: RespConnection(self._settings),
            sock=self._listener,
            ssl=None if self._certificate is None else self._certificate.context(),
            ssl_handshake_timeout=self._settings.login_seconds if encrypted else None,
            ssl_shutdown_timeout=_GOODBYE_S if encrypted else None,
        )

    async def leave(self) -> None:
        """Do nothing: the protocol has no word for it."""

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more, close connections as they become quiet, and after so many seconds the others."""
        if self._server is None:
            return
        self._server.close()
        connections = self._settings.connections
        loop = asyncio.get_running_loop()
        end_s = loop.time() + grace_s
        while connections and loop.time() < end_s:
            for connection in list(connections):
                if connection.is_quiet:
                    connection.close()
            await asyncio.sleep(0.05)
        for connection in list(connections):
            connection.close()
