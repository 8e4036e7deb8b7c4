"""Connections to Redis that redis-py opens and logs in, and that only this package uses.

redis-py does host names, TLS, AUTH, SELECT and Sentinel. Its pools, retries and timeouts are not used: a check has one deadline
for everything, an exhausted pool must not be a way past the limit, and what may have been executed is not sent again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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
    """The part of redis-py's connection that is used here."""

    async def connect(self) -> None:
        """Connect and log in."""
        ...

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the socket."""
        ...

    async def can_read(self) -> bool:
        """Return whether there is something to read, or the server has closed the connection."""
        ...

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:
        """Write bytes."""
        ...

    async def read_response(self) -> object:
        """Read one reply; error replies are raised."""
        ...


class Connector(Protocol):
    """Open connections to one server; with Sentinel, to whichever is the master at that moment."""

    async def open(self) -> RedisConnection:
        """Return a connection that is logged in. Raises what redis-py raises."""
        ...

    async def aclose(self) -> None:
        """Release what is held besides the connections that were returned."""
        ...


def pack(*arguments: str | int | bytes) -> bytes:
    """Encode a command as it goes over the wire."""
    return cast("bytes", pack_command(cast("Any", arguments)))


def reply_reader() -> Any:  # noqa: ANN401 - hiredis has no types for it
    """Return a parser of replies: `feed` takes bytes, `gets` returns a reply or False; error replies are exception objects."""
    return Reader(protocolError=InvalidResponse, replyError=cast("Any", redis_py).BaseParser.parse_error)


def transport_of(connection: RedisConnection) -> asyncio.Transport:
    """Return the transport of an open connection, TLS included, to send and receive without redis-py's streams."""
    return cast("asyncio.Transport", cast("Any", connection)._writer.transport)  # noqa: SLF001 - it has no public name


async def require_silence(connection: RedisConnection) -> None:
    """Check that nothing is left to read of the replies to redis-py's own commands.

    Raises:
        StorageError: If something is left, or the server has closed the connection.
    """
    if await connection.can_read():
        raise StorageError("connection", "The server closed the connection, or sent what was not asked for.")


async def close(connection: RedisConnection, *, wait: bool) -> None:
    """Close a connection; whatever goes wrong meanwhile is ignored.

    Args:
        connection: The connection.
        wait: Whether to wait until it is closed, for at most the connect timeout, as `aclose` of a storage does: TLS says
            goodbye to the server first, and the event loop may end before that.
    """
    with contextlib.suppress(Exception):
        await connection.disconnect(nowait=not wait)


class Receiver(asyncio.BufferedProtocol):
    """Read a connection's bytes in place of redis-py's stream, always into the same buffer.

    asyncio calls this class; all it does is to pass each call on, because a subclass of asyncio's cannot be compiled.

    Args:
        connection: An open connection; redis-py reads nothing from it any more.
        buffer: Where received bytes are put. A view, because TLS fills slice after slice: slices of a bytearray are copies.
        on_bytes: Gets the number of bytes that were received.
        on_end: Gets the reason, or None if the server closed the connection; may be called twice.
    """

    def __init__(
        self,
        connection: RedisConnection,
        buffer: memoryview,
        on_bytes: Callable[[int], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._buffer = buffer
        self._on_bytes = on_bytes
        self._on_end = on_end
        transport = transport_of(connection)
        self._stream = transport.get_protocol()
        transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return where to put received bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on how many bytes were received."""
        self._on_bytes(nbytes)

    def eof_received(self) -> None:
        """Pass on that the server closed the connection."""
        self._on_end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on, to redis-py as well, which may wait for it."""
        self._stream.connection_lost(exc)
        self._on_end(exc)


async def call_when_loop_ends(aclose: Callable[[], Awaitable[None]]) -> object:
    """Arrange that `aclose` is awaited when the running event loop shuts down, for as long as the returned object is kept.

    A loop closes its asynchronous generators when it shuts down (`asyncio.run` does so); there is no other hook.
    """
    generator = _awaiting_at_end(aclose)
    await anext(generator)
    return generator


async def _awaiting_at_end(aclose: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await aclose()


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
        """Do nothing: nothing is held."""


class SentinelConnector:
    """Ask the sentinels for the master before each connection, because a failover makes another server the master.

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
    """Return options that switch redis-py's retries and timeouts off."""
    return {
        "retry": Retry(NoBackoff(), 0),  # it would try ten times over
        "socket_timeout": None,  # each read would have a timer of its own
        "socket_connect_timeout": timeout_s,
        "decode_responses": False,  # replies of the script are not text
        "protocol": 2,  # RESP3 takes one more command to log in, and lets the server push messages
        "driver_info": None,  # the least ACL does not allow a client to introduce itself
    }
