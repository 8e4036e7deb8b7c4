"""Checks that arrive together go out together: one script call for all that wait while another is in flight.

One dispatcher belongs to one event loop and one server. Callers only await futures, so that one who is cancelled or timed out
never touches a connection, and its late reply is read and discarded in its turn.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from random import random

from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.circuit_breaker import CircuitBreaker
from sluicegate.infrastructure.redis.connection import Connector, hang_up, require_silence
from sluicegate.infrastructure.redis.deadline_timer import DeadlineTimer
from sluicegate.infrastructure.redis.errors import Fault, fault_of
from sluicegate.infrastructure.redis.pipeline import ScriptPipeline
from sluicegate.infrastructure.redis.script import Call
from sluicegate.infrastructure.redis.script_client import ScriptClient, fail

MAX_BATCH = 128
"""Most checks in one script call: Redis serves nobody else for the half millisecond that these take."""

_UNDIVIDED = 32
"""Most checks that go out together although nobody would be left for the next batch. Of more only half go: while the server
works on one half, this process works on the other. Smaller halves would cost more in system calls than they gain."""

_MAX_AHEAD = 2
"""Most batches in flight on a connection: one that the server works on, and one that it has at hand after that."""

_MIN_AHEAD = 16
"""Fewest checks that go out although a batch is in flight. Fewer wait for its reply, and for others to join them."""

MAX_WAITING = 20_000
"""Most checks that wait for a connection; what exceeds it is answered by the failure policy."""

MAX_LANES = 4
"""Most connections to one server. The first is enough, and best, where the server is near: what arrives while a batch is
in flight makes the next one. Where it is far, waiting for a reply to others doubles a check's time; then more are opened."""

_FAR_S = 0.005
_MAX_BATCH_DEMANDS = 1024  # Lua's `unpack` takes some thousand
_PROBE_WHILE_ASKED_S = 10.0  # without checks nobody needs to know whether the server is back

_SILENT = Fault("lost", "timeout", "The server did not answer in time.")
_CLOSED = Fault("lost", "connection", "The storage was closed.")


class Batcher:
    """Send calls to one server in batches, in time.

    Args:
        connector: Opens connections to it.
        exchange: Carries a batch out on a connection.
        deadline_s: The longest that a caller waits.
        connect_timeout_s: How long opening a connection may take, in the background.
        on_trip: Called when the breaker opens.
    """

    def __init__(
        self,
        connector: Connector,
        exchange: ScriptClient,
        *,
        deadline_s: float,
        connect_timeout_s: float,
        on_trip: Callable[[], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        self._exchange = exchange
        self._deadline_s = deadline_s
        self._connect_timeout_s = connect_timeout_s
        self._on_trip = on_trip
        self.breaker = CircuitBreaker()
        self._waiting: deque[Call] = deque()
        self._lanes: list[ScriptPipeline] = []
        self._sending = False  # what waits will be looked at in the event loop's next turn
        self._opener: asyncio.Task[None] | None = None
        self._opening_s = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._watch = DeadlineTimer(self._next_s, self._expire)
        self._counted_s = 0.0  # the silence, named by its beginning, that was counted as a miss already
        self._asked_s = 0.0
        self._closed = False
        self._guard: AsyncIterator[None] | None = None

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer, in time.

        Raises:
            StorageError: At once, if the breaker is open, too many wait, or the storage was closed.
        """
        self._asked_s = call.due_s
        if self.breaker.is_open or self._closed:
            self._refuse()
        if len(self._waiting) >= MAX_WAITING:
            raise StorageError("overload", f"{MAX_WAITING} checks wait for the server already.")
        self._waiting.append(call)
        if not self._watch.armed:
            self._watch.arm(call.due_s)
        if not self._sending:
            if not self._lanes:
                self._open()
            elif self._next_lane() is not None:
                self._send_soon()

    @property
    def wanted(self) -> bool:
        """Whether anybody has asked for this server lately."""
        return self._loop.time() - self._asked_s < _PROBE_WHILE_ASKED_S

    def resubmit(self, call: Call) -> None:
        """Take over a call that another dispatcher could not place: it has waited, so it goes first.

        Raises:
            StorageError: As in `submit`.
        """
        self.submit(call)
        if self._waiting and self._waiting[-1] is call:
            self._waiting.rotate(1)
        self._watch.arm(call.due_s)

    async def aclose(self) -> None:
        """Close the connections; who still waits gets a `StorageError`."""
        self._closed = True
        self._watch.cancel()
        self._drop_lanes(_CLOSED)
        tasks = [*self._closing]
        if self._opener is not None:
            self._opener.cancel()
            tasks.append(self._opener)
        if tasks:
            await asyncio.wait(tasks)
        await self._connector.aclose()

    async def _until_the_loop_ends(self) -> AsyncIterator[None]:
        """Close the connections with the event loop, where nobody does it before: a loop that ends ends its generators."""
        try:
            yield
        finally:
            await self.aclose()

    def _refuse(self) -> None:
        if self._closed:
            raise _CLOSED.error()
        if self._opener is None:
            self._open()
        raise StorageError("breaker_open", f"The server is not asked for now: {self.breaker.cause}")

    # Batches

    def _send_soon(self) -> None:
        """Send after all that the event loop has at hand now: who asks until then travels along.

        Called when callers have their answers, so that what they ask next is sent in the same turn.
        """
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Send what waits, as far as there is room for it."""
        self._sending = False
        while self._waiting and (lane := self._next_lane()) is not None:
            if calls := self._fetch(ahead=lane.batches > 0):
                lane.send(calls)

    def _next_lane(self) -> ScriptPipeline | None:
        """Return the connection that takes the next batch; None if what waits goes on waiting."""
        for lane in self._lanes:
            if not lane.batches:
                return lane
        if len(self._waiting) >= _MIN_AHEAD:
            for lane in self._lanes:
                if lane.batches < _MAX_AHEAD:
                    return lane
        return None

    def _fetch(self, *, ahead: bool) -> list[Call]:
        """Take a batch out of what waits: all, or half if that is enough for one that goes out ahead of its reply."""
        waiting = self._waiting
        calls: list[Call] = []
        requests = 0
        most = MAX_BATCH
        if not ahead and len(waiting) > _UNDIVIDED:
            most = min(MAX_BATCH, -(-len(waiting) // 2))
        while waiting and len(calls) < most and requests < _MAX_BATCH_DEMANDS:
            call = waiting.popleft()
            if not call.future.done():  # cancelled or timed out while it waited: it costs nothing
                calls.append(call)
                requests += len(call.requests)
        return calls

    def _answered(self, took_s: float) -> None:
        self._note_speed(took_s)
        self._send()

    def _note_speed(self, took_s: float) -> None:
        if took_s < self._deadline_s:
            self.breaker.answered()
        if took_s > _FAR_S and self._waiting and self._opener is None and len(self._lanes) < MAX_LANES:
            self._open()

    # Connections

    def _open(self) -> None:
        if self._opener is None:
            self._opening_s = self._loop.time()
            self._opener = self._loop.create_task(self._open_lane())

    async def _open_lane(self) -> None:
        """Open one connection: at once, or while the breaker is open as a probe, after a pause, until one succeeds."""
        try:
            if self._guard is None:
                self._guard = self._until_the_loop_ends()
                await anext(self._guard)
            while not self._closed:
                if self.breaker.is_open:
                    if not self.wanted:
                        return
                    await asyncio.sleep(self.breaker.pause_s(random()))  # noqa: S311 - it spreads, it hides nothing
                self._opening_s = self._loop.time()
                try:
                    lane = await self._connected()
                except Exception as error:  # noqa: BLE001 - whatever it was, there is no connection
                    fault = fault_of(error)
                    if not self.breaker.is_open and self._lanes:
                        return  # one connection less than there might be
                    self._trip(fault)
                    continue
                self.breaker.close()
                self._lanes.append(lane)
                self._send()
                return
        finally:
            self._opener = None

    async def _connected(self) -> ScriptPipeline:
        async with asyncio.timeout(self._connect_timeout_s):
            connection = await self._connector.open()
            try:
                if self.breaker.is_open:
                    async with asyncio.timeout(self._deadline_s):
                        await self._exchange.probe(connection)
                await require_silence(connection)
                return ScriptPipeline(
                    connection,
                    self._exchange,
                    on_answer=self._answered,
                    on_settled=self._send_soon,
                    on_loss=self._lose,
                )
            except BaseException:
                await connection.disconnect(nowait=True)
                raise

    def _lose(self, lane: ScriptPipeline, fault: Fault) -> None:
        """Give a connection up: what is in flight on it fails, what waits goes to another."""
        calls = list(lane.calls)
        if lane in self._lanes:
            self._lanes.remove(lane)
        self._dispose(lane)
        fail(calls, fault)
        if (calls and not lane.proven) or fault.reason in {"readonly", "auth", "loading"}:
            # A new connection would fare no better: it breaks before it answers, or the server says no.
            self._trip(fault)
        elif self._waiting and not self._closed:
            if not self._lanes:
                self._open()
            else:
                self._send_soon()

    def _trip(self, fault: Fault) -> None:
        """Open the breaker: nobody waits for this server any more, and one probe at a time tries whether it is back."""
        self.breaker.trip(f"{fault.reason}: {fault.message}")
        self._drop_lanes(fault)
        if self._on_trip is not None:
            self._on_trip()
        if self._opener is None and not self._closed:
            self._open()

    def _drop_lanes(self, fault: Fault) -> None:
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            self._dispose(lane)
            fail(lane.calls, fault)
        fail(self._waiting, fault)
        self._waiting.clear()

    def _dispose(self, lane: ScriptPipeline) -> None:
        lane.let_go()
        self._keep(self._loop.create_task(hang_up(lane.connection, wait=self._closed)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # Deadlines

    def _expire(self, now_s: float) -> None:
        """Answer those whose time is up, and stop asking a server that is silent."""
        overdue = [call for lane in self._lanes for call in lane.calls if call.due_s <= now_s]
        while self._waiting and self._waiting[0].due_s <= now_s:
            overdue.append(self._waiting.popleft())
        fail(overdue, _SILENT)
        if self._count_silence(now_s):
            self._trip(_SILENT)

    def _next_s(self) -> float | None:
        """Return when the next call is due, or a silence is to be counted; None if nothing is owed to us."""
        instants = [call.due_s for lane in self._lanes for call in lane.calls if not call.future.done()]
        if self._waiting:
            instants.append(self._waiting[0].due_s)
        owed_s = self._owed_since_s()
        if owed_s is not None:
            instants.append(owed_s + self._deadline_s * (2 if owed_s == self._counted_s else 1))
        return min(instants, default=None)

    def _owed_since_s(self) -> float | None:
        """Return since when the server has kept us waiting: for a reply, or for the only connection."""
        sent = [lane.owed_since_s for lane in self._lanes if lane.owed_since_s is not None]
        if sent:
            return min(sent)
        if self._opener is not None and self._waiting and not self.breaker.is_open:
            return self._opening_s
        return None

    def _count_silence(self, now_s: float) -> bool:
        """Count a deadline that the server has missed. Returns whether to stop asking it.

        A server that owes a reply for two deadlines is not asked any more; nor is one that was late twice in a row.
        """
        owed_s = self._owed_since_s()
        if owed_s is None or now_s - owed_s < self._deadline_s:
            return False
        if now_s - owed_s >= 2 * self._deadline_s:
            return True
        if owed_s == self._counted_s:
            return False
        self._counted_s = owed_s
        return self.breaker.missed()

    def __repr__(self) -> str:
        return f"Batcher(waiting={len(self._waiting)}, breaker={self.breaker!r})"
