"""What parts of a joint reservation really cost: all of it but the waiting. One call of the storage settles all of them."""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from sluicegate.application.budgets.joint_reservation import SEPARATOR
from sluicegate.application.budgets.reservations import Reservations
from sluicegate.application.budgets.settling import Settling
from sluicegate.domain.arguments import Cost, Seconds
from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement
from sluicegate.domain.claims.claim import AS_RESERVED
from sluicegate.domain.claims.reservation import Settlement
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.result import Failure, Result, Success

_MOST_UNITS: Final = 2**53 - 1  # of a cost: Lua's numbers are exact up to there

T = TypeVar("T")
A = TypeVar("A")

CostOfParts: TypeAlias = Cost | Sequence[Cost | None] | None
"""What the parts of a joint reservation cost: each the same, or each its own; None: what was reserved."""


class JointCall:
    """One call of the storage for some parts.

    Args:
        number: What names the claims.
    """

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.settlings: Final[dict[int, Settling]] = {}
        self.requests: list[BucketRequest] = []
        """One for each bucket."""
        self.numbers: list[int] = []
        """The greatest debt of each, or for how long its claim is extended."""
        self._places: dict[str, int] = {}

    def add(self, at: int, settling: Settling, numbers: Sequence[int]) -> None:
        """Take a part in.

        Args:
            at: Its place among the parts.
            settling: The part.
            numbers: The number of each of its requests.

        Raises:
            InvalidInputError: If one part has a cost and another, of the same bucket, has not.
        """
        self.settlings[at] = settling
        for request, number in zip(settling.check.requests, numbers, strict=True):
            place = self._places.setdefault(request.key, len(self.requests))
            if place == len(self.requests):
                self.requests.append(request)
                self.numbers.append(number)
            else:
                self.requests[place] = _sum(self.requests[place], request)

    def own(self, settling: Settling, answers: Sequence[A]) -> list[A]:
        """Return the answers that concern a part. A bucket that several share answers each of them for all."""
        return [answers[self._places[request.key]] for request in settling.check.requests]


class _JointVerb(Generic[T]):
    """What settlements and extensions have in common: the parts, the calls of the storage, and the results."""

    def __init__(
        self,
        reservations: Reservations,
        begun: Sequence[Settling | Failure[RateLimitError] | Success[T]],
        numbers_of: Callable[[Settling], Sequence[int]],
        settle_here: Callable[[Settling], Result[T, RateLimitError]],
    ) -> None:
        self._reservations = reservations
        self._results: list[Result[T, RateLimitError] | None] = [
            None if isinstance(one, Settling) else one for one in begun
        ]
        calls: dict[int, JointCall] = {}
        for at, one in enumerate(begun):
            if isinstance(one, Settling) and not one.name.degraded:
                calls.setdefault(one.name.number, JointCall(one.name.number)).add(at, one, numbers_of(one))
        self.calls: Final = tuple(calls.values())
        """What to ask the storage: one call, if the id is that of one reservation."""
        for at, one in enumerate(begun):
            if isinstance(one, Settling) and one.name.degraded:
                self._results[at] = settle_here(one)

    def _fail(self, call: JointCall, verb: str, error: Exception) -> None:
        for at, settling in call.settlings.items():
            self._results[at] = self._reservations.failed(settling, verb, error)

    def _outcome(self) -> Failure[RateLimitError] | list[T]:
        """Return the first failure, or else the value of each part."""
        values: list[T] = []
        for result in self._results:
            match result:
                case Success(value=value):
                    values.append(value)
                case Failure():
                    return result
                case None:
                    raise AssertionError  # each call was answered, or failed
        return values


class JointSettlement(_JointVerb[Settlement]):
    """What to settle, and what came of it.

    Args:
        reservations: Prepares the parts, and tells what became of them.
        reservation: The id of a joint reservation, or of a single one.
        cost: What the parts really cost.

    Raises:
        InvalidInputError: If an argument is wrong.
        InvalidTypeError: If the storage has no reservations.
    """

    def __init__(self, reservations: Reservations, reservation: str, cost: CostOfParts) -> None:
        names = reservation.split(SEPARATOR)
        if isinstance(cost, Sequence):
            if len(cost) != len(names):
                raise InvalidInputError(f"cost: {len(cost)} of them, expected {len(names)}, one for each part")
            costs = list(cost)
        else:
            costs = [cost] * len(names)
        begun = [reservations.begin_settle(name, one) for name, one in zip(names, costs, strict=True)]
        super().__init__(reservations, begun, _max_debts, self._settle_here)

    @property
    def result(self) -> Result[tuple[Settlement, ...], RateLimitError]:
        """What became of each part; or the first failure."""
        outcome = self._outcome()
        return outcome if isinstance(outcome, Failure) else Success(tuple(outcome))

    def answer(self, call: JointCall, answers: Sequence[BucketSettlement]) -> None:
        """Take the storage's answer to a call."""
        for at, settling in call.settlings.items():
            self._results[at] = self._reservations.settled(settling, call.own(settling, answers))

    def fail(self, call: JointCall, error: Exception) -> None:
        """Note what kept the storage from carrying a call out."""
        self._fail(call, "commit", error)

    def _settle_here(self, settling: Settling) -> Result[Settlement, RateLimitError]:
        return self._reservations.settled(settling, self._reservations.settle_local(settling))


class JointExtension(_JointVerb[None]):
    """What to extend, and what came of it.

    Args:
        reservations: Prepares the parts, and tells what became of them.
        reservation: The id of a joint reservation, or of a single one.
        ttl_s: Seconds from now.

    Raises:
        InvalidInputError: If an argument is wrong.
        InvalidTypeError: If the storage has no reservations.
    """

    def __init__(self, reservations: Reservations, reservation: str, ttl_s: Seconds) -> None:
        self._ttl_s = ttl_s
        begun = [reservations.begin_extend(name, ttl_s) for name in reservation.split(SEPARATOR)]
        super().__init__(reservations, begun, self._ttls_us, self._extend_here)

    @property
    def result(self) -> Result[None, RateLimitError]:
        """Whether all parts were extended; or the first failure."""
        outcome = self._outcome()
        return outcome if isinstance(outcome, Failure) else Success(None)

    def answer(self, call: JointCall, count: int) -> None:
        """Take the storage's answer to a call."""
        for at, settling in call.settlings.items():
            self._results[at] = self._reservations.extended(settling, self._ttls_us(settling), count)

    def fail(self, call: JointCall, error: Exception) -> None:
        """Note what kept the storage from carrying a call out."""
        self._fail(call, "extend", error)

    def _ttls_us(self, settling: Settling) -> tuple[int, ...]:
        return self._reservations.ttls_us(settling, self._ttl_s)

    def _extend_here(self, settling: Settling) -> Result[None, RateLimitError]:
        ttls_us = self._ttls_us(settling)
        return self._reservations.extended(settling, ttls_us, self._reservations.extend_local(settling, ttls_us))


def _max_debts(settling: Settling) -> tuple[int, ...]:
    return settling.max_debts


def _sum(one: BucketRequest, other: BucketRequest) -> BucketRequest:
    if (one.cost_units == AS_RESERVED) != (other.cost_units == AS_RESERVED):
        raise InvalidInputError("cost: parts of the same bucket: expected one for each of them, or for none")
    if one.cost_units == AS_RESERVED:
        return one
    return one.with_cost(min(one.cost_units + other.cost_units, _MOST_UNITS))
