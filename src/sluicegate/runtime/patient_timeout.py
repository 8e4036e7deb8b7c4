"""A timeout that does not count the time in which the event loop did not come round."""

import asyncio
from types import TracebackType
from typing import Final, Self

DELAYED_S: Final = 0.005
"""By how much a timer may be late before the event loop counts as busy: what operating systems do not promise."""

STEPS: Final = 8
"""In how many steps a deadline is waited for. Of a time in which the event loop did not come round, one step counts."""

SHORTEST_STEP_S: Final = 0.002

_GRAIN_S: Final = 0.000_1  # less than this is nothing: floating-point steps need not add up


class PatientTimeout:
    """Do what `asyncio.timeout` does, but tell a wait that is too long from an event loop that is busy.

    While the loop is free it ends after `seconds`. While other tasks compute, each turn of the loop counts for an eighth of
    that, however long it took; and what has arrived on a socket by the end is read before the wait counts as too long.

    Args:
        seconds: The longest that the body of the `async with` may take; `TimeoutError` is raised then.
    """

    __slots__ = ("_at_s", "_handle", "_last_s", "_left_s", "_loop", "_step_s", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds
        self._step_s = max(seconds / STEPS, SHORTEST_STEP_S)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self._wait(self._loop.time())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _wait(self, now_s: float) -> None:
        self._last_s = now_s
        self._at_s = now_s + min(self._step_s, self._left_s)
        self._handle: asyncio.Handle = self._loop.call_at(self._at_s, self._tick)

    def _tick(self) -> None:
        now_s = self._loop.time()
        was_busy = now_s - self._at_s > DELAYED_S
        self._left_s -= (self._at_s if was_busy else now_s) - self._last_s
        if self._left_s > _GRAIN_S:
            self._wait(now_s)
        else:
            # Whatever the loop's order, it reads the sockets between two turns, and then wakes the task that waits.
            self._handle = self._loop.call_soon(self._read_sockets)

    def _read_sockets(self) -> None:
        self._handle = self._loop.call_soon(self._expire)

    def _expire(self) -> None:
        self._timeout.reschedule(self._loop.time())

    def __repr__(self) -> str:
        return f"PatientTimeout(left_s={self._left_s:.3f})"
