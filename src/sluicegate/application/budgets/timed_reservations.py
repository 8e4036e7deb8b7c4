"""Deadlines round the reservations of a storage that keeps none."""

from collections.abc import Sequence

from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.protocols import ReservationStorage
from sluicegate.runtime.patient_timeout import PatientTimeout


class TimedReservations:
    """The verbs of a storage that keeps no deadline itself.

    Args:
        storage: The storage.
        deadline_s: The longest that a call may take.
    """

    def __init__(self, storage: ReservationStorage, deadline_s: float) -> None:
        self._storage = storage
        self._deadline_s = deadline_s

    async def reserve(self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /) -> Verdict:
        """Pay all requests or none, and note their claims."""
        async with PatientTimeout(self._deadline_s):
            return await self._storage.reserve(requests, number, terms)

    async def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost."""
        async with PatientTimeout(self._deadline_s):
            return await self._storage.settle(requests, number, max_debts)

    async def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later."""
        async with PatientTimeout(self._deadline_s):
            return await self._storage.extend(requests, number, ttls_us)


def reservations_of(storage: object, deadline_s: float | None) -> ReservationStorage | None:
    """Return a storage's verbs for reservations, with a deadline if it keeps none; None if it has none.

    Args:
        storage: The storage.
        deadline_s: The longest that a call may take; None: the storage sees to that.
    """
    if not isinstance(storage, ReservationStorage):
        return None
    return storage if deadline_s is None else TimedReservations(storage, deadline_s)
