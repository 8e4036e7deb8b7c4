"""Borrow from hot buckets, for one event loop: checks of rules with `lease` are paid from a loan where there is one."""

import asyncio
import contextlib
from functools import partial
from typing import Final, Protocol

from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.calls import LEND, RESET, TAKE, Call, Loan, Waiter
from sluicegate.infrastructure.redis.lease import PERIOD_US, LeaseRequest
from sluicegate.infrastructure.redis.lease_table import LeaseTable

_LOOK_S: Final = PERIOD_US / 1e6
_PAGE: Final = 256  # loans that are looked at in one iteration of the event loop


class Router(Protocol):
    """Take calls over on one event loop."""

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer by its deadline.

        Raises:
            StorageError: At once, if the server is not asked for now.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class LeaseRouter:
    """Take calls over, pay them from loans where possible, and pass the others on.

    Questions about loans have futures of their own: a caller who is cancelled or timed out loses nothing of a loan.

    Args:
        router: Where calls are passed on to.
        table: What this process has borrowed.
        deadline_s: How long the server may take to answer what no caller waits for.
    """

    def __init__(self, router: Router, table: LeaseTable, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.router = router
        """Where calls are passed on to."""
        self._table = table
        self._deadline_s = deadline_s
        self._timer: asyncio.TimerHandle | None = None
        self._unseen: list[str] = []  # what is still to be looked at
        self._asked: set[asyncio.Future[Loan]] = set()
        self._closed = False

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer by its deadline.

        Raises:
            StorageError: At once, if the server is not asked for now.
        """
        requests = call.requests
        verb = call.verb
        if not requests[0].lease_units or len(requests) > 1 or (verb != TAKE and verb != RESET) or self._closed:  # noqa: PLR1714
            self.router.submit(call)
            return
        request = requests[0]
        if (
            verb == TAKE and not request.cost_units
        ):  # any loan could pay nothing; whether there is debt only the server knows
            self.router.submit(call)
            return
        # A loan is of no use under a new rule; and a reset fills a bucket only if it is known what was spent of the loan.
        back = self._table.give_back(request, self, if_of_another_rule=verb == TAKE)
        if back is not None:
            self._ask_aside(back, call.due_s)  # the same deadline, so that it goes out before the call
        if verb == RESET:
            self.router.submit(call)
            return
        level, question = self._table.pay(request, self)
        if level is not None:
            if not call.future.done():
                call.future.set_result(Verdict(allowed=True, levels=(level,)))
            if question is not None:
                self._ask_aside(question, self._loop.time() + self._deadline_s)
        elif question is not None:
            self._ask(question, call.due_s, call.future)
        else:
            self.router.submit(call)

    @property
    def looking(self) -> bool:
        """Whether loans are looked at again later."""
        return self._timer is not None or bool(self._unseen)

    async def aclose(self) -> None:
        """Return the loans, if the server answers in time, and close the connections."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._wait_for_answers()
        self._unseen = self._table.active_keys()
        while self._unseen:
            self._look_at_page(closing=True)
            await asyncio.sleep(0)
        await self._wait_for_answers()
        self._table.end(self)
        await self.router.aclose()

    async def _wait_for_answers(self) -> None:
        if self._asked:
            await asyncio.wait(self._asked, timeout=self._deadline_s)
            await asyncio.sleep(0)  # for the callbacks

    def _ask(self, question: LeaseRequest, due_s: float, waiter: Waiter | None) -> None:
        """Ask the server about a loan.

        Raises:
            StorageError: If it is not asked for now.
        """
        answer: asyncio.Future[Loan] = self._loop.create_future()
        try:
            self.router.submit(Call(LEND, (question.request,), answer, due_s, question.terms))
        except Exception:
            self._table.unsent(question)
            raise
        self._asked.add(answer)
        answer.add_done_callback(partial(self._settle, question, waiter))

    def _ask_aside(self, question: LeaseRequest, due_s: float) -> None:
        # A check that needs the server meets the same error, and reports it; one that was paid must not fail.
        with contextlib.suppress(Exception):
            self._ask(question, due_s, None)

    def _settle(self, question: LeaseRequest, waiter: Waiter | None, answer: asyncio.Future[Loan]) -> None:
        self._asked.discard(answer)
        error = None if answer.cancelled() else answer.exception()
        if answer.cancelled() or error is not None:
            self._table.give_up(question)
            if waiter is not None and not waiter.done():
                waiter.set_exception(error or StorageError("connection", "The storage was closed."))
            return
        loan = answer.result()
        self._table.settle(question, loan)
        if waiter is not None and not waiter.done():
            waiter.set_result(loan.verdict)
        if not self.looking and not self._closed:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """Return idle loans and renew the others, every half second, page by page, as long as there are any."""
        self._timer = None
        self._unseen = self._table.active_keys()
        self._look_at_pages()

    def _look_at_pages(self) -> None:
        if self._closed:
            return
        self._look_at_page(closing=False)
        if self._unseen:
            self._loop.call_soon(self._look_at_pages)
        elif self._table.owns_any(self):
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look_at_page(self, *, closing: bool) -> None:
        page = self._unseen[-_PAGE:]
        del self._unseen[-_PAGE:]
        due_s = self._loop.time() + self._deadline_s
        for question in self._table.due_requests(self, page, closing=closing):
            self._ask_aside(question, due_s)

    def __repr__(self) -> str:
        return f"LeaseRouter({self._table!r})"
