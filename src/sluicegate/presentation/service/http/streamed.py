"""Responses that go on, such as server-sent events."""

import asyncio
from typing import Protocol

from sluicegate.presentation.web.asgi.messages import Message, Receive, Send


class Chunks(Protocol):
    """The parts of a body that has no end yet."""

    async def next_chunk(self) -> bytes:
        """Return the next one as soon as there is one; empty: it was the last."""
        ...

    def close(self) -> None:
        """Let go of what they are made from. It is called once, whatever happens."""
        ...


async def send_streamed(start: Message, chunks: Chunks, take_seconds: float, receive: Receive, send: Send) -> None:
    """Send a response until its chunks end, its client is gone, or takes nothing for a while.

    Args:
        start: The message that begins it.
        chunks: Its body. They are closed at the end.
        take_seconds: How long the client may take for one chunk.
        receive: The server's.
        send: The server's.
    """
    try:
        sending = asyncio.ensure_future(_send_all(start, chunks, take_seconds, send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait((sending, leaving))
    finally:
        chunks.close()
    error = None if sending.cancelled() else sending.exception()
    if error is not None and not isinstance(error, TimeoutError):
        raise error


async def _send_all(start: Message, chunks: Chunks, take_seconds: float, send: Send) -> None:
    await send(start)
    more = True
    while more:
        chunk = await chunks.next_chunk()
        more = bool(chunk)
        async with asyncio.timeout(take_seconds):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
