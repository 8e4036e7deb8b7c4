"""One timer for all deadlines of a dispatcher: it sleeps until the first of them."""

import asyncio
from collections.abc import Callable

_STEP_S = 0.001  # under a thousand deadlines a second the timer still fires at most once in this time
_HELD_UP_S = 0.005


class DeadlineTimer:
    """Call `expire` when the next deadline is due, and again for the one after it.

    A timer that fires much too late was held up by the event loop itself: by other work, or because the process was paused.
    Replies may lie in the socket unread then, so the loop gets one more turn to read them first.

    Args:
        next_s: Returns the event loop's time of the next deadline; None if there is none.
        expire: Gets the event loop's time, and deals with all deadlines up to it.
    """

    __slots__ = ("_expire", "_loop", "_next_s", "_timer", "_yielded")

    def __init__(self, next_s: Callable[[], float | None], expire: Callable[[float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._next_s = next_s
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self._yielded = False

    @property
    def armed(self) -> bool:
        """Whether the timer runs. Deadlines that are added in their order need not arm it again."""
        return self._timer is not None

    def arm(self, due_s: float) -> None:
        """See that the timer fires at `due_s` or earlier."""
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._fire)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        due_s = self._next_s()
        if due_s is not None and now_s - due_s > _HELD_UP_S and not self._yielded:
            self._yielded = True
            self._timer = self._loop.call_later(0, self._fire)
            return
        self._yielded = False
        self._expire(now_s)
        due_s = self._next_s()
        if due_s is not None:
            self.arm(max(due_s, now_s + _STEP_S))
