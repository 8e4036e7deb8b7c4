"""Reserve what requests may cost, and hold calls in flight, where a check alone would not do."""

from typing import Final, cast

from sluicegate.application.check import Decision
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.claims.reservation import Hold, Reservation
from sluicegate.presentation.web.answer import AnswerReader, Blame
from sluicegate.presentation.web.asked_limiter import AwaitedLimiter, BlockingLimiter, R
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.request_claims import RequestBudget, RequestClaim
from sluicegate.presentation.web.request_reader import Question
from sluicegate.presentation.web.request_record import record_in

_UNSEEN: Final = (
    "Nothing sees the answer here, so its cost is not known, and calls in flight are not counted: the request was only checked."
    " With FastAPI call install_rate_limits(app), or add RateLimitMiddleware."
)


class Claiming:
    """Claim what requests take until they are answered.

    Args:
        answers: Tells what requests cost.
        blame: Logs errors of the application's.
    """

    def __init__(self, answers: AnswerReader, blame: Blame) -> None:
        self._answers = answers
        self._blame = blame
        self.wanted = answers.wanted
        """Whether costs are reserved; else only calls in flight are held."""

    def offer(self, request: IncomingRequest) -> None:
        """Let the application commit its cost, also where nothing will be reserved, and keep the field that tells it private."""
        if request.notes is None or not request.is_settled():
            return
        claims = record_in(request.notes).claims_to_settle()
        if self._answers.header:
            claims.private.add(self._answers.header)
        request.offer(RequestBudget(claims))

    async def claim(
        self,
        limiter: AwaitedLimiter[R],
        rules: R,
        request: IncomingRequest,
        question: Question,
        identifier: Identifier,
    ) -> Decision | None:
        """Do what a check does, and claim what it takes."""
        endpoint, cost, also = question.endpoint, question.cost, question.also
        adapter: object = limiter
        if not isinstance(adapter, TokenBucketAdapter) or not self._is_seen(request):
            return await limiter.check(endpoint=endpoint, identifier=identifier, cost=cost, also=also, rules=rules)
        snapshot = cast("RulesSnapshot", rules)  # which these limiters have
        claim: Reservation | Hold
        if self.wanted:
            claim, decision = await adapter.reserve_decided(endpoint, identifier, cost, None, also, snapshot)
        else:
            claim, decision = await adapter.acquire_decided(endpoint, identifier, cost, also, snapshot)
        self._keep(adapter, claim, request)
        return decision

    def claim_blocking(
        self,
        limiter: BlockingLimiter[R],
        rules: R,
        request: IncomingRequest,
        question: Question,
        identifier: Identifier,
    ) -> Decision:
        """Do what `claim` does where there is no event loop."""
        endpoint, cost, also = question.endpoint, question.cost, question.also
        adapter: object = limiter
        if not isinstance(adapter, SyncTokenBucketAdapter) or not self._is_seen(request):
            return limiter.check(endpoint=endpoint, identifier=identifier, cost=cost, also=also, rules=rules)
        snapshot = cast("RulesSnapshot", rules)  # which these limiters have
        claim: Reservation | Hold
        if self.wanted:
            claim, decision = adapter.reserve_decided(endpoint, identifier, cost, None, also, snapshot)
        else:
            claim, decision = adapter.acquire_decided(endpoint, identifier, cost, also, snapshot)
        self._keep(adapter, claim, request)
        return decision

    def _is_seen(self, request: IncomingRequest) -> bool:
        if request.is_settled():
            return True
        self._blame("unseen", _UNSEEN, None)
        return False

    def _keep(
        self,
        limiter: TokenBucketAdapter | SyncTokenBucketAdapter,
        claim: Reservation | Hold,
        request: IncomingRequest,
    ) -> None:
        if request.notes is None or not claim.name.number or (claim.degraded and claim.degraded != "local"):
            return
        record_in(request.notes).claims_to_settle().claims.append(
            RequestClaim(limiter, claim, self._answers, request.subject, self._blame)
        )
