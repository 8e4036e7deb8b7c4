"""What a request has reserved and holds, until its client has the answer: settled once, whatever becomes of the request."""

import asyncio
from collections.abc import Iterable
from typing import Final

from sluicegate.application.budgets.renewals import AsyncRenewals, Renewals, to_the_end
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.arguments import Cost, read_cost
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.result import Failure, Result
from sluicegate.presentation.web.answer import Answer, AnswerReader, Blame

_OK: Final = 200
_SERVER_ERROR: Final = 500


class RequestClaim:
    """What one limiter has reserved for a request, or holds while it runs.

    Args:
        limiter: Settles it.
        claim: The reservation or hold. It is renewed from now on, until it is settled.
        answers: Tells the cost of a reservation.
        subject: What the application's functions get of the request.
        blame: Logs errors.
    """

    def __init__(
        self,
        limiter: TokenBucketAdapter | SyncTokenBucketAdapter,
        claim: Reservation | Hold,
        answers: AnswerReader,
        subject: object,
        blame: Blame,
    ) -> None:
        self._limiter = limiter
        self._claim = claim
        self._answers = answers
        self._subject = subject
        self.blame = blame
        self._settled = False
        self._answer: Answer | None = None
        self.told: Cost | None = None
        """The cost that the application told."""
        self._renewals: AsyncRenewals | Renewals
        if isinstance(limiter, SyncTokenBucketAdapter):
            self._renewals = Renewals(lambda: _renew_blocking(limiter, claim))
        else:
            self._renewals = AsyncRenewals(lambda: _renew(limiter, claim))
        self._renewals.start(claim)

    def __del__(self) -> None:
        """Renew it no more: a request that is gone, and was not settled, holds nothing for longer than its rule says."""
        self._renewals.stopped = True

    @property
    def takes_cost(self) -> bool:
        """Whether tokens are reserved, of which the application may tell how many it needed."""
        return isinstance(self._claim, Reservation)

    @property
    def is_known(self) -> bool:
        """Whether what it cost will not change any more once the body is there."""
        return not self.takes_cost or self.told is not None or (self._answers.asks_answer and self._answer is not None)

    def answered(self, status: int, fields: dict[str, str], value: object = None) -> None:
        """Note the answer. Of several, such as that of an error handler further outside, the last counts."""
        self._answer = Answer(status, fields, self._subject, value)

    async def settle(self) -> None:
        """Settle it, once, and to the end even if the caller is cancelled meanwhile."""
        if self._settled:
            return
        if isinstance(self._limiter, SyncTokenBucketAdapter):
            await to_the_end(asyncio.to_thread(self.settle_blocking))
            return
        cost = self._end()
        self._look_at(await to_the_end(self._limiter.commit(self._claim, cost=cost)))

    def settle_blocking(self) -> None:
        """Settle it, once, where there is no event loop."""
        if self._settled or not isinstance(self._limiter, SyncTokenBucketAdapter):
            return
        cost = self._end()
        self._look_at(self._limiter.commit(self._claim, cost=cost))

    def _end(self) -> Cost | None:
        """Note that it is settled, and return the cost; None: what was reserved."""
        self._settled = True
        self._renewals.stop()
        if not self.takes_cost:
            return None
        if self.told is not None:
            return self.told
        return None if self._answer is None else self._answers.cost(self._answer, self.blame)

    def _look_at(self, settled: Result[Settlement, RateLimitError]) -> None:
        if isinstance(settled, Failure) and settled.error.reason != "degraded":
            message = "What a request cost was not settled; it costs what was reserved, and ends by itself."
            self.blame("settle", message, ValueError(str(settled.error)))


class RequestClaims:
    """All that is claimed for one request."""

    __slots__ = ("_kept", "claims", "private")

    def __init__(self) -> None:
        self.claims: list[RequestClaim] = []
        self.private: set[str] = set()
        """The header fields that tell costs, which no client sees."""
        self._kept: dict[str, str] = {}

    def answered(self, status: int, fields: Iterable[tuple[str, str]]) -> None:
        """Note the answer, for all that is not settled yet."""
        by_name: dict[str, str] = {name.lower(): value for name, value in fields}
        # What one further inside has taken out already is still part of the answer.
        self._kept.update({name: by_name[name] for name in self.private if name in by_name})
        by_name.update(self._kept)
        for claim in self.claims:
            claim.answered(status, by_name)

    def returned(self, value: object) -> None:
        """Note what a decorated function returned."""
        for claim in self.claims:
            claim.answered(_OK, {}, value)

    def failed(self, since: int) -> None:
        """Note that the application raised before it had answered."""
        for claim in self.claims[since:]:
            claim.answered(_SERVER_ERROR, {})

    async def settle_known(self) -> None:
        """Settle what will not change any more.

        To be called before the client has the whole answer: as soon as it has, it may come again, to another process as well.
        """
        for claim in self.claims:
            if claim.is_known:
                await _settle(claim)

    async def settle(self, since: int = 0) -> None:
        """Settle all that is claimed; `since`: how much was claimed further outside, which settles it itself."""
        for claim in self.claims[since:]:
            await _settle(claim)

    def settle_known_blocking(self) -> None:
        """Do what `settle_known` does where there is no event loop."""
        for claim in self.claims:
            if claim.is_known:
                _settle_blocking(claim)

    def settle_blocking(self, since: int = 0) -> None:
        """Do what `settle` does where there is no event loop."""
        for claim in self.claims[since:]:
            _settle_blocking(claim)


class RequestBudget:
    """What a request costs, for the application that knows: `request.state.rate_limit` (ASGI) or `request.rate_limit`."""

    __slots__ = ("_claims",)

    def __init__(self, claims: RequestClaims) -> None:
        self._claims = claims

    def commit(self, cost: Cost) -> None:
        """Tell what the request cost. It is charged when the request ends; of several calls the last counts.

        Args:
            cost: The tokens, or a mapping from rule to tokens; 0: nothing.

        Raises:
            InvalidInputError: If it is no cost.
            InvalidTypeError: If it is of the wrong type.
        """
        read_cost(cost)
        for claim in self._claims.claims:
            if claim.takes_cost:
                claim.told = cost


async def _settle(claim: RequestClaim) -> None:
    try:
        await claim.settle()
    except Exception as error:  # noqa: BLE001 - a cost that fits no rule; the request has its answer
        claim.blame("settle", "What a request cost was not settled.", error)


def _settle_blocking(claim: RequestClaim) -> None:
    try:
        claim.settle_blocking()
    except Exception as error:  # noqa: BLE001 - a cost that fits no rule; the request has its answer
        claim.blame("settle", "What a request cost was not settled.", error)


async def _renew(limiter: TokenBucketAdapter, claim: Reservation | Hold) -> Result[None, RateLimitError]:
    if isinstance(claim, Hold):
        return await limiter.renew(claim)
    return await limiter.extend(claim, ttl_seconds=claim.expires_in)


def _renew_blocking(limiter: SyncTokenBucketAdapter, claim: Reservation | Hold) -> Result[None, RateLimitError]:
    if isinstance(claim, Hold):
        return limiter.renew(claim)
    return limiter.extend(claim, ttl_seconds=claim.expires_in)
