"""Checks that arrive together go out together: one script call for all that wait while another is in flight.

A batcher belongs to one event loop and one server. Callers only await futures, so a caller that is cancelled or timed out never
touches a connection, and its late reply is read and discarded when it arrives.
"""

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable
from operator import attrgetter
from random import random
from typing import Final

from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.calls import Call
from sluicegate.infrastructure.redis.circuit_breaker import CircuitBreaker
from sluicegate.infrastructure.redis.connection import Connector, call_when_loop_ends, close, require_silence
from sluicegate.infrastructure.redis.deadline_timer import DeadlineTimer
from sluicegate.infrastructure.redis.errors import CLOSED, SILENT, Fault, fault_of
from sluicegate.infrastructure.redis.pipeline import ScriptPipeline
from sluicegate.infrastructure.redis.script import ScriptClient, fail
from sluicegate.runtime.patient_timeout import PatientTimeout

MAX_BATCH: Final = 128
"""Most checks in one script call: Redis serves no other client for the half millisecond that these take."""

_UNDIVIDED: Final = 32
"""Most checks that go out together although none would be left for the next batch. Of more, only half go: while the server
works on one half, this process works on the other. Smaller halves would cost more in system calls than they gain."""

_MAX_AHEAD: Final = 2
"""Most batches in flight on a connection: the one that the server works on, and the one that it does next."""

_MIN_AHEAD: Final = 16
"""Fewest checks that go out while a batch is in flight. Fewer wait for its reply, and for others to join them."""

MAX_WAITING: Final = 20_000
"""Most checks that wait for a connection; the failure policy answers what exceeds it."""

MAX_CONNECTIONS: Final = 4
"""Most connections to one server. One is enough, and best, where the server is near: what arrives while a batch is in flight
makes the next one. Where it is far, waiting for the reply to others doubles a check's time; then more are opened."""

_FAR_S: Final = 0.005
_due_s: Final[Callable[[Call], float]] = attrgetter("due_s")
_MOST_FAILED: Final = 256  # in a turn of the event loop
_MAX_BATCH_REQUESTS: Final = 1024  # Lua's `unpack` takes a few thousand
_PROBE_WHILE_ASKED_S: Final = 10.0  # without checks, probing whether the server is back is of no use


class Batcher:
    """Send calls to one server in batches, and answer each by its deadline.

    Args:
        connector: Opens connections to it.
        client: Encodes batches and answers their calls.
        deadline_s: How long the server may take before the breaker counts a miss; no call's deadline may be longer.
        connect_timeout_s: How long opening a connection may take, in the background.
        on_trip: Called when the breaker opens.
    """

    def __init__(
        self,
        connector: Connector,
        client: ScriptClient,
        *,
        deadline_s: float,
        connect_timeout_s: float,
        on_trip: Callable[[], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        self._client = client
        self._deadline_s = deadline_s
        self._connect_timeout_s = connect_timeout_s
        self._on_trip = on_trip
        self.breaker = CircuitBreaker(deadline_s)
        self._waiting: list[Call] = []  # the earliest deadline first
        self.pipelines: list[ScriptPipeline] = []
        """The open connections."""
        self._scheduled = False  # `_send` runs in the event loop's next iteration
        self._opener: asyncio.Task[None] | None = None
        self._opening_s = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._timer = DeadlineTimer(
            deadline_s, next_s=self._next_deadline_s, expire=self._expire, delay=self._note_delay
        )
        self._asked_s = 0.0
        self._closed = False
        self._loop_end: object = None

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer by its deadline.

        Raises:
            StorageError: At once, if the breaker is open, too many calls wait, or the storage was closed.
        """
        due_s = call.due_s
        self._asked_s = due_s
        if self._closed or self.breaker.is_open:
            self._refuse()
        waiting = self._waiting
        count = len(waiting)
        if count >= MAX_WAITING:
            raise StorageError("overload", f"{MAX_WAITING} checks wait for the server already.")
        if count and waiting[count - 1].due_s > due_s:
            insort(waiting, call, key=_due_s)
        else:
            waiting.append(call)
        if due_s < self._timer.due_s:
            self._timer.arm(due_s)
        if not self._scheduled:
            if not self.pipelines:
                self._open()
            elif self._next_pipeline() is not None:
                self._schedule()

    @property
    def wanted(self) -> bool:
        """Whether this server was asked for anything lately."""
        return self._loop.time() - self._asked_s < _PROBE_WHILE_ASKED_S

    async def aclose(self) -> None:
        """Close the connections; calls that still wait get a `StorageError`."""
        self._closed = True
        self._timer.cancel()
        self._drop_connections(CLOSED)
        tasks = [*self._closing]
        if self._opener is not None:
            self._opener.cancel()
            tasks.append(self._opener)
        if tasks:
            await asyncio.wait(tasks)
        await self._connector.aclose()

    def _refuse(self) -> None:
        if self._closed:
            raise CLOSED.error()
        if self._opener is None:
            self._open()
        raise StorageError("breaker_open", f"The server is not asked for now: {self.breaker.cause}")

    # Batches

    def _schedule(self) -> None:
        """Send in the event loop's next iteration: all that is asked until then goes along.

        Called when callers have their answers, so that what they ask next goes out in the same iteration.
        """
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Send what waits, as far as there is room for it."""
        self._scheduled = False
        while self._waiting:
            pipeline = self._next_pipeline()
            if pipeline is None:
                return
            calls = self._fetch(ahead=pipeline.batches > 0)
            if calls:
                pipeline.send(calls)

    def _next_pipeline(self) -> ScriptPipeline | None:
        """Return the connection that takes the next batch; None if what waits goes on waiting."""
        for pipeline in self.pipelines:
            if pipeline.batches == 0:
                return pipeline
        if len(self._waiting) >= _MIN_AHEAD:
            for pipeline in self.pipelines:
                if pipeline.batches < _MAX_AHEAD:
                    return pipeline
        return None

    def _fetch(self, *, ahead: bool) -> list[Call]:
        """Take a batch out of what waits: all, or half if that is enough for two batches.

        Args:
            ahead: Whether another batch is in flight on the connection.
        """
        waiting = self._waiting
        most = MAX_BATCH
        if not ahead and len(waiting) > _UNDIVIDED:
            most = min(MAX_BATCH, (len(waiting) + 1) // 2)
        calls: list[Call] = []
        requests = 0
        at = 0
        while at < len(waiting) and len(calls) < most and requests < _MAX_BATCH_REQUESTS:
            call = waiting[at]
            at += 1
            if not call.future.done():  # a caller that is cancelled or timed out while it waits is not charged
                calls.append(call)
                requests += len(call.requests)
        del waiting[:at]
        return calls

    def _handle_reply(self, sent_s: float) -> None:
        self.breaker.answered(sent_s)
        is_far = self._loop.time() - sent_s > _FAR_S
        if is_far and self._waiting and self._opener is None and len(self.pipelines) < MAX_CONNECTIONS:
            self._open()
        self._send()

    # Connections

    def _open(self) -> None:
        if self._opener is None:
            self._opening_s = self._loop.time()
            self._opener = self._loop.create_task(self._open_connection())

    async def _open_connection(self) -> None:
        """Open one connection: at once, or while the breaker is open as a probe, after a pause, until one succeeds."""
        try:
            if self._loop_end is None:
                self._loop_end = await call_when_loop_ends(self.aclose)
            while not self._closed:
                if self.breaker.is_open:
                    if not self.wanted:
                        return
                    await asyncio.sleep(self.breaker.pause_s(random()))  # noqa: S311 - it spreads load, it hides nothing
                self._opening_s = self._loop.time()
                try:
                    pipeline = await self._connected()
                except Exception as error:  # noqa: BLE001 - whatever it was, there is no connection
                    fault = fault_of(error)
                    if not self.breaker.is_open and self.pipelines:
                        return  # one connection less than there might be
                    self._trip(fault)
                    continue
                self.breaker.close()
                self.pipelines.append(pipeline)
                self._send()
                return
        finally:
            self._opener = None

    async def _connected(self) -> ScriptPipeline:
        async with PatientTimeout(self._connect_timeout_s):
            connection = await self._connector.open()
            try:
                if self.breaker.is_open:
                    async with PatientTimeout(self._deadline_s):
                        await self._client.probe(connection)
                await require_silence(connection)
                return ScriptPipeline(
                    connection,
                    self._client,
                    on_reply=self._handle_reply,
                    on_settled=self._schedule,
                    on_loss=self._lose,
                )
            except BaseException:
                await close(connection, wait=False)
                raise

    def _lose(self, pipeline: ScriptPipeline, fault: Fault) -> None:
        """Give a connection up: calls in flight on it fail, calls that wait go to another."""
        calls = pipeline.calls()
        if pipeline in self.pipelines:
            self.pipelines.remove(pipeline)
        self._dispose(pipeline)
        fail(calls, fault)
        if (calls and not pipeline.proven) or fault.reason in {"readonly", "auth", "loading"}:
            # A new connection would fare no better: this one broke before it answered, or the server refused.
            self._trip(fault)
        elif self._waiting and not self._closed:
            if not self.pipelines:
                self._open()
            else:
                self._schedule()

    def _trip(self, fault: Fault) -> None:
        """Open the breaker: no call waits for this server, and one probe at a time tries whether it is back."""
        self.breaker.trip(f"{fault.reason}: {fault.message}")
        self._drop_connections(fault)
        if self._on_trip is not None:
            self._on_trip()
        if self._opener is None and not self._closed:
            self._open()

    def _drop_connections(self, fault: Fault) -> None:
        pipelines, self.pipelines = self.pipelines, []
        for pipeline in pipelines:
            self._dispose(pipeline)
            fail(pipeline.calls(), fault)
        waiting, self._waiting = self._waiting, []
        self._fail_in_turns(waiting, lambda _: fault)

    def _fail_in_turns(self, calls: list[Call], fault_of: Callable[[Call], Fault], first: int = 0) -> None:
        """Fail calls that waited, a bounded number in a turn of the event loop: all their callers go on in the next one."""
        for call in calls[first : first + _MOST_FAILED]:
            fail((call,), fault_of(call))
        if first + _MOST_FAILED < len(calls):
            self._loop.call_soon(self._fail_in_turns, calls, fault_of, first + _MOST_FAILED)

    def _dispose(self, pipeline: ScriptPipeline) -> None:
        pipeline.abandon()
        task = self._loop.create_task(close(pipeline.connection, wait=self._closed))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # Deadlines

    def _note_delay(self, late_s: float) -> None:
        """Give all calls the time that the event loop was too busy to use for them."""
        for call in self._waiting:
            call.delay(late_s)
        for pipeline in self.pipelines:
            pipeline.delay(late_s)
        self._opening_s += late_s

    def _expire(self, read_s: float) -> None:
        """Fail the calls whose deadline has passed, and stop asking a server that is silent.

        Args:
            read_s: All that had arrived by this instant has been read.
        """
        at = bisect_right(self._waiting, read_s, key=_due_s)
        overdue, self._waiting = self._waiting[:at], self._waiting[at:]
        silent_s = self._silent_since_s()
        waited_s = 0.0 if silent_s is None else read_s - silent_s
        self._fail_in_turns(overdue, lambda call: call.blame(waited_s))
        for pipeline in self.pipelines:
            pipeline.expire(read_s, self._timer.step_s)
        if silent_s is not None and self.breaker.is_too_silent(silent_s, read_s):
            self._trip(SILENT)

    def _next_deadline_s(self) -> float | None:
        """Return when the next call is due, or a silence is to be counted; None if nothing is waited for."""
        instants = [call.due_s for pipeline in self.pipelines for call in pipeline.calls() if not call.future.done()]
        if self._waiting:
            instants.append(self._waiting[0].due_s)
        silent_s = self._silent_since_s()
        if silent_s is not None:
            instants.append(self.breaker.next_miss_s(silent_s))
        return min(instants, default=None)

    def _silent_since_s(self) -> float | None:
        """Return since when the server has kept us waiting: for a reply, or for the first connection."""
        instants = [s for s in [pipeline.waiting_since_s() for pipeline in self.pipelines] if s is not None]
        if instants:
            return min(instants)
        if self._opener is not None and self._waiting and not self.breaker.is_open:
            return self._opening_s
        return None

    def __repr__(self) -> str:
        return f"Batcher(waiting={len(self._waiting)}, breaker={self.breaker!r})"
