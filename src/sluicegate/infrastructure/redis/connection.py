"""Connections to Redis that redis-py opens and logs in, and that only this package uses.

redis-py, from 5.2 on, does host names, TLS, AUTH and SELECT. Its pools, retries and timeouts are not used: a check has one
deadline for everything, an exhausted pool must not be a way past the limit, what may have been executed is not sent again, and a
busy event loop must not be taken for a silent server.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from hiredis import Reader, pack_command  # pyright: ignore[reportUnknownVariableType] - it returns bytes, and does not say so
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, ResponseError

from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.errors import ErrorReply
from sluicegate.runtime.patient_timeout import PatientTimeout

_SENTINEL_TIMEOUT_S = 0.2  # one that hangs must leave time to ask the next
_CLOSE_TIMEOUT_S = 1.0

# The least ACL does not allow a client to introduce itself.
_NO_INTRODUCTION: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(cast("Any", AbstractConnection).__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
_DOWN = ("s_down", "o_down", "disconnected")


class RedisConnection(Protocol):
    """The part of redis-py's connection that is used here."""

    async def connect(self) -> None:
        """Connect and log in."""
        ...

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the socket."""
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
    """Return a parser of replies: `feed` takes bytes, `gets` returns a reply or False; error replies are `ErrorReply` objects."""
    return Reader(protocolError=InvalidResponse, replyError=ErrorReply)


def transport_of(connection: RedisConnection) -> asyncio.Transport:
    """Return the transport of an open connection, TLS included, to send and receive without redis-py's streams."""
    return cast("asyncio.Transport", cast("Any", connection)._writer.transport)  # noqa: SLF001 - it has no public name


async def require_silence(connection: RedisConnection) -> None:
    """Check that nothing is left to read of the replies to redis-py's own commands.

    Raises:
        StorageError: If something is left, or the server has closed the connection.
    """
    anything: Any = connection
    # Its name in redis-py 8, and before.
    can_read = getattr(anything, "can_read", None) or anything.can_read_destructive
    if await can_read():
        raise StorageError("connection", "The server closed the connection, or sent what was not asked for.")


async def close(connection: RedisConnection, *, wait: bool) -> None:
    """Close a connection; whatever goes wrong meanwhile is ignored.

    Args:
        connection: The connection.
        wait: Whether to wait until it is closed, for a second at most, as `aclose` of a storage does: TLS says goodbye to the
            server first, and the event loop may end before that.
    """
    with contextlib.suppress(Exception):
        async with PatientTimeout(_CLOSE_TIMEOUT_S):
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
    """Connect to one address. How long that may take is the caller's affair.

    Args:
        connection_class: redis-py's class of connection.
        options: Its arguments.
    """

    def __init__(self, connection_class: type[Any], options: Mapping[str, Any]) -> None:
        self._class = connection_class
        self._options = {**options, **_WITHOUT_WAITING, **_NO_INTRODUCTION}
        self._client_name: str | None = self._options.pop("client_name", None)

    async def open(self, **address: object) -> RedisConnection:
        """Return a connection that is logged in."""
        connection: RedisConnection = self._class(**{**self._options, **address})
        try:
            await connection.connect()
            if self._client_name:
                with contextlib.suppress(ResponseError):  # who may not have a name goes without
                    await ask(connection, "CLIENT", "SETNAME", self._client_name)
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
        sentinel: Connects to a sentinel.
        master: Connects to the master.
    """

    def __init__(
        self, hosts: Sequence[tuple[str, int]], service: str, sentinel: DirectConnector, master: DirectConnector
    ) -> None:
        self._hosts = list(hosts)  # the one that answered last comes first
        self._service = service
        self._sentinel = sentinel
        self._master = master

    async def open(self) -> RedisConnection:
        """Return a connection to the master.

        Raises:
            StorageError: If no sentinel knows a master that is up.
        """
        for host in list(self._hosts):
            master: tuple[str, int] | None = None
            with contextlib.suppress(Exception):  # the next one may know
                async with PatientTimeout(_SENTINEL_TIMEOUT_S):
                    master = await self._master_by(*host)
            if master is not None:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
                return await self._master.open(host=master[0], port=master[1])
        raise StorageError("connection", "No sentinel that answers knows a master that is up.")

    async def aclose(self) -> None:
        """Do nothing: nothing is held."""

    async def _master_by(self, host: str, port: int) -> tuple[str, int] | None:
        connection = await self._sentinel.open(host=host, port=port)
        try:
            masters = await ask(connection, "SENTINEL", "MASTERS")
        finally:
            await close(connection, wait=False)
        for fields in cast("list[list[bytes]]", masters):
            state = {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
            if state["name"] == self._service and "master" in state["flags"]:
                return None if any(word in state["flags"] for word in _DOWN) else (state["ip"], int(state["port"]))
        return None


async def ask(connection: RedisConnection, *command: str) -> object:
    """Send a command and return its reply. Raises what redis-py raises."""
    await connection.send_packed_command(pack(*command), check_health=False)
    return await connection.read_response()


_WITHOUT_WAITING: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),  # it would try ten times over
    "socket_timeout": None,  # each read would have a timer of its own
    "socket_connect_timeout": None,
    "decode_responses": False,  # replies of the script are not text
    "protocol": 2,  # RESP3 takes one more command to log in, and lets the server push messages
}
