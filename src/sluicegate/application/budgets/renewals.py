"""Keep a reservation or a hold while the body of its `with` runs: renew it when three quarters of its time have passed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from sluicegate.application.budgets.renewer import RENEWER, Later
from sluicegate.domain.claims.reservation import Claimed
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.result import Failure, Result

T = TypeVar("T")

_AT: Final = 0.75  # of its time
_AGAIN_AT: Final = 0.05  # of its time, after a renewal that failed

_running: set["asyncio.Task[Any]"] = set()  # an event loop holds its tasks only weakly


class AsyncRenewals:
    """Renew by an event loop's timer. What has ended is not renewed any more; what fails otherwise is tried again.

    Args:
        renew: Renews.
    """

    def __init__(self, renew: Callable[[], Coroutine[Any, Any, Result[None, RateLimitError]]]) -> None:
        self._renew = renew
        self._timer: asyncio.TimerHandle | None = None
        self.stopped = False
        """Whether nothing is renewed any more. A finaliser may set it, at any instant; all else calls `stop`."""
        self._ttl_s = 0.0

    def start(self, claim: Claimed) -> None:
        """Begin, with what has just been claimed; where nothing was, there is nothing to renew."""
        self._ttl_s = claim.expires_in
        if self._ttl_s:
            self._timer = asyncio.get_running_loop().call_later(self._ttl_s * _AT, self._due)

    def stop(self) -> None:
        """Renew no more. A renewal that has begun goes on, and finds nothing to renew."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        if not self.stopped:
            _run(self._renew_once())

    async def _renew_once(self) -> None:
        pause_s = _pause_s(await self._renew(), self._ttl_s)
        if pause_s and not self.stopped:
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._due)


class Renewals:
    """Renew in a background thread. Arguments are those of `AsyncRenewals`."""

    def __init__(self, renew: Callable[[], Result[None, RateLimitError]]) -> None:
        self._renew = renew
        self._later: Later | None = None
        self.stopped = False
        """Whether nothing is renewed any more. A finaliser may set it, at any instant; all else calls `stop`."""
        self._ttl_s = 0.0

    def start(self, claim: Claimed) -> None:
        """Begin, with what has just been claimed; where nothing was, there is nothing to renew."""
        self._ttl_s = claim.expires_in
        if self._ttl_s:
            self._later = RENEWER.call_later(self._ttl_s * _AT, self._due)

    def stop(self) -> None:
        """Renew no more. A renewal that has begun goes on, and finds nothing to renew."""
        self.stopped = True
        if self._later is not None:
            RENEWER.cancel(self._later)

    def _due(self) -> None:
        if self.stopped:
            return
        pause_s = _pause_s(self._renew(), self._ttl_s)
        if pause_s and not self.stopped:
            self._later = RENEWER.call_later(pause_s, self._due)


def _pause_s(renewed: Result[None, RateLimitError], ttl_s: float) -> float:
    """Return the seconds until the next renewal; 0.0: there is none."""
    if not isinstance(renewed, Failure):
        return ttl_s * _AT
    return 0.0 if renewed.error.reason == "ended" else ttl_s * _AGAIN_AT


async def to_the_end(call: Coroutine[Any, Any, T]) -> T:
    """Await a call that goes on to its end even if the caller is cancelled meanwhile."""
    return await asyncio.shield(_run(call))


def _run(call: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    task = asyncio.get_running_loop().create_task(call)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
