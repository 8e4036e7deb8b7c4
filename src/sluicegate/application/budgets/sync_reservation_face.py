"""Reservations and holds as callers without an event loop use them; see `reservation_face.py`."""

from collections.abc import Callable, Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from sluicegate.application.budgets.kept_claims import Budget, HeldCall
from sluicegate.application.budgets.reservation_face import Claim, claim_blocking
from sluicegate.application.budgets.reservations import Reservations
from sluicegate.application.budgets.settling import Settling
from sluicegate.application.check import Decision, decision_of
from sluicegate.application.checker import Checker
from sluicegate.application.limiter_face import SyncFace
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Cost, Endpoint, Identifier, Seconds
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.protocols import SyncReservationStorage
from sluicegate.domain.result import Result, Success

_success: Final = Success  # compiled code finds it without a look-up in the module's names


@mypyc_attr(allow_interpreted_subclasses=True)
class SyncReservationFace(SyncFace):
    """Reserve, commit and hold for code without an event loop: the verbs of `AsyncReservationFace`, as plain calls.

    Args:
        checker: See `SyncFace`.
        take: See `SyncFace`.
        reservations: Prepares what the storage is asked, and makes answers of what it says.
        storage: Asked for reservations; None if it has none.
    """

    def __init__(
        self,
        checker: Checker,
        take: Callable[[Sequence[BucketRequest]], Verdict],
        reservations: Reservations,
        storage: SyncReservationStorage | None,
    ) -> None:
        super().__init__(checker, take)
        self._reservations = reservations
        self._blocking = storage

    def reserve(
        self,
        *,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost = 0,
        ttl_seconds: Seconds | None = None,
        also: tuple[str, ...] = (),
    ) -> Result[Reservation, RateLimitError]:
        """Take the tokens that a call may cost, until `commit` tells what it did; see `AsyncReservationFace.reserve`."""
        check = self._reservations.begin(endpoint, identifier, cost, ttl_seconds, also)
        claim_blocking(check, _present(self._blocking))
        self._checker.finish(check)
        return _success(self._reservations.reservation(check, endpoint, cost, also))

    def reserve_decided(  # noqa: PLR0913, PLR0917 - what a reservation is
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
        claim_blocking(check, _present(self._blocking))
        self._checker.finish(check)
        return self._reservations.reservation(check, endpoint, cost, also), decision_of(check)

    def commit(self, reservation: Claim, *, cost: Cost | None = None) -> Result[Settlement, RateLimitError]:
        """Charge what a call really cost; see `AsyncReservationFace.commit`."""
        settling = self._reservations.begin_settle(reservation, cost)
        if not isinstance(settling, Settling):
            return settling
        try:
            if settling.degraded:
                answers = self._reservations.settle_local(settling)
            else:
                answers = _present(self._blocking).settle_blocking(
                    settling.check.requests, settling.number, settling.max_debts
                )
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._reservations.failed(settling, "commit", error)
        return self._reservations.settled(settling, answers)

    def cancel(self, reservation: Claim) -> Result[Settlement, RateLimitError]:
        """Give back all that was reserved, as a commit of 0 does."""
        return self.commit(reservation, cost=0)

    def extend(self, reservation: Claim, *, ttl_seconds: Seconds) -> Result[None, RateLimitError]:
        """Let a reservation end so many seconds from now, if that is later; see `AsyncReservationFace.extend`."""
        return self._extend(reservation, ttl_seconds)

    def budget(
        self,
        *,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost = 0,
        ttl_seconds: Seconds | None = None,
        also: tuple[str, ...] = (),
    ) -> Budget:
        """Reserve on entering a `with`, and commit on leaving it; see `AsyncReservationFace.budget`."""
        return Budget(self, (endpoint, identifier, cost, ttl_seconds, also))

    def acquire(
        self, *, endpoint: Endpoint, identifier: Identifier, cost: Cost = 0, also: tuple[str, ...] = ()
    ) -> Result[Hold, RateLimitError]:
        """Count a call in flight until `release`; see `AsyncReservationFace.acquire`."""
        check = self._reservations.begin(endpoint, identifier, cost, None, also, holds=True)
        claim_blocking(check, _present(self._blocking))
        self._checker.finish(check)
        return _success(self._reservations.hold(check, endpoint, also))

    def acquire_decided(
        self,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost,
        also: tuple[str, ...] = (),
        rules: RulesSnapshot | None = None,
    ) -> tuple[Hold, Decision]:
        """Do what `acquire` does, and tell which rules were asked, as `check` does."""
        check = self._reservations.begin(endpoint, identifier, cost, None, also, rules, holds=True)
        claim_blocking(check, _present(self._blocking))
        self._checker.finish(check)
        return self._reservations.hold(check, endpoint, also), decision_of(check)

    def release(self, hold: Claim) -> Result[Settlement, RateLimitError]:
        """End a call in flight: `Settlement.applied` tells whether it still counted. Never fails open; see `commit`."""
        return self.commit(hold)

    def renew(self, hold: Claim) -> Result[None, RateLimitError]:
        """Let a hold last for the rule's `hold_seconds` from now. What has ended is not revived; see `extend`."""
        return self._extend(hold, None)

    def hold(
        self, *, endpoint: Endpoint, identifier: Identifier, cost: Cost = 0, also: tuple[str, ...] = ()
    ) -> HeldCall:
        """Acquire on entering a `with`, and release on leaving it; see `AsyncReservationFace.hold`."""
        return HeldCall(self, (endpoint, identifier, cost, also))

    def _extend(self, claim: Claim, ttl_seconds: Seconds | None) -> Result[None, RateLimitError]:
        settling = self._reservations.begin_extend(claim, ttl_seconds)
        if not isinstance(settling, Settling):
            return settling
        ttls_us = self._reservations.ttls_us(settling, ttl_seconds)
        try:
            if settling.degraded:
                count = self._reservations.extend_local(settling, ttls_us)
            else:
                count = _present(self._blocking).extend_blocking(settling.check.requests, settling.number, ttls_us)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._reservations.failed(settling, "extend", error)
        return self._reservations.extended(settling, ttls_us, count)


def _present(storage: SyncReservationStorage | None) -> SyncReservationStorage:
    assert storage is not None  # noqa: S101 - `Reservations` refuses calls to a storage without the verbs
    return storage
