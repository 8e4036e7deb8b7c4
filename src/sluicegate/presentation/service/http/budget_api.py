"""Reservations over HTTP, and calls in flight."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from sluicegate.application.budgets.joint_settlement import CostOfParts
from sluicegate.application.check import Decision
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.result import Failure, Result, Success
from sluicegate.domain.rules.rule import DEFAULT_HOLD_SECONDS
from sluicegate.presentation.service.http.check_api import CheckApi, CheckOutcome, CostNumber, One, OneOrSeveral
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, decode, json_reply

OneCost: TypeAlias = CostNumber | dict[str, CostNumber]
ClaimId = Annotated[str, Meta(description="What reserve or acquire returned.", min_length=1)]
Seconds = Annotated[float, Meta(description="When it ends by itself.", gt=0, le=86_400)]


class ReserveBody(OneOrSeveral, frozen=True, kw_only=True):
    """Tokens to reserve, by rule if each counts something else; or several in `checks`: if one is denied none is taken."""

    ttl_seconds: Seconds = DEFAULT_HOLD_SECONDS


class AcquireBody(One, frozen=True, kw_only=True):
    """A call in flight to count."""


class CommitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a call really cost: one for all checks that were reserved together, or a list; without it all that was reserved."""

    id: ClaimId
    cost: OneCost | list[OneCost | None] | None = None


class ClaimBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A reservation or a hold."""

    id: ClaimId


class ExtendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A reservation, and how many seconds from now it is to end."""

    id: ClaimId
    ttl_seconds: Seconds


class Claimed(CheckOutcome, frozen=True, kw_only=True):
    """A reservation or a hold, and what was decided.

    Args:
        id: What `commit`, `cancel`, `extend`, `release` and `renew` want to know; null if it is denied.
        expires_in: Seconds until it ends by itself.
    """

    id: str | None
    expires_in: float


class JointClaimed(msgspec.Struct, frozen=True):
    """A reservation of several checks.

    Args:
        allowed: Whether all of them are allowed: then their tokens are taken, else none are.
        checks: What was decided of each, in their order.
        id: What `commit`, `cancel` and `extend` want to know; null if it is denied.
        expires_in: Seconds until it ends by itself.
    """

    allowed: bool
    checks: list[CheckOutcome]
    id: str | None
    expires_in: float


class JointSettled(msgspec.Struct, frozen=True):
    """What became of a reservation of several checks: of each, in their order."""

    checks: tuple[Settlement, ...]


class NotDone(msgspec.Struct, frozen=True):
    """Why a call was not carried out: in one word, and for people."""

    reason: str
    message: str


class BudgetApi:
    """Answer the calls.

    Args:
        limiter: Carries them out.
        checks: Makes the answers.
    """

    def __init__(self, limiter: TokenBucketAdapter, checks: CheckApi) -> None:
        self._limiter = limiter
        self._checks = checks

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint("POST", "/v1/reserve", self.reserve),
            Endpoint("POST", "/v1/commit", self.commit),
            Endpoint("POST", "/v1/cancel", self.cancel),
            Endpoint("POST", "/v1/extend", self.extend),
            Endpoint("POST", "/v1/acquire", self.acquire),
            Endpoint("POST", "/v1/release", self.release),
            Endpoint("POST", "/v1/renew", self.renew),
        ]

    async def reserve(self, call: Call) -> Reply:
        """Take the tokens that a call may cost: status 200 whatever was decided."""
        body: ReserveBody = decode(call.body, ReserveBody)
        rules = self._limiter.current_rules()
        parts = body.parts(rules)
        if parts is None:
            claim, decision = await self._limiter.reserve_decided(
                body.named(rules), body.client(), body.cost, body.ttl_seconds, rules=rules
            )
            return await self._claimed(claim, decision)
        joint = await self._limiter.reserve_together(parts, ttl_seconds=body.ttl_seconds, rules=rules)
        if joint.is_degraded and joint.allowed and self._checks.storage_errors:
            await self._limiter.commit_together(joint.id, cost=0)
        outcomes = [self._checks.outcome(decision) for _, decision in joint.parts]
        return json_reply(JointClaimed(joint.allowed, outcomes, joint.id or None, joint.expires_in))

    async def commit(self, call: Call) -> Reply:
        """Charge what a call really cost."""
        body: CommitBody = decode(call.body, CommitBody)
        return await self._settle(body.id, body.cost)

    async def cancel(self, call: Call) -> Reply:
        """Give back all that was reserved."""
        body: ClaimBody = decode(call.body, ClaimBody)
        return await self._settle(body.id, 0)

    async def extend(self, call: Call) -> Reply:
        """Let a reservation end later."""
        body: ExtendBody = decode(call.body, ExtendBody)
        return _told(await self._limiter.extend_together(body.id, ttl_seconds=body.ttl_seconds))

    async def acquire(self, call: Call) -> Reply:
        """Count a call in flight: status 200 whatever was decided."""
        body: AcquireBody = decode(call.body, AcquireBody)
        rules = self._limiter.current_rules()
        claim, decision = await self._limiter.acquire_decided(
            body.named(rules), body.identifier, body.cost, rules=rules
        )
        return await self._claimed(claim, decision)

    async def release(self, call: Call) -> Reply:
        """End a call in flight."""
        body: ClaimBody = decode(call.body, ClaimBody)
        return _told(await self._limiter.release(body.id))

    async def renew(self, call: Call) -> Reply:
        """Let a hold last as long again."""
        body: ClaimBody = decode(call.body, ClaimBody)
        return _told(await self._limiter.renew(body.id))

    async def _settle(self, claim: str, cost: CostOfParts) -> Reply:
        settled = await self._limiter.commit_together(claim, cost=cost)
        if isinstance(settled, Success):
            several = settled.value
            return json_reply(several[0] if len(several) == 1 else JointSettled(several))
        return _told(settled)

    async def _claimed(self, claim: Reservation | Hold, decision: Decision) -> Reply:
        if claim.degraded is not None and claim.allowed and self._checks.storage_errors:
            await self._limiter.cancel(claim)  # the caller will not know of it
        outcome = msgspec.structs.asdict(self._checks.outcome(decision))
        return json_reply(Claimed(**outcome, id=claim.id if claim.allowed else None, expires_in=claim.expires_in))


def _told(result: Result[Settlement, RateLimitError] | Result[None, RateLimitError] | Failure[RateLimitError]) -> Reply:
    """Return a settlement, or why there is none: 409 where another call would not change that, 503 if the storage failed."""
    if isinstance(result, Failure):
        error = result.error
        status = 409 if error.reason in {"ended", "degraded", "no_rule"} else 503
        return json_reply(NotDone(error.reason, error.message), status)
    return json_reply(result.value or {})
