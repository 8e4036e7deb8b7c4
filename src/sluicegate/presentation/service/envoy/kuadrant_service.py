"""Reserve and commit over gRPC, with the service and the messages of Kuadrant's limitador."""

from typing import Any, Final

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.claims.reservation import Reservation
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
from sluicegate.presentation.service.envoy.rate_limit_service import RateLimitService, StorageUnavailableError
from sluicegate.presentation.service.envoy.request_reader import parse, read_descriptors
from sluicegate.presentation.service.settings import ServiceLimits

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
    """

    def __init__(
        self,
        limiter: TokenBucketAdapter,
        descriptors: DescriptorLimiter,
        checks: RateLimitService,
        limits: ServiceLimits,
    ) -> None:
        self._limiter = limiter
        self._descriptors = descriptors
        self._checks = checks
        self._limits = limits

    async def check(self, data: bytes, timeout_s: float | None) -> bytes:
        """Tell what a request would be answered, and change nothing."""
        return await self._checks.look(data, timeout_s)

    async def report(self, data: bytes, _: float | None) -> bytes:
        """Charge what was done already."""
        request = parse(RateLimitRequest, data)
        await self._descriptors.report(
            request.domain, read_descriptors(request, self._limits), max(1, request.hits_addend)
        )
        return RateLimitResponse(overall_code=OK).SerializeToString()  # type: ignore[no-any-return]

    async def reserve(self, data: bytes, _: float | None) -> bytes:
        """Take the tokens that a call may cost, of all descriptors or of none."""
        request = parse(ReserveRequest, data)
        descriptors = read_descriptors(request, self._limits)
        amount, ttl_s = _amount(request.amount), _ttl_s(request)
        rules = self._descriptors.current_rules()
        targets = self._descriptors.read(rules, request.domain, descriptors, amount)
        taken: list[Reservation] = []
        allowed = not any(target.is_refused for target in targets)
        for part in [target.part for target in targets if target.part is not None] if allowed else []:
            if part.rule is not None:
                raise InvalidInputError("descriptor: a limit of its own cannot be reserved from")
            reservation, _decision = await self._limiter.reserve_decided(
                part.endpoint, part.identifier, amount, ttl_s, rules=rules
            )
            if not reservation.allowed:
                allowed = False
                break
            taken.append(reservation)
        if not allowed:
            for reservation in taken:
                await self._limiter.cancel(reservation)
            return ReserveResponse(code=OVER_LIMIT).SerializeToString()  # type: ignore[no-any-return]
        identifier = ".".join([reservation.id for reservation in taken])
        return ReserveResponse(code=OK, reservation_id=identifier).SerializeToString()  # type: ignore[no-any-return]

    async def commit(self, data: bytes, _: float | None) -> bytes:
        """Charge what a call really cost; without a reservation as `report` does."""
        request = parse(CommitRequest, data)
        amount = _amount(request.actual_amount)
        if not request.reservation_id:
            descriptors = read_descriptors(request, self._limits)
            if amount:
                await self._descriptors.report(request.domain, descriptors, amount)
            return CommitResponse(code=OK).SerializeToString()  # type: ignore[no-any-return]
        failed = ""
        for identifier in request.reservation_id.split("."):
            settled = await self._limiter.commit(identifier, cost=amount)
            if isinstance(settled, Failure):
                failed = settled.error.message
        if failed:
            raise StorageUnavailableError(failed)
        return CommitResponse(code=OK).SerializeToString()  # type: ignore[no-any-return]


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
