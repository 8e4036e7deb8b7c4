"""Reservations over HTTP, and calls in flight."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sluicegate.application.check import Decision
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.result import Failure, Result
from sluicegate.domain.rules.rule import DEFAULT_HOLD_SECONDS
from sluicegate.presentation.service.endpoints import named_endpoint
from sluicegate.presentation.service.http.check_api import (
    CheckApi,
    CheckOutcome,
    EndpointText,
    IdentifierText,
    MethodText,
    PathText,
)
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, decode, json_reply

Cost = Annotated[int, Meta(ge=0, le=10**12)]
ClaimId = Annotated[str, Meta(description="What reserve or acquire returned.", min_length=1)]
Seconds = Annotated[float, Meta(description="When it ends by itself.", gt=0, le=86_400)]


class ReserveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tokens to reserve; by rule, if each counts something else."""

    identifier: IdentifierText
    endpoint: EndpointText | UnsetType = UNSET
    path: PathText | UnsetType = UNSET
    method: MethodText = "GET"
    cost: Cost | dict[str, Cost] = 0
    ttl_seconds: Seconds = DEFAULT_HOLD_SECONDS


class AcquireBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A call in flight to count."""

    identifier: IdentifierText
    endpoint: EndpointText | UnsetType = UNSET
    path: PathText | UnsetType = UNSET
    method: MethodText = "GET"
    cost: Cost = 0


class CommitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a call really cost; without a cost all that was reserved."""

    id: ClaimId
    cost: Cost | dict[str, Cost] | None = None


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
        endpoint = named_endpoint(rules, body.endpoint, body.path, body.method)
        claim, decision = await self._limiter.reserve_decided(
            endpoint, body.identifier, body.cost, body.ttl_seconds, rules=rules
        )
        return self._claimed(claim, decision)

    async def commit(self, call: Call) -> Reply:
        """Charge what a call really cost."""
        body: CommitBody = decode(call.body, CommitBody)
        return _told(await self._limiter.commit(body.id, cost=body.cost))

    async def cancel(self, call: Call) -> Reply:
        """Give back all that was reserved."""
        body: ClaimBody = decode(call.body, ClaimBody)
        return _told(await self._limiter.cancel(body.id))

    async def extend(self, call: Call) -> Reply:
        """Let a reservation end later."""
        body: ExtendBody = decode(call.body, ExtendBody)
        return _told(await self._limiter.extend(body.id, ttl_seconds=body.ttl_seconds))

    async def acquire(self, call: Call) -> Reply:
        """Count a call in flight: status 200 whatever was decided."""
        body: AcquireBody = decode(call.body, AcquireBody)
        rules = self._limiter.current_rules()
        endpoint = named_endpoint(rules, body.endpoint, body.path, body.method)
        claim, decision = await self._limiter.acquire_decided(endpoint, body.identifier, body.cost, rules=rules)
        return self._claimed(claim, decision)

    async def release(self, call: Call) -> Reply:
        """End a call in flight."""
        body: ClaimBody = decode(call.body, ClaimBody)
        return _told(await self._limiter.release(body.id))

    async def renew(self, call: Call) -> Reply:
        """Let a hold last as long again."""
        body: ClaimBody = decode(call.body, ClaimBody)
        return _told(await self._limiter.renew(body.id))

    def _claimed(self, claim: Reservation | Hold, decision: Decision) -> Reply:
        outcome = msgspec.structs.asdict(self._checks.outcome(decision))
        return json_reply(Claimed(**outcome, id=claim.id if claim.allowed else None, expires_in=claim.expires_in))


def _told(result: Result[Settlement, RateLimitError] | Result[None, RateLimitError]) -> Reply:
    """Return a settlement, or why there is none: 409 where another call would not change that, 503 if the storage failed."""
    if isinstance(result, Failure):
        error = result.error
        status = 409 if error.reason in {"ended", "degraded", "no_rule"} else 503
        return json_reply(NotDone(error.reason, error.message), status)
    return json_reply(result.value or {})
