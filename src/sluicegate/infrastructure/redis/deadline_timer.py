"""One timer for all the deadlines of a batcher: it fires at the earliest of them."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

_STEP_S: Final = 0.001  # with a thousand deadlines a second, the timer still fires at most once in this time
_DELAYED_S: Final = 0.005


class DeadlineTimer:
    """Call `expire` at the earliest deadline, and then again at the next.

    A timer that fires much too late was delayed by the event loop: by other work, or because the process was paused. Replies
    may be waiting in the socket unread then, so the loop gets one more iteration to read them before anything expires.

    Args:
        next_s: Returns the event loop's time of the earliest deadline; None if there is none.
        expire: Gets the event loop's time, and handles all deadlines up to it.
    """

    __slots__ = ("_expire", "_loop", "_next_s", "_timer", "_yielded", "at_s")

    def __init__(self, next_s: Callable[[], float | None], expire: Callable[[float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._next_s = next_s
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self._yielded = False
        self.at_s: float = inf
        """When the timer fires; infinity while it is not armed. Call `arm` only for a deadline before it."""

    def arm(self, due_s: float) -> None:
        """Make the timer fire at `due_s` instead of later."""
        if due_s >= self.at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.at_s = due_s
        self._timer = self._loop.call_at(due_s, self._fire)

    def cancel(self) -> None:
        """Stop the timer."""
        self.at_s = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self.at_s = inf
        now_s = self._loop.time()
        due_s = self._next_s()
        if due_s is not None and now_s - due_s > _DELAYED_S and not self._yielded:
            self._yielded = True
            self.at_s = now_s
            self._timer = self._loop.call_later(0, self._fire)
            return
        self._yielded = False
        self._expire(now_s)
        due_s = self._next_s()
        if due_s is not None:
            self.arm(max(due_s, now_s + _STEP_S))
