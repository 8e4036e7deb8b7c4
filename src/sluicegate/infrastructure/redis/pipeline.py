"""One connection: script calls go out one behind the other, and replies come in by callback, in the same order.

The bytes of a connection that redis-py has opened and logged in are written and read here: no task waits for a reply, which
halves the event loop's work for a batch. And the server has the next batch already while this process answers the callers of
the last one.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from mypy_extensions import mypyc_attr

from sluicegate.infrastructure.redis.calls import Call
from sluicegate.infrastructure.redis.connection import Receiver, RedisConnection, reply_reader, transport_of
from sluicegate.infrastructure.redis.errors import Fault, fault_of
from sluicegate.infrastructure.redis.script import ASKING, ScriptClient, fail, read, settle

_BUFFER_BYTES: Final = 2**14  # the replies to about a thousand checks

_NO_MORE: Final = 2**30  # added to the number of batches in flight, so that no more are sent

_ENDED: Final = Fault("lost", "connection", "The server closed the connection.")
_UNEXPECTED: Final = Fault("lost", "wrong_reply", "The server sent a reply to nothing.")


@mypyc_attr(acyclic=True)  # it is in no reference cycle: the garbage collector need not look at it
class SentCall:
    """A script call whose reply has not arrived; without calls it is an `ASKING`.

    Args:
        calls: What was asked.
        correlation_id: What the reply must repeat.
        sent_s: When it was sent, by the event loop's time.
        by_digest: Whether it was sent without the script's text.
        ends_batch: Whether it is the last one of its batch.
    """

    __slots__ = ("by_digest", "calls", "correlation_id", "ends_batch", "sent_s")

    def __init__(
        self, calls: list[Call], correlation_id: int, sent_s: float, *, by_digest: bool, ends_batch: bool
    ) -> None:
        self.calls = calls
        self.correlation_id = correlation_id
        self.sent_s = sent_s
        self.by_digest = by_digest
        self.ends_batch = ends_batch


class ScriptPipeline:
    """Carry out batches on one connection.

    Args:
        connection: A connection that is logged in and waits for no reply; it is used here alone from now on.
        client: Encodes batches and answers their calls.
        on_reply: Called when a batch is answered, with the event loop's time at which it was sent, before its callers get their
            answers: another batch may be sent.
        on_settled: Called when the callers of all batches that were answered at once have their answers.
        on_loss: Called at most once, when the connection must not be used any more. Calls in flight have no answer then; they
            may have been executed.
    """

    def __init__(
        self,
        connection: RedisConnection,
        client: ScriptClient,
        *,
        on_reply: Callable[[float], None],
        on_settled: Callable[[], None],
        on_loss: "Callable[[ScriptPipeline, Fault], None]",
    ) -> None:
        self.connection = connection
        self.batches = 0
        """How many batches are in flight; a huge number if no more may be sent."""
        self.proven = False
        """Whether a batch was ever answered."""
        self.sent: list[SentCall] = []
        """What is in flight: a few script calls, or up to two batches of them on a Cluster, one for each slot."""
        self._client = client
        self._on_reply = on_reply
        self._on_settled = on_settled
        self._on_loss = on_loss
        self._time: Callable[[], float] = asyncio.get_running_loop().time
        self._replies: Any = reply_reader()
        self.buffer = bytearray(_BUFFER_BYTES)
        """Where received bytes are put."""
        self._draining: Fault | None = None  # no more is sent; replies are still read
        self._ended = False
        self._write: Callable[[bytes], None] = transport_of(connection).write
        self._receiver = Receiver(connection, memoryview(self.buffer), self.receive, self.end)

    def calls(self) -> list[Call]:
        """Return the calls in flight."""
        return [call for sent in self.sent for call in sent.calls]

    def waiting_since_s(self) -> float | None:
        """Return when the oldest script call in flight was sent, by the event loop's time; None if there is none."""
        return self.sent[0].sent_s if self.sent else None

    def delay(self, late_s: float) -> None:
        """Give the calls in flight the time that the event loop lost."""
        for sent in self.sent:
            for call in sent.calls:
                call.delay(late_s)

    def expire(self, read_s: float, least_s: float) -> None:
        """Fail the calls in flight whose deadline has passed.

        Args:
            read_s: All that had arrived by this instant has been read.
            least_s: How long the server gets for a call that the event loop was late to send.
        """
        for sent in self.sent:
            waited_s = read_s - sent.sent_s
            for call in sent.calls:
                if call.due_s > read_s or waited_s <= 0:  # what was sent after that instant may still be in the socket
                    continue
                if not call.lost_s or waited_s >= least_s:
                    fail((call,), call.blame(waited_s))

    def send(self, calls: list[Call]) -> None:
        """Send a batch. Whatever is raised meanwhile is the answer to its calls, and ends the connection."""
        self.batches += 1
        groups = self._client.groups(calls)
        last = len(groups) - 1
        now_s = self._time()
        script = self._client.script
        script.batches += 1
        script.calls += len(calls)
        next_id = script.next_id
        batch: list[SentCall] = []
        for at, group in enumerate(groups):
            batch.append(SentCall(group, next_id(), now_s, by_digest=True, ends_batch=at == last))
        try:
            self._send(batch)
        except Exception as error:  # noqa: BLE001 - a key that cannot be encoded, for instance
            self.sent.extend(batch)
            self._lose(fault_of(error))

    def abandon(self) -> None:
        """Ignore further replies."""
        self._ended = True

    def receive(self, nbytes: int) -> None:
        """Handle received bytes: any part of a reply, or several replies.

        Args:
            nbytes: How many are in the buffer.
        """
        if self._ended:
            return
        replies = self._replies
        try:
            replies.feed(self.buffer, 0, nbytes)
            while not self._ended:
                reply = replies.gets()
                if reply is False:
                    break
                self._handle(reply)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is not known which call the next reply answers
            self._lose(fault_of(error))
        self._on_settled()

    def end(self, error: Exception | None) -> None:
        """Handle the end of the connection.

        Args:
            error: The reason; None if the server closed it.
        """
        self._lose(_ENDED if error is None else fault_of(error))

    # Replies

    def _handle(self, reply: object) -> None:
        if not self.sent:
            self._lose(_UNEXPECTED)
            return
        sent = self.sent[0]
        numbers: list[int] | None = None
        fault: Fault | None = None
        if isinstance(reply, Exception):
            fault = fault_of(reply)
            if fault.kind == "lost" and fault.reason != "readonly":
                self._lose(fault)
                return
        elif sent.calls:
            numbers = read(sent.calls, sent.correlation_id, reply)
        del self.sent[0]
        try:
            if fault is None:
                self._note_reply(sent)
                if numbers is not None:
                    settle(sent.calls, numbers)
            else:
                self._handle_fault(sent, fault)
        except Exception as error:
            fail(sent.calls, fault_of(error))
            raise
        if self._draining is not None and not self.sent:
            self._lose(self._draining)

    def _note_reply(self, sent: SentCall) -> None:
        if not sent.ends_batch:
            return
        self.batches -= 1
        self.proven = True
        if self._draining is None:  # before the callers get their answers, so that the server has work meanwhile
            self._on_reply(sent.sent_s)

    def _handle_fault(self, sent: SentCall, fault: Fault) -> None:
        if fault.kind == "no_script" and sent.by_digest:
            self._send_again(sent)
        elif fault.reason == "readonly":
            # This server is a replica now. The replies to the other calls in flight are still in their places.
            fail(sent.calls, fault)
            self._draining = fault
            self.batches += _NO_MORE
        else:
            self._note_reply(sent)
            self._client.refuse(sent.calls, fault)

    def _send_again(self, sent: SentCall) -> None:
        """Send what was not executed because the script was unknown: with the text, unless that is on its way already."""
        loading = any(not other.by_digest and other.calls for other in self.sent)
        next_id = self._client.script.next_id
        self._send([SentCall(sent.calls, next_id(), self._time(), by_digest=loading, ends_batch=sent.ends_batch)])

    def _send(self, batch: list[SentCall]) -> None:
        commands: list[bytes] = []
        sent: list[SentCall] = []
        for one in batch:
            if one.calls[0].asking:
                commands.append(ASKING)
                sent.append(SentCall([], 0, one.sent_s, by_digest=False, ends_batch=False))
            commands.append(self._client.encode(one.calls, one.correlation_id, by_digest=one.by_digest))
            sent.append(one)
        self.sent.extend(sent)
        self._write(commands[0] if len(commands) == 1 else b"".join(commands))

    def _lose(self, fault: Fault) -> None:
        if not self._ended:
            self._ended = True
            self._on_loss(self, fault)

    def __repr__(self) -> str:
        return f"ScriptPipeline(batches={self.batches})"
