"""A TCP proxy that makes the faults of a network: slow, silent, half-open, reset, sliced, garbled."""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from typing import Self

_CHUNK = 65_536


@dataclass
class Faults:
    """What the proxy does; may be changed at any time, and holds from the next chunk on.

    Args:
        latency_s: Seconds by which each chunk of each direction is delayed.
        jitter_s: At most so many seconds more, at random.
        blackhole: Nothing is passed on in either direction; connections are accepted.
        half_open: Requests are passed on, replies are not.
        slice_bytes: Replies arrive in pieces of so many bytes; 0: as they came.
        garbage: This is sent in place of each reply; empty: the reply.
        refuse: New connections are closed at once.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    blackhole: bool = False
    half_open: bool = False
    slice_bytes: int = 0
    garbage: bytes = b""
    refuse: bool = False


class FaultProxy:
    """Stand between a client and a server.

    Args:
        host: Where the server is.
        port: Its port.
        seed: What jitter is drawn from.
    """

    def __init__(self, host: str, port: int, *, seed: int = 1) -> None:
        self.faults = Faults()
        self.accepted = 0
        """How many connections were accepted."""
        self.port = 0
        """Where the proxy listens."""
        self._target = host, port
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the server behind the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Reset all connections, as a crashed host's peer would see it."""
        for client, server in list(self._open.items()):
            sock = client.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
            server.transport.abort()
        self._open.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.faults.refuse:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open[writer] = up_writer
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, replies=False), self._pump(up_reader, writer, replies=True)
            )
        except OSError:
            pass
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()
            up_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        """Pass chunks on in order; a chunk's delay does not delay the reading of the next one."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.ensure_future(self._send(chunks, writer, replies=replies))
        try:
            while data := await reader.read(_CHUNK):
                delay = self.faults.latency_s + self._random.random() * self.faults.jitter_s
                chunks.put_nowait((loop.time() + delay, data))
            chunks.put_nowait((0.0, b""))
            await sender
        finally:
            sender.cancel()

    async def _send(
        self, chunks: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await chunks.get()
            if not data:
                if not self.faults.blackhole:
                    writer.close()
                return
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            faults = self.faults
            if faults.blackhole or (replies and faults.half_open):
                continue
            if replies and faults.garbage:
                data = faults.garbage
            size = faults.slice_bytes if replies and faults.slice_bytes else len(data)
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                if size < len(data):
                    await asyncio.sleep(0)
