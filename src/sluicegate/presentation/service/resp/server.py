"""The server of the Redis protocol."""

import asyncio
import socket

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.presentation.service.resp.connection import RespConnection, RespSettings
from sluicegate.presentation.service.settings import ServiceLimits


class RespServer:
    """Serve the Redis protocol.

    Args:
        limiter: Decides.
        listener: A listening socket.
        limits: How many connections, and how long idle ones stay.
        password: What clients must say; empty: nothing.
        storage_errors: Whether a check that the storage did not decide is an error.
    """

    def __init__(
        self,
        limiter: TokenBucketAdapter,
        listener: socket.socket,
        limits: ServiceLimits,
        *,
        password: str = "",
        storage_errors: bool = False,
    ) -> None:
        self._listener = listener
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
        self._server = await loop.create_server(lambda: RespConnection(self._settings), sock=self._listener)

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
