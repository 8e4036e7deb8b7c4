"""Waiting for one's turn: for clients of somebody else's limited API, which would rather be late than be refused."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias
from weakref import WeakValueDictionary

from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.result import RateLimitResult

Ask: TypeAlias = Callable[[], Awaitable[RateLimitResult]]
"""Try to take the tokens."""


class SlotTimeoutError(TimeoutError):
    """There was, or would be, no turn in time; no token was taken.

    Args:
        endpoint: What was asked for.
        retry_after: Seconds until the turn would have come, where that is known; `math.inf`: never; NaN: others wait before.
    """

    def __init__(self, endpoint: str, retry_after: float) -> None:
        ahead = "others are before it" if math.isnan(retry_after) else f"the next one is in {retry_after:g} seconds"
        super().__init__(f"{endpoint}: no turn in time; {ahead}")
        self.endpoint = endpoint
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type["SlotTimeoutError"], tuple[str, float]]:
        return SlotTimeoutError, (self.endpoint, self.retry_after)


class WaitQueue:
    """Queues of those who wait, one for each endpoint and identifier, first come, first served.

    Only the first of a queue asks the limiter; it sleeps for exactly as long as it is told, and the others behind it ask
    nothing. Queues are of this process: between processes the storage decides who is first. A queue lives as long as
    somebody stands in it.
    """

    def __init__(self) -> None:
        self._queues: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()

    async def wait(self, ask: Ask, endpoint: str, identifier: Identifier, timeout_s: float | None) -> RateLimitResult:
        """Return when the tokens are taken.

        Raises:
            SlotTimeoutError: If that cannot be, or was not, within the timeout; at once where it is known beforehand.
            InvalidInputError: If the timeout is negative or no number.
        """
        require_timeout(timeout_s)
        loop = asyncio.get_running_loop()
        deadline = math.inf if timeout_s is None else loop.time() + timeout_s
        queue = self._queues.setdefault((loop, endpoint, queue_name(identifier)), asyncio.Lock())
        try:
            async with asyncio.timeout_at(None if timeout_s is None else deadline):
                await queue.acquire()
        except TimeoutError:
            raise SlotTimeoutError(endpoint, math.nan) from None
        try:
            while True:
                result = await ask()
                if result.allowed:
                    return result
                await asyncio.sleep(pause_before_turn(result, endpoint, loop.time(), deadline))
        finally:
            queue.release()

    @asynccontextmanager
    async def slot(
        self, ask: Ask, endpoint: str, identifier: Identifier, timeout_s: float | None
    ) -> AsyncGenerator[RateLimitResult, None]:
        """Wait, then run the body of an `async with`. The tokens stay taken, whatever comes of the body."""
        yield await self.wait(ask, endpoint, identifier, timeout_s)


def queue_name(identifier: Identifier) -> object:
    """Return what tells the queue of an identifier from those of others."""
    return identifier if isinstance(identifier, str) else tuple(sorted(identifier.items()))


def pause_before_turn(result: RateLimitResult, endpoint: str, now_s: float, deadline_s: float) -> float:
    """Return for how many seconds to sleep after a denial, before the limiter is asked again.

    Raises:
        SlotTimeoutError: If the turn would come after the deadline, or never.
    """
    if math.isinf(result.retry_after) or now_s + result.retry_after > deadline_s:
        raise SlotTimeoutError(endpoint, result.retry_after)
    return result.retry_after


def require_timeout(timeout_s: object) -> None:
    """Check how long somebody is ready to wait.

    Raises:
        InvalidInputError: If it is negative or no end of time.
        InvalidTypeError: If it is neither a number nor None.
    """
    if timeout_s is None:
        return
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise InvalidTypeError(f"timeout_s={timeout_s!r}: expected seconds or None")
    if not 0 <= timeout_s < math.inf:
        raise InvalidInputError(f"timeout_s={timeout_s!r}: expected 0 or more seconds; None: no end")
