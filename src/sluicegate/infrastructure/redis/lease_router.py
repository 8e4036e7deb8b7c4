"""Borrow of hot buckets, for one event loop: checks of rules with `lease` are paid from loans where there is one."""

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Protocol, TypeAlias

from sluicegate.domain.bucket_request import Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.lease import PERIOD_US, LeaseRequest
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.script import LEND, RESET, TAKE, Call, Loan, Waiter

_LENT = {TAKE, RESET}
_LOOK_S = PERIOD_US / 1e6

Answer: TypeAlias = asyncio.Future[Loan]


class Router(Protocol):
    """Take calls on one event loop."""

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer, in time.

        Raises:
            StorageError: At once, if the server is not asked for now.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class LeaseRouter:
    """Take calls, pay them from loans where that may be, and send the others on.

    What is asked of the server for a loan is asked for by itself: a caller who is cancelled or timed out loses nothing of it.

    Args:
        router: Where calls go on to.
        book: What this process has borrowed.
        deadline_s: How long the server may take to answer what no caller waits for.
    """

    def __init__(self, router: Router, book: LeaseTable, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._router = router
        self._book = book
        self._deadline_s = deadline_s
        self._timer: asyncio.TimerHandle | None = None
        self._asked: set[Answer] = set()
        self._closed = False

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer, in time.

        Raises:
            StorageError: At once, if the server is not asked for now.
        """
        requests = call.requests
        if call.verb not in _LENT or not requests[0].lease_units or len(requests) > 1 or self._closed:
            self._router.submit(call)
            return
        # Of no use under a new rule; and a bucket is full after a reset only if what was spent of a loan is known.
        back = self._book.give_back(requests[0], self, if_of_another_rule=call.verb == TAKE)
        if back is not None:
            self._ask_aside(back)
        if call.verb == RESET:
            self._router.submit(call)
            return
        bucket_level, lease_request = self._book.pay(requests[0], self)
        if bucket_level is not None:
            if not call.future.done():
                call.future.set_result(Verdict(allowed=True, levels=(bucket_level,)))
            if lease_request is not None:
                self._ask_aside(lease_request)
        elif lease_request is not None:
            self._ask(lease_request, call.due_s, call.future)
        else:
            self._router.submit(call)

    async def aclose(self) -> None:
        """Return what is lent, if the server takes it in time, and close the connections."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._settled()
        self._tell(self._book.due_requests(self, closing=True))
        await self._settled()
        self._book.end(self)
        await self._router.aclose()

    async def _settled(self) -> None:
        if self._asked:
            await asyncio.wait(self._asked, timeout=self._deadline_s)
            await asyncio.sleep(0)  # for those who are told of it

    def _ask(self, lease_request: LeaseRequest, due_s: float, waiter: Waiter | None) -> None:
        """Ask the server for a loan.

        Raises:
            StorageError: If it is not asked for now.
        """
        answer: Answer = self._loop.create_future()
        try:
            self._router.submit(Call(LEND, (lease_request.request,), answer, due_s, lease_request.terms))
        except StorageError:
            self._book.unsent(lease_request)
            raise
        self._asked.add(answer)
        answer.add_done_callback(partial(self._answered, lease_request, waiter))

    def _ask_aside(self, lease_request: LeaseRequest) -> None:
        # Whoever needs the server meets the same error, and reports it.
        with contextlib.suppress(StorageError):
            self._ask(lease_request, self._loop.time() + self._deadline_s, None)

    def _answered(self, lease_request: LeaseRequest, waiter: Waiter | None, answer: Answer) -> None:
        self._asked.discard(answer)
        error = None if answer.cancelled() else answer.exception()
        if answer.cancelled() or error is not None:
            self._book.give_up(lease_request)
            if waiter is not None and not waiter.done():
                waiter.set_exception(error or StorageError("connection", "The storage was closed."))
            return
        loan = answer.result()
        self._book.settle(lease_request, loan)
        if waiter is not None and not waiter.done():
            waiter.set_result(loan.verdict)
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Return what nobody spends, and see that the rest does not end; again and again while there is any."""
        self._timer = None
        self._tell(self._book.due_requests(self))
        if self._book.owns_any(self):
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _tell(self, due_requests: Iterable[LeaseRequest]) -> None:
        for lease_request in due_requests:
            self._ask_aside(lease_request)

    def __repr__(self) -> str:
        return f"LeaseRouter({self._book!r})"
