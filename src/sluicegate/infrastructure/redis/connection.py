"""Connections of our own to Redis: opened and logged in by redis-py, used by nobody else.

redis-py knows names, TLS, AUTH, SELECT and Sentinel. Its pools, retries and timeouts are left out: a check has one deadline for
everything, a pool that has run out must not be a way past the limit, and what may have been executed is not sent again.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from hiredis import Reader, pack_command  # pyright: ignore[reportUnknownVariableType] - it returns bytes, and does not say so
from redis.asyncio import connection as redis_py
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse

from sluicegate.domain.errors import StorageError

_SENTINEL_TIMEOUT_S = 0.2  # one that hangs must leave time to ask the next


class RedisConnection(Protocol):
    """What is used of redis-py's connection."""

    async def connect(self) -> None:
        """Connect and log in."""
        ...

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the socket."""
        ...

    async def can_read(self) -> bool:
        """Return whether there is something to read, or the other side has closed."""
        ...

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:
        """Write bytes."""
        ...

    async def read_response(self) -> object:
        """Read one reply; error replies are raised."""
        ...


class Connector(Protocol):
    """Open connections to one server, whichever it is at the time."""

    async def open(self) -> RedisConnection:
        """Return a connection that is logged in. Raises what the client library raises."""
        ...

    async def aclose(self) -> None:
        """Release what is not a connection that was handed out."""
        ...


def pack(*arguments: str | int | bytes) -> bytes:
    """Return a command as it goes over the wire."""
    return cast("bytes", pack_command(cast("Any", arguments)))


def reply_reader() -> Any:  # noqa: ANN401 - hiredis has no types for it
    """Return what cuts bytes into replies: `feed` takes bytes, `gets` returns a reply or False, errors as exceptions."""
    return Reader(protocolError=InvalidResponse, replyError=cast("Any", redis_py).BaseParser.parse_error)


def transport_of(connection: RedisConnection) -> asyncio.Transport:
    """Return the socket of a connection, TLS included, so that its bytes can go another way than redis-py's."""
    return cast("asyncio.Transport", cast("Any", connection)._writer.transport)  # noqa: SLF001 - it has no public name


async def require_silence(connection: RedisConnection) -> None:
    """See that nothing is left to read of what redis-py has asked.

    Raises:
        StorageError: If there is, or the other side has closed.
    """
    if await connection.can_read():
        raise StorageError("connection", "The server closed the connection, or said what nobody asked for.")


async def hang_up(connection: RedisConnection, *, wait: bool) -> None:
    """Close a connection.

    Who closes the storage waits, for at most the time that connecting may take: TLS takes leave of the server first, and the
    event loop may end meanwhile.
    """
    with contextlib.suppress(Exception):  # it is being given up; how it ends changes nothing
        await connection.disconnect(nowait=not wait)


class DirectConnector:
    """Connect to one address.

    Args:
        connection_class: redis-py's class of connection.
        options: Its arguments.
        timeout_s: How long connecting may take.
    """

    def __init__(self, connection_class: type[Any], options: Mapping[str, Any], timeout_s: float) -> None:
        self._class = connection_class
        self._options = {**options, **_without_waiting(timeout_s)}

    async def open(self, **address: object) -> RedisConnection:
        """Return a connection that is logged in."""
        connection: RedisConnection = self._class(**{**self._options, **address})
        try:
            await connection.connect()
        except BaseException:
            await asyncio.shield(connection.disconnect(nowait=True))
            raise
        return connection

    async def aclose(self) -> None:
        """Do nothing: it holds nothing."""


class SentinelConnector:
    """Ask the sentinels for the master before each connection: after a failover it is another one.

    Args:
        hosts: The sentinels.
        service: The name under which they know the master.
        sentinel_options: Arguments of the connections to them.
        master: Connects to the master.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        service: str,
        sentinel_options: Mapping[str, Any],
        master: DirectConnector,
    ) -> None:
        options = {**sentinel_options, **_without_waiting(_SENTINEL_TIMEOUT_S), "socket_timeout": _SENTINEL_TIMEOUT_S}
        self._sentinel: Any = cast("Any", Sentinel)(list(hosts), sentinel_kwargs=options)
        self._service = service
        self._master = master

    async def open(self) -> RedisConnection:
        """Return a connection to the master."""
        host, port = await self._sentinel.discover_master(self._service)
        return await self._master.open(host=host, port=port)

    async def aclose(self) -> None:
        """Close the connections to the sentinels."""
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


def _without_waiting(timeout_s: float) -> dict[str, Any]:
    """Return what turns redis-py's own perseverance off."""
    return {
        "retry": Retry(NoBackoff(), 0),  # it would try ten times over
        "socket_timeout": None,  # each read would have a timer of its own
        "socket_connect_timeout": timeout_s,
        "decode_responses": False,  # replies of the script are not text
        "protocol": 2,  # RESP3 takes one more command to log in, and brings messages that nobody asked for
        "driver_info": None,  # the least ACL does not allow a client to introduce itself
    }
