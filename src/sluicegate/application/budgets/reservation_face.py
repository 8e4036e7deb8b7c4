"""Reservations and holds as callers with an event loop use them; `sync_reservation_face.py` differs only in how it waits."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from mypy_extensions import mypyc_attr

from sluicegate.application.budgets.kept_claims import AsyncBudget, AsyncHeldCall
from sluicegate.application.budgets.reservations import Reservations
from sluicegate.application.budgets.settling import Settling
from sluicegate.application.check import Check, Decision, decision_of
from sluicegate.application.checker import Checker
from sluicegate.application.limiter_face import AsyncFace
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Cost, Endpoint, Identifier, Seconds
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.protocols import ReservationStorage, SyncReservationStorage
from sluicegate.domain.result import Result, Success

_success: Final = Success  # compiled code finds it without a look-up in the module's names

Claim: TypeAlias = Reservation | Hold | str
"""A reservation or a hold, or its id."""


@mypyc_attr(allow_interpreted_subclasses=True)
class AsyncReservationFace(AsyncFace):
    """Reserve, commit and hold for code with an event loop.

    Args:
        checker: See `AsyncFace`.
        take: See `AsyncFace`.
        reservations: Prepares what the storage is asked, and makes answers of what it says.
        storage: Asked with await; None where it never waits, or has no reservations.
        never_waits: The storage, if it never waits.
    """

    def __init__(
        self,
        checker: Checker,
        take: Callable[[Sequence[BucketRequest]], Awaitable[Verdict]],
        reservations: Reservations,
        storage: ReservationStorage | None,
        never_waits: SyncReservationStorage | None,
    ) -> None:
        super().__init__(checker, take)
        self._reservations = reservations
        self._awaited = storage
        self._never_waits = never_waits

    async def reserve(
        self,
        *,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost = 0,
        ttl_seconds: Seconds | None = None,
        also: tuple[str, ...] = (),
    ) -> Result[Reservation, RateLimitError]:
        """Take the tokens that a call may cost, until `commit` tells what it did cost; from all of the rules or none.

        A call in flight is counted as well, where rules ask for that, until the commit.

        Args:
            endpoint: As in a check.
            identifier: As in a check.
            cost: The estimate, as in a check.
            ttl_seconds: When it ends by itself, 0.001 to 86,400; see `RateLimitRule.on_expiry` and `extend`. None: a minute,
                and the rule's `hold_seconds` for a call in flight.
            also: Other endpoints whose rules must agree as well; as in `check`.

        Returns:
            `Success` always: while the storage fails, the answer of the failure policy, in a reservation that says `degraded`.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
            InvalidTypeError: If the storage has no reservations.
        """
        check = self._reservations.begin(endpoint, identifier, cost, ttl_seconds, also)
        if self._never_waits is None:
            await _claim(check, self._awaited)
        else:
            claim_blocking(check, self._never_waits)
        self._checker.finish(check)
        return _success(self._reservations.reservation(check, endpoint, cost, also))

    async def reserve_decided(  # noqa: PLR0913, PLR0917 - what a reservation is
        self,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost,
        ttl_seconds: Seconds | None,
        also: tuple[str, ...] = (),
        rules: RulesSnapshot | None = None,
    ) -> tuple[Reservation, Decision]:
        """Do what `reserve` does, and tell which rules were asked, as `check` does."""
        check = self._reservations.begin(endpoint, identifier, cost, ttl_seconds, also, rules)
        if self._never_waits is None:
            await _claim(check, self._awaited)
        else:
            claim_blocking(check, self._never_waits)
        self._checker.finish(check)
        return self._reservations.reservation(check, endpoint, cost, also), decision_of(check)

    async def commit(self, reservation: Claim, *, cost: Cost | None = None) -> Result[Settlement, RateLimitError]:
        """Charge what a call really cost: the difference comes back, or is taken, into debt if need be.

        Args:
            reservation: The reservation, or its id from any process.
            cost: The tokens; by rule, if they were reserved so: of other rules what was reserved is charged. None: all of it.

        Returns:
            `Failure` if the storage did not do it, or the reservation is degraded. It never fails open. A second commit changes
            nothing, and says so.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
        """
        settling = self._reservations.begin_settle(reservation, cost)
        if not isinstance(settling, Settling):
            return settling
        requests, number, debts = settling.check.requests, settling.number, settling.max_debts
        try:
            if settling.degraded:
                answers = self._reservations.settle_local(settling)
            elif self._never_waits is not None:
                answers = self._never_waits.settle_blocking(requests, number, debts)
            else:
                answers = await present(self._awaited).settle(requests, number, debts)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._reservations.failed(settling, "commit", error)
        return self._reservations.settled(settling, answers)

    async def cancel(self, reservation: Claim) -> Result[Settlement, RateLimitError]:
        """Give back all that was reserved, as a commit of 0 does."""
        return await self.commit(reservation, cost=0)

    async def extend(self, reservation: Claim, *, ttl_seconds: Seconds) -> Result[None, RateLimitError]:
        """Let a reservation end so many seconds from now, if that is later than it would. What has ended is not revived.

        Returns:
            `Failure` if it has ended or was settled, the storage did not do it, or it is degraded.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        return await self._extend(reservation, ttl_seconds)

    def budget(
        self,
        *,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost = 0,
        ttl_seconds: Seconds | None = None,
        also: tuple[str, ...] = (),
    ) -> AsyncBudget:
        """Reserve on entering an `async with`, and commit on leaving it: `budget.cost`, or else what was reserved.

        An exception in the body before a cost was set cancels. While the body runs, the reservation is extended in time. Entering
        raises `RateLimitedError` if it is denied. Arguments are those of `reserve`.
        """
        return AsyncBudget(self, (endpoint, identifier, cost, ttl_seconds, also))

    async def acquire(
        self, *, endpoint: Endpoint, identifier: Identifier, cost: Cost = 0, also: tuple[str, ...] = ()
    ) -> Result[Hold, RateLimitError]:
        """Count a call in flight, until `release`, at the latest after the rule's `hold_seconds` unless it is renewed.

        Rules of the endpoint that limit a rate are charged as by a check. Arguments, return value and exceptions are those of
        `reserve`.
        """
        check = self._reservations.begin(endpoint, identifier, cost, None, also, holds=True)
        if self._never_waits is None:
            await _claim(check, self._awaited)
        else:
            claim_blocking(check, self._never_waits)
        self._checker.finish(check)
        return _success(self._reservations.hold(check, endpoint, also))

    async def acquire_decided(
        self,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost,
        also: tuple[str, ...] = (),
        rules: RulesSnapshot | None = None,
    ) -> tuple[Hold, Decision]:
        """Do what `acquire` does, and tell which rules were asked, as `check` does."""
        check = self._reservations.begin(endpoint, identifier, cost, None, also, rules, holds=True)
        if self._never_waits is None:
            await _claim(check, self._awaited)
        else:
            claim_blocking(check, self._never_waits)
        self._checker.finish(check)
        return self._reservations.hold(check, endpoint, also), decision_of(check)

    async def release(self, hold: Claim) -> Result[Settlement, RateLimitError]:
        """End a call in flight: `Settlement.applied` tells whether it still counted. Never fails open; see `commit`."""
        return await self.commit(hold)

    async def renew(self, hold: Claim) -> Result[None, RateLimitError]:
        """Let a hold last for the rule's `hold_seconds` from now. What has ended is not revived; see `extend`."""
        return await self._extend(hold, None)

    def hold(
        self, *, endpoint: Endpoint, identifier: Identifier, cost: Cost = 0, also: tuple[str, ...] = ()
    ) -> AsyncHeldCall:
        """Acquire on entering an `async with`, and release on leaving it. While the body runs, the hold is renewed in time.

        Entering raises `RateLimitedError` if it is denied. Arguments are those of `acquire`.
        """
        return AsyncHeldCall(self, (endpoint, identifier, cost, also))

    async def _extend(self, claim: Claim, ttl_seconds: Seconds | None) -> Result[None, RateLimitError]:
        settling = self._reservations.begin_extend(claim, ttl_seconds)
        if not isinstance(settling, Settling):
            return settling
        requests, number = settling.check.requests, settling.number
        ttls_us = self._reservations.ttls_us(settling, ttl_seconds)
        try:
            if settling.degraded:
                count = self._reservations.extend_local(settling, ttls_us)
            elif self._never_waits is not None:
                count = self._never_waits.extend_blocking(requests, number, ttls_us)
            else:
                count = await present(self._awaited).extend(requests, number, ttls_us)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._reservations.failed(settling, "extend", error)
        return self._reservations.extended(settling, ttls_us, count)


# No methods: those of a class that users may subclass are looked up by name, which takes long.


async def _claim(check: Check, storage: ReservationStorage | None) -> None:
    """Ask a storage for what a check, and those beside it, claim."""
    if not check.shadows:
        await claim_one(check, present(storage))
    else:  # started together, as in a check
        await asyncio.gather(*[claim_one(one, present(storage)) for one in (check, *check.shadows)])


async def claim_one(check: Check, storage: ReservationStorage) -> None:
    """Ask a storage for what a check claims, and not for those beside it."""
    if not check.is_open:
        return
    try:
        check.conclude(await storage.reserve(check.requests, check.number, check.terms))
    except Exception as error:  # noqa: BLE001 - `Checker.finish` makes it an answer
        check.error = error


def present(storage: ReservationStorage | None) -> ReservationStorage:
    """Return a storage that is there."""
    assert storage is not None  # noqa: S101 - `Reservations` refuses calls to a storage without the verbs
    return storage


def claim_blocking(check: Check, storage: SyncReservationStorage) -> None:
    """Ask a storage, without awaiting it, for what a check, and those beside it, claim."""
    _claim_one_blocking(check, storage)
    for one in check.shadows:
        if check.error is not None:
            one.error = check.error  # not asked, or a server that hangs would take a deadline for each of them
        else:
            _claim_one_blocking(one, storage)


def _claim_one_blocking(check: Check, storage: SyncReservationStorage) -> None:
    if not check.is_open:
        return
    try:
        check.conclude(storage.reserve_blocking(check.requests, check.number, check.terms))
    except Exception as error:  # noqa: BLE001 - `Checker.finish` makes it an answer
        check.error = error
