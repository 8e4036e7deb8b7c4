"""Context managers that reserve or hold on entering, keep it while the body runs, and settle on leaving, whatever happens."""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from sluicegate.application.budgets.renewals import AsyncRenewals, Renewals, to_the_end
from sluicegate.application.check import Decision
from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.domain.arguments import Cost, Endpoint, Identifier, read_cost
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.result import Result

_Reserve: TypeAlias = tuple[Endpoint, Identifier, Cost, float | None, tuple[str, ...]]
_Acquire: TypeAlias = tuple[Endpoint, Identifier, Cost, tuple[str, ...]]


class _AsyncLimiter(Protocol):
    async def reserve_decided(
        self,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost,
        ttl_seconds: float | None,
        also: tuple[str, ...] = (),
    ) -> tuple[Reservation, Decision]: ...

    async def acquire_decided(
        self, endpoint: Endpoint, identifier: Identifier, cost: Cost, also: tuple[str, ...] = ()
    ) -> tuple[Hold, Decision]: ...

    async def commit(
        self, reservation: Reservation | Hold, *, cost: Cost | None = None
    ) -> Result[Settlement, RateLimitError]: ...

    async def extend(self, reservation: Reservation, *, ttl_seconds: float) -> Result[None, RateLimitError]: ...

    async def renew(self, hold: Hold) -> Result[None, RateLimitError]: ...


class _Limiter(Protocol):
    def reserve_decided(
        self,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost,
        ttl_seconds: float | None,
        also: tuple[str, ...] = (),
    ) -> tuple[Reservation, Decision]: ...

    def acquire_decided(
        self, endpoint: Endpoint, identifier: Identifier, cost: Cost, also: tuple[str, ...] = ()
    ) -> tuple[Hold, Decision]: ...

    def commit(
        self, reservation: Reservation | Hold, *, cost: Cost | None = None
    ) -> Result[Settlement, RateLimitError]: ...

    def extend(self, reservation: Reservation, *, ttl_seconds: float) -> Result[None, RateLimitError]: ...

    def renew(self, hold: Hold) -> Result[None, RateLimitError]: ...


class BudgetState:
    """What a budget is, with an event loop or without.

    Args:
        asked: The arguments of `reserve`, in their order.
    """

    def __init__(self, asked: _Reserve) -> None:
        self._endpoint, _, self._estimate, _, _ = asked
        self._asked = asked
        self._cost: int | dict[str, int] | None = None
        self._reservation: Reservation | None = None
        self.settlement: Result[Settlement, RateLimitError] | None = None
        """What became of it, once the body has been left."""

    @property
    def reservation(self) -> Reservation:
        """The reservation, once the body has been entered."""
        if self._reservation is None:
            raise InvalidInputError("budget: there is no reservation before the `with` is entered")
        return self._reservation

    @property
    def cost(self) -> int | dict[str, int] | None:
        """What the call really cost; None: not known yet. Set it, also more than once.

        Raises:
            InvalidInputError: If it is set to what is no cost, or to a number where costs were reserved by rule.
        """
        return self._cost

    @cost.setter
    def cost(self, cost: Cost) -> None:
        tokens, by_rule = read_cost(cost)
        if tokens and isinstance(self._estimate, Mapping):
            raise InvalidInputError(f"cost={tokens}: expected a cost for each rule, as when it was reserved")
        self._cost = tokens if by_rule is None else by_rule

    def _allowed(self, reserved: tuple[Reservation, Decision]) -> Reservation:
        reservation, decision = reserved
        if not reservation.allowed:
            raise RateLimitedError(str(self._endpoint), decision)
        self._reservation = reservation
        return reservation

    def _final_cost(self, error: BaseException | None) -> int | dict[str, int] | None:
        """Return what to commit: nothing of it if the body failed before it knew the cost."""
        return 0 if error is not None and self._cost is None else self._cost


class AsyncBudget(BudgetState):
    """A reservation round the body of an `async with`; see `AsyncReservationFace.budget`.

    Args:
        limiter: Asked.
        asked: The arguments of `reserve`, in their order.
    """

    def __init__(self, limiter: _AsyncLimiter, asked: _Reserve) -> None:
        super().__init__(asked)
        self._limiter = limiter
        self._renewals = AsyncRenewals(self._extend)

    async def __aenter__(self) -> Self:
        reservation = self._allowed(await self._limiter.reserve_decided(*self._asked))
        self._renewals.start(reservation)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._renewals.stop()
        self.settlement = await to_the_end(self._limiter.commit(self.reservation, cost=self._final_cost(error)))

    async def _extend(self) -> Result[None, RateLimitError]:
        return await self._limiter.extend(self.reservation, ttl_seconds=self.reservation.expires_in)


class Budget(BudgetState):
    """A reservation round the body of a `with`; see `AsyncReservationFace.budget`. Arguments are those of `AsyncBudget`."""

    def __init__(self, limiter: _Limiter, asked: _Reserve) -> None:
        super().__init__(asked)
        self._limiter = limiter
        self._renewals = Renewals(self._extend)

    def __enter__(self) -> Self:
        reservation = self._allowed(self._limiter.reserve_decided(*self._asked))
        self._renewals.start(reservation)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._renewals.stop()
        self.settlement = self._limiter.commit(self.reservation, cost=self._final_cost(error))

    def _extend(self) -> Result[None, RateLimitError]:
        return self._limiter.extend(self.reservation, ttl_seconds=self.reservation.expires_in)


class AsyncHeldCall:
    """A call in flight round the body of an `async with`; see `AsyncReservationFace.hold`.

    Args:
        limiter: Asked.
        asked: The arguments of `acquire`, in their order.
    """

    def __init__(self, limiter: _AsyncLimiter, asked: _Acquire) -> None:
        self._limiter = limiter
        self._asked = asked
        self._hold: Hold | None = None
        self._renewals = AsyncRenewals(self._renew)

    async def __aenter__(self) -> Hold:
        self._hold = hold = _allowed_hold(await self._limiter.acquire_decided(*self._asked), self._asked[0])
        self._renewals.start(hold)
        return hold

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._renewals.stop()
        if self._hold is not None:
            await to_the_end(self._limiter.commit(self._hold))

    async def _renew(self) -> Result[None, RateLimitError]:
        assert self._hold is not None  # noqa: S101 - renewals begin with it
        return await self._limiter.renew(self._hold)


class HeldCall:
    """A call in flight round the body of a `with`; see `AsyncReservationFace.hold`. Arguments are those of `AsyncHeldCall`."""

    def __init__(self, limiter: _Limiter, asked: _Acquire) -> None:
        self._limiter = limiter
        self._asked = asked
        self._hold: Hold | None = None
        self._renewals = Renewals(self._renew)

    def __enter__(self) -> Hold:
        self._hold = hold = _allowed_hold(self._limiter.acquire_decided(*self._asked), self._asked[0])
        self._renewals.start(hold)
        return hold

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._renewals.stop()
        if self._hold is not None:
            self._limiter.commit(self._hold)

    def _renew(self) -> Result[None, RateLimitError]:
        assert self._hold is not None  # noqa: S101 - renewals begin with it
        return self._limiter.renew(self._hold)


def _allowed_hold(acquired: tuple[Hold, Decision], endpoint: Endpoint) -> Hold:
    hold, decision = acquired
    if not hold.allowed:
        raise RateLimitedError(str(endpoint), decision)
    return hold
