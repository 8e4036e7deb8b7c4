"""One connection: script calls out, one behind the other, and the replies in by callback, in the same order.

The bytes of a connection that redis-py has opened and logged in go through here: no task waits for a reply, so a batch costs
half of the event loop's work that redis-py's coroutines take. And the server has the next batch at hand while this process
answers the callers of the last.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sluicegate.infrastructure.redis.connection import RedisConnection, reply_reader, transport_of
from sluicegate.infrastructure.redis.errors import Fault, fault_of
from sluicegate.infrastructure.redis.script import Call
from sluicegate.infrastructure.redis.script_client import ASKING, ScriptClient, fail

NO_MORE = 2**30

_BUFFER_BYTES = 2**14  # the replies to some thousand checks

_ENDED = Fault("lost", "connection", "The server closed the connection.")
_UNASKED = Fault("lost", "wrong_reply", "The server replied to nothing.")


class _ScriptCall:
    """A script call whose reply is owed; without calls: an ASKING."""

    __slots__ = ("by_digest", "calls", "echo", "ends_batch", "sent_s")

    def __init__(self, calls: Sequence[Call], echo: int, sent_s: float, *, by_digest: bool, ends_batch: bool) -> None:
        self.calls = calls
        self.echo = echo
        self.sent_s = sent_s
        self.by_digest = by_digest
        self.ends_batch = ends_batch


class ScriptPipeline(asyncio.BufferedProtocol):
    """Carry batches out on one connection.

    Args:
        connection: A connection that is logged in and on which nothing is owed; nobody else uses it any more.
        exchange: What is sent and what a reply means.
        on_answer: Called when a batch is answered, with the seconds that it took, before its callers are: there is room for
            another one.
        on_settled: Called when the callers of all batches that were answered at a time have their answers.
        on_loss: Called at most once, when the connection is not to be used any more. What is in flight then is not answered;
            it may have been executed.
    """

    def __init__(
        self,
        connection: RedisConnection,
        exchange: ScriptClient,
        *,
        on_answer: Callable[[float], None],
        on_settled: Callable[[], None],
        on_loss: "Callable[[ScriptPipeline, Fault], None]",
    ) -> None:
        self.connection = connection
        self.batches = 0
        """How many batches are in flight; `NO_MORE` and above: nothing may be sent any more."""
        self.proven = False
        """Whether a batch was ever answered."""
        self._exchange = exchange
        self._on_answer = on_answer
        self._on_settled = on_settled
        self._on_loss = on_loss
        self._time = asyncio.get_running_loop().time
        self._owed: deque[_ScriptCall] = deque()
        self._replies: Any = reply_reader()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(
            self._buffer
        )  # of which TLS fills one slice after the other; a bytearray's would be copies
        self._ending: Fault | None = None
        self._ended = False
        self._transport = transport_of(connection)
        self._streams: asyncio.BaseProtocol = self._transport.get_protocol()
        self._transport.set_protocol(self)

    @property
    def calls(self) -> Iterator[Call]:
        """What is in flight."""
        return (call for sent in self._owed for call in sent.calls)

    @property
    def owed_since_s(self) -> float | None:
        """When the first call that is in flight was sent, by the event loop's time."""
        return self._owed[0].sent_s if self._owed else None

    def send(self, calls: Sequence[Call]) -> None:
        """Send a batch. Whatever is raised on the way is the answer to it and the end of the connection."""
        groups = self._exchange.groups(calls)
        self.batches += 1
        owed = [self._entry(group, ends_batch=group is groups[-1]) for group in groups]
        try:
            self._write(owed)
        except Exception as error:  # noqa: BLE001 - a key that cannot be encoded, for instance
            self._owed.extend(owed)
            self._lose(fault_of(error))

    def let_go(self) -> None:
        """Heed no reply any more."""
        self._ended = True

    # The event loop's calls

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return where to put what the server sent: always the same memory. A stream takes a new piece each time."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what the server sent: any part of a reply, or several."""
        if self._ended:
            return
        replies = self._replies
        try:
            replies.feed(self._buffer, 0, nbytes)
            while not self._ended and (reply := replies.gets()) is not False:
                self._take(reply)
        except Exception as error:  # noqa: BLE001 - whatever it was, the place of the next reply is not known
            self._lose(fault_of(error))
        self._on_settled()

    def eof_received(self) -> None:
        """Give the connection up: the server has ended it."""
        self._lose(_ENDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the connection up, and tell redis-py, which may wait for this."""
        self._streams.connection_lost(exc)
        self._lose(fault_of(exc) if exc else _ENDED)

    # Replies

    def _take(self, reply: object) -> None:
        if not self._owed:
            self._lose(_UNASKED)
            return
        sent = self._owed[0]
        fault = fault_of(reply) if isinstance(reply, Exception) else None
        if fault is not None and fault.kind == "lost" and fault.reason != "readonly":
            self._lose(fault)
            return
        numbers = self._exchange.read(sent.calls, sent.echo, reply) if fault is None and sent.calls else None
        self._owed.popleft()
        try:
            self._heed(sent, numbers, fault)
        except Exception as error:
            fail(sent.calls, fault_of(error))
            raise
        if self._ending is not None and not self._owed:
            self._lose(self._ending)

    def _heed(self, sent: _ScriptCall, numbers: Sequence[int] | None, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "no_script" and sent.by_digest:
            self._send_again(sent)
            return
        if fault is not None and fault.reason == "readonly":  # the replies behind it are in their places
            fail(sent.calls, fault)
            self._ending = fault
            self.batches += NO_MORE
            return
        if sent.ends_batch:
            self.batches -= 1
            self.proven = True
            if self._ending is None:  # first, so that the server has work while the callers are answered
                self._on_answer(self._time() - sent.sent_s)
        if numbers is not None:
            self._exchange.settle(sent.calls, numbers)
        elif fault is not None:
            self._exchange.refuse(sent.calls, fault)

    def _send_again(self, sent: _ScriptCall) -> None:
        """Send what was not executed because the script was not known: with the script, unless that is on its way already."""
        loading = any(not other.by_digest for other in self._owed)
        self._write([self._entry(sent.calls, by_digest=loading, ends_batch=sent.ends_batch)])

    def _entry(self, calls: Sequence[Call], *, by_digest: bool = True, ends_batch: bool) -> _ScriptCall:
        return _ScriptCall(calls, self._exchange.next_echo(), self._time(), by_digest=by_digest, ends_batch=ends_batch)

    def _write(self, script_calls: Sequence[_ScriptCall]) -> None:
        packed: list[bytes] = []
        owed: list[_ScriptCall] = []
        for sent in script_calls:
            if sent.calls[0].asking:
                packed.append(ASKING)
                owed.append(_ScriptCall((), 0, sent.sent_s, by_digest=False, ends_batch=False))
            packed.append(self._exchange.packed(sent.calls, sent.echo, by_digest=sent.by_digest))
            owed.append(sent)
        self._owed.extend(owed)
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def _lose(self, fault: Fault) -> None:
        if not self._ended:
            self._ended = True
            self._on_loss(self, fault)

    def __repr__(self) -> str:
        return f"ScriptPipeline(batches={self.batches})"
