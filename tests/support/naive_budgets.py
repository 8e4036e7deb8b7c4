"""Budgets as they are often written: each class here has one of the defects that `test_sixteen_defects.py` looks for."""

from collections.abc import Sequence
from typing import Any

from sluicegate import Estimator, MemoryStorage, TokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.claims.claim import IN_TIME, LATE


class CountsLater(MemoryStorage):
    """Look whether there is enough, and take it when the work is done."""

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Reserve nothing."""
        levels = self.peek_blocking(requests)
        if any(one.level < request.cost_units for one, request in zip(levels, requests, strict=True)):
            return Verdict(False, levels)
        return super().reserve_blocking([request.with_cost(0) for request in requests], number, terms)


class CountsDenials(MemoryStorage):
    """Take first and look then."""

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Leave what was taken where it was denied."""
        verdict = super().reserve_blocking(requests, number, terms)
        if not verdict.allowed:
            for request in requests:
                self.take_blocking([request])
        return verdict


class HasAFloor(Estimator):
    """Assume that no call costs less than 1,024."""

    def estimate(self, rule: str, label: str, **caps: Any) -> int:
        """Estimate at least that."""
        return max(1024, super().estimate(rule, label, **caps))


class ZeroIsEverything(TokenBucketAdapter):
    """Reserve the whole limit where no cost is known."""

    async def reserve(self, *, cost: Any = 0, **more: Any) -> Any:
        """Reserve it."""
        return await super().reserve(cost=cost or 1000, **more)


class ClampsAtTheEstimate(MemoryStorage):
    """Charge no more than was reserved."""

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Settle without debt."""
        settled = super().settle_blocking([request.with_cost(0) for request in requests], number, max_debts)
        least = [
            request.with_cost(min(request.cost_units, one.returned_units))
            for request, one in zip(requests, settled, strict=True)
        ]
        self.take_blocking(least)
        return settled


class RenewsAllHolds(MemoryStorage):
    """Let every call put off the end of the others, as one TTL of one counter does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._numbers: list[int] = []

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Extend them all."""
        verdict = super().reserve_blocking(requests, number, terms)
        self._numbers.append(number)
        for other in self._numbers:
            self.extend_blocking(requests, other, [one.ttl_us for one in terms])
        return verdict


class ExpiresWithTheFirst(MemoryStorage):
    """Set the TTL of the counter with the first call only: later ones vanish with it while they are in flight."""

    _ends_us = 0

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Forget everything when the first one's time is over."""
        now_us = self._clock.now_us()  # type: ignore[attr-defined]
        if now_us >= self._ends_us:
            self.reset_blocking(requests)
            self._ends_us = now_us + terms[0].ttl_us
        return super().reserve_blocking(requests, number, terms)

    def __init__(self, *, clock: Any) -> None:
        super().__init__(clock=clock)
        self._clock = clock


class ChargesBoth(MemoryStorage):
    """Count the estimate and the real cost."""

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Give nothing back."""
        settled = super().settle_blocking([request.with_cost(-1) for request in requests], number, max_debts)
        self.take_blocking(requests)
        return settled


class AlwaysOpen(TokenBucketAdapter):
    """Ignore the failure policy."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "on_storage_error": "allow"})


class DropsWhatIsLate(MemoryStorage):
    """Say that a late commit was done, and forget it."""

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Pretend."""
        settled = super().settle_blocking([request.with_cost(0) for request in requests], number, max_debts)
        if settled[0].found == LATE:
            return tuple([one._replace(found=IN_TIME) for one in settled])
        self.take_blocking(requests)
        return settled


class ForgetsWhoLeft(MemoryStorage):
    """Count nothing for a client that has gone before the end: every client, in the scenario."""

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge nothing."""
        return super().settle_blocking([request.with_cost(0) for request in requests], number, max_debts)


class ResetsOnChange(MemoryStorage):
    """Keep buckets by their limit: another limit is another bucket."""

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Pay from it."""
        return super().reserve_blocking([self._of_its_own(request) for request in requests], number, terms)

    def peek_blocking(self, requests: Sequence[BucketRequest], /) -> Any:
        """Look at it."""
        return super().peek_blocking([self._of_its_own(request) for request in requests])

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Settle it."""
        return super().settle_blocking([self._of_its_own(request) for request in requests], number, max_debts)

    def _of_its_own(self, request: BucketRequest) -> BucketRequest:
        return BucketRequest(f"{request.key} {request.spec.text}", request.spec, request.cost_units)
