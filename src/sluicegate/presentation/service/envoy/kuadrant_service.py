"""Reserve and commit over gRPC, with the service and the messages of Kuadrant's limitador."""

import asyncio
from typing import Any, Final

from sluicegate.application.joint_check import Part
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import Failure
from sluicegate.presentation.service.descriptor_answer import DescriptorLimiter
from sluicegate.presentation.service.envoy.messages import (
    OK,
    OVER_LIMIT,
    CommitRequest,
    CommitResponse,
    RateLimitRequest,
    RateLimitResponse,
    ReserveRequest,
    ReserveResponse,
)
from sluicegate.presentation.service.envoy.rate_limit_service import RateLimitService
from sluicegate.presentation.service.envoy.request_reader import parse, read_descriptors
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.presentation.service.undecided import StorageUnavailableError

_DEFAULT_TTL_S: Final = 60.0
_LONGEST_TTL_S: Final = 86_400.0
_MAX_AMOUNT: Final = 10**12


class KuadrantService:
    """Answer the four methods. Each takes and returns serialized messages, and raises what `RateLimitService.answer` does.

    Args:
        limiter: Reserves and commits.
        descriptors: Finds out what descriptors mean.
        checks: Answers checks.
        limits: How large a request may be.
        storage_errors: Whether what the storage did not decide is an error.
    """

    def __init__(
        self,
        limiter: TokenBucketAdapter,
        descriptors: DescriptorLimiter,
        checks: RateLimitService,
        limits: ServiceLimits,
        *,
        storage_errors: bool = False,
    ) -> None:
        self._limiter = limiter
        self._descriptors = descriptors
        self._checks = checks
        self._limits = limits
        self._storage_errors = storage_errors

    async def check(self, data: bytes, timeout_s: float | None) -> bytes:
        """Tell what a request would be answered, and change nothing."""
        return await self._checks.look(data, timeout_s)

    async def report(self, data: bytes, timeout_s: float | None) -> bytes:
        """Charge what was done already."""
        request = parse(RateLimitRequest, data)
        await self._report(request, max(1, request.hits_addend), timeout_s)
        return RateLimitResponse(overall_code=OK).SerializeToString()  # type: ignore[no-any-return]

    async def reserve(self, data: bytes, timeout_s: float | None) -> bytes:
        """Take the tokens that a call may cost, of all descriptors or of none."""
        request = parse(ReserveRequest, data)
        descriptors = read_descriptors(request, self._limits)
        amount, ttl_s = _amount(request.amount), _ttl_s(request)
        rules = self._descriptors.current_rules()
        targets = self._descriptors.read(rules, request.domain, descriptors, amount)
        if any(target.is_refused for target in targets):
            return _reserved(OVER_LIMIT)
        parts = [target.part for target in targets if target.part is not None]
        if any(part.rule is not None for part in parts):
            raise InvalidInputError("descriptor: a limit of its own cannot be reserved from")
        reserved = await self._limiter.reserve_together(
            [Part(part.endpoint, part.identifier, amount) for part in parts],
            ttl_seconds=ttl_s,
            timeout_s=timeout_s,
            rules=rules,
        )
        if reserved.is_degraded and self._storage_errors:
            if reserved.allowed:
                await self._limiter.commit_together(reserved.id, cost=0)
            raise StorageUnavailableError
        return _reserved(OK, reserved.id) if reserved.allowed else _reserved(OVER_LIMIT)

    async def commit(self, data: bytes, timeout_s: float | None) -> bytes:
        """Charge what a call really cost; without a reservation as `report` does."""
        request = parse(CommitRequest, data)
        amount = _amount(request.actual_amount)
        if not request.reservation_id:
            await self._report(request, amount, timeout_s)
            return CommitResponse(code=OK).SerializeToString()  # type: ignore[no-any-return]
        settled = await self._limiter.commit_together(request.reservation_id, cost=amount, timeout_s=timeout_s)
        if isinstance(settled, Failure):
            raise StorageUnavailableError(settled.error.message)
        return CommitResponse(code=OK).SerializeToString()  # type: ignore[no-any-return]

    async def _report(self, request: Any, amount: int, timeout_s: float | None) -> None:  # noqa: ANN401 - made at run time
        descriptors = read_descriptors(request, self._limits)
        if not amount:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._descriptors.report(request.domain, descriptors, amount)
        except TimeoutError:
            raise StorageUnavailableError("the storage did not answer in time") from None


def _reserved(code: int, identifier: str = "") -> bytes:
    return ReserveResponse(code=code, reservation_id=identifier).SerializeToString()  # type: ignore[no-any-return]


def _amount(amount: int) -> int:
    if amount > _MAX_AMOUNT:
        raise InvalidInputError(f"amount={amount}: expected at most {_MAX_AMOUNT}")
    return amount


def _ttl_s(request: Any) -> float:  # noqa: ANN401 - made at run time
    if not request.HasField("ttl"):
        return _DEFAULT_TTL_S
    seconds = float(request.ttl.seconds + request.ttl.nanos / 1e9)
    if seconds <= 0:
        raise InvalidInputError(f"ttl={seconds:g}: expected above 0")
    return min(max(seconds, 0.001), _LONGEST_TTL_S)
