"""One connection of the Redis protocol: commands in, replies out in their order, and no more memory than that takes."""

import asyncio
from collections import deque
from typing import Final

from sluicegate.application.joint_check import JointCheck
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.presentation.service.resp.request_parser import ProtocolError, RequestParser
from sluicegate.presentation.service.resp.session import Session, error

_AT_ONCE: Final = 64
"""How many commands are carried out before others have a turn on the event loop."""

_MAX_WAITING: Final = 1024
"""How many replies of a connection may be waited for."""

_WRITE_BUFFER_BYTES: Final = 262_144


class RespSettings:
    """What all connections of a server share.

    Args:
        limiter: Decides.
        password: What clients must say; empty: nothing.
        storage_errors: Whether a check that the storage did not decide is an error.
        idle_seconds: After how long a connection that sends nothing, or does not read, is closed.
        login_seconds: How long a client may take until it has said the password.
        max_connections: The most connections at a time.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        limiter: TokenBucketAdapter,
        *,
        password: str,
        storage_errors: bool,
        idle_seconds: float,
        login_seconds: float,
        max_connections: int,
    ) -> None:
        self.limiter = limiter
        self.password = password.encode()
        self.storage_errors = storage_errors
        self.idle_seconds = idle_seconds
        self.login_seconds = login_seconds
        self.max_connections = max_connections
        self.connections: set[RespConnection] = set()
        """Those that are open."""


class RespConnection(asyncio.Protocol):
    """Serve one client.

    Args:
        settings: What all connections share.
    """

    def __init__(self, settings: RespSettings) -> None:
        self._settings = settings
        self._limiter = settings.limiter
        self._session = Session(settings.limiter, settings.password, storage_errors=settings.storage_errors)
        self._parser = RequestParser()
        self._replies: deque[bytes | asyncio.Task[bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._since_s = self._last_s = self._loop.time()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_scheduled = False
        self._is_stuffed = False  # the client does not read its replies
        self._is_ending = False

    @property
    def is_quiet(self) -> bool:
        """Whether everything that came has been answered, and nothing came for a quarter of a second."""
        return self._parser.is_empty and not self._replies and self._loop.time() - self._last_s > 0.25  # noqa: PLR2004 - as stated

    def close(self) -> None:
        """Close the connection once what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection, or refuse it if there are too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        self._transport = transport
        transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        if len(self._settings.connections) >= self._settings.max_connections:
            transport.write(error("max number of clients reached"))
            transport.close()
            return
        self._settings.connections.add(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._settings.connections.discard(self)
        self._transport = None
        self._is_ending = True
        if self._timer is not None:
            self._timer.cancel()
        for reply in self._replies:
            if isinstance(reply, asyncio.Task):
                reply.cancel()

    def data_received(self, data: bytes) -> None:
        """Carry out what came."""
        self._last_s = self._loop.time()
        self._parser.feed(data)
        self._carry_out()

    def pause_writing(self) -> None:
        """Carry out nothing more for a client that does not read its replies."""
        self._is_stuffed = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_stuffed = False
        self._carry_out()

    # Commands

    def _carry_out(self) -> None:
        """Carry out some commands, and come back later for the others."""
        transport = self._transport
        if transport is None or self._is_scheduled or self._is_ending:
            return
        left = _AT_ONCE
        try:
            while left and not self._is_stuffed and len(self._replies) < _MAX_WAITING and not self._session.is_ending:
                command = self._parser.next_command()
                if command is None:
                    break
                left -= 1
                if command:
                    self._replies.append(self._answer(command))
        except ProtocolError as invalid:
            self._session.is_ending = True
            self._replies.append(error(f"Protocol error: {invalid}"))
        if not left:
            self._is_scheduled = True
            self._loop.call_soon(self._carry_on)
        if self._session.is_ending or not left or self._is_stuffed or len(self._replies) >= _MAX_WAITING:
            transport.pause_reading()
        else:
            transport.resume_reading()
        self._flush()

    def _carry_on(self) -> None:
        self._is_scheduled = False
        self._carry_out()

    def _answer(self, command: list[bytes]) -> "bytes | asyncio.Task[bytes]":
        answer = self._session.answer(command)
        if not isinstance(answer, JointCheck):
            return answer
        task = self._loop.create_task(self._complete(answer))
        task.add_done_callback(self._when_done)
        return task

    async def _complete(self, joint: JointCheck) -> bytes:
        await self._limiter.complete_together(joint)
        return self._session.throttle_reply(joint)

    def _when_done(self, task: "asyncio.Task[bytes]") -> None:
        if self._replies and self._replies[0] is task:
            was_full = len(self._replies) >= _MAX_WAITING
            self._flush()
            if was_full:
                self._carry_out()

    def _flush(self) -> None:
        """Write the replies that are there, up to the first that is not."""
        ready: list[bytes] = []
        replies = self._replies
        while replies:
            reply = replies[0]
            if not isinstance(reply, bytes):
                if not reply.done() or reply.cancelled():
                    break
                reply = reply.result()
            ready.append(reply)
            replies.popleft()
        transport = self._transport
        if transport is None:
            return
        if ready:
            transport.write(b"".join(ready))
        if self._session.is_ending and not replies:
            self._is_ending = True
            transport.close()

    def _watch(self) -> None:
        """Drop a connection on which nothing happens, and look again in a second.

        To close it would wait until the client has read its replies.
        """
        now_s = self._loop.time()
        is_late = not self._session.is_logged_in and now_s - self._since_s > self._settings.login_seconds
        if self._transport is not None and (is_late or now_s - self._last_s > self._settings.idle_seconds):
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(1.0, self._watch)
