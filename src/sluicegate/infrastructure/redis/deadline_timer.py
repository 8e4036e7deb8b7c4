"""One timer for all the deadlines of a batcher, which tells a server that is late from an event loop that is busy."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

from sluicegate.runtime.patient_timeout import DELAYED_S, SHORTEST_STEP_S, STEPS

_PAUSE_S: Final = 0.001  # with a thousand deadlines a second, they are judged at most once in this time


class DeadlineTimer:
    """Call `expire` at the earliest deadline, and then again at the next.

    While a deadline is waited for, the timer ticks. A tick that is late shows that the event loop did not come round, because of
    other work or because the process was paused; `delay` gets the time that was lost. And when a deadline has passed, the sockets
    are read once more before `expire` is called, for replies may be waiting in them unread.

    Args:
        deadline_s: How long calls wait at most, of which a tick is a part.
        next_s: Returns the event loop's time of the earliest deadline; None if there is none.
        expire: Gets an instant of the event loop's time, and handles all deadlines up to it. All that had arrived by that instant
            has been read.
        delay: Gets the seconds that the event loop was late by.
    """

    __slots__ = ("_at_s", "_delay", "_expire", "_handle", "_judged_s", "_loop", "_next_s", "due_s", "step_s")

    def __init__(
        self,
        deadline_s: float,
        *,
        next_s: Callable[[], float | None],
        expire: Callable[[float], None],
        delay: Callable[[float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.step_s = max(deadline_s / STEPS, SHORTEST_STEP_S)
        """The time between two ticks; of a time in which the loop did not come round, so much counts."""
        self._next_s = next_s
        self._expire = expire
        self._delay = delay
        self._handle: asyncio.Handle | None = None
        self._at_s = 0.0
        self._judged_s = 0.0
        self.due_s: float = inf
        """No deadline is earlier; infinity while there is none. Call `arm` only for one that is."""

    def arm(self, due_s: float) -> None:
        """Wait for a deadline that is earlier than all others."""
        self.due_s = due_s
        if self._handle is None:
            self._wait(self._loop.time())
        elif due_s < self._at_s:
            self._handle.cancel()
            self._wait(self._loop.time())

    def cancel(self) -> None:
        """Stop the timer."""
        self.due_s = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wait(self, now_s: float) -> None:
        self._at_s = min(self.due_s, now_s + self.step_s)
        self._handle = self._loop.call_at(self._at_s, self._tick)

    def _tick(self) -> None:
        now_s = self._loop.time()
        late_s = now_s - self._at_s
        if late_s > DELAYED_S:
            self._delay(late_s)
        if now_s >= self.due_s:
            due_s = self._next_s()
            self.due_s = inf if due_s is None else due_s
        if now_s < self.due_s:
            self._go_on(now_s)
            return
        self._judged_s = now_s
        # Whatever the loop's order, it reads the sockets between two turns.
        self._handle = self._loop.call_soon(self._read_sockets)

    def _read_sockets(self) -> None:
        self._handle = self._loop.call_soon(self._judge)

    def _judge(self) -> None:
        self._expire(self._judged_s)
        due_s = self._next_s()
        now_s = self._loop.time()
        self.due_s = inf if due_s is None else max(due_s, now_s + _PAUSE_S)
        self._go_on(now_s)

    def _go_on(self, now_s: float) -> None:
        if self.due_s == inf:
            self._handle = None
        else:
            self._wait(now_s)
