"""Answer requests of the Envoy rate limit protocol: from a protobuf message to a protobuf message."""

from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.descriptor_answer import Answer, DescriptorLimiter
from sluicegate.presentation.service.descriptor_request import Descriptor, Window
from sluicegate.presentation.service.envoy.messages import (
    OK,
    OVER_LIMIT,
    POOL,
    UNITS,
    RateLimitRequest,
    RateLimitResponse,
)
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.presentation.web.headers import QuotaHeaders, build_denial, retry_after_seconds

_UNIT_NUMBERS: Final = {unit: number for number, unit in enumerate(UNITS)}
_MAX_UINT32: Final = 2**32 - 1


class StorageUnavailableError(Exception):
    """The storage did not decide, and the operator wants the caller to know."""


class RateLimitService:
    """Answer requests.

    Args:
        limiter: Decides them.
        limits: How large a request may be.
        quota: Writes the header fields that clients get, beside those that the proxy writes.
        denial_body: Whether a denied client gets problem details as body.
        storage_errors: Whether a request that the storage did not decide is an error, for the proxy's own policy, rather than
            answered by the failure policy.
    """

    def __init__(
        self,
        limiter: DescriptorLimiter,
        *,
        limits: ServiceLimits,
        quota: QuotaHeaders,
        denial_body: bool = True,
        storage_errors: bool = False,
    ) -> None:
        self._limiter = limiter
        self._limits = limits
        self._quota = quota
        self._denial_body = denial_body
        self._storage_errors = storage_errors

    async def answer(self, data: bytes, timeout_s: float | None) -> bytes:
        """Answer a serialized request with a serialized response.

        Args:
            data: The request.
            timeout_s: The longest that the caller waits; None: as long as the limiter does.

        Raises:
            InvalidInputError: If the request is wrong.
            StorageUnavailableError: If the storage did not decide, and this is told.
        """
        try:
            request = RateLimitRequest.FromString(data)
        except DecodeError:
            raise InvalidInputError("not a RateLimitRequest") from None
        return (await self._respond(request, timeout_s)).SerializeToString()  # type: ignore[no-any-return]

    async def answer_json(self, text: bytes) -> tuple[bool, str]:
        """Answer a request in proto3's JSON, and tell whether it is allowed.

        Raises:
            InvalidInputError: If the request is wrong.
            StorageUnavailableError: If the storage did not decide, and this is told.
        """
        try:
            request = json_format.Parse(text, RateLimitRequest(), descriptor_pool=POOL, max_recursion_depth=16)
        except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInputError(f"not a RateLimitRequest: {error}"[:500]) from None
        response = await self._respond(request, None)
        return response.overall_code != OVER_LIMIT, json_format.MessageToJson(response, descriptor_pool=POOL)

    async def _respond(self, request: Any, timeout_s: float | None) -> Any:  # noqa: ANN401 - made at run time
        descriptors = self._read(request)
        answer = await self._limiter.decide(request.domain, descriptors, request.hits_addend, timeout_s)
        if answer.is_degraded and self._storage_errors:
            raise StorageUnavailableError("the storage did not decide")
        response = RateLimitResponse(overall_code=OVER_LIMIT if answer.is_over else OK)
        for status in answer.statuses:
            told = response.statuses.add(code=OVER_LIMIT if status.is_over else OK)
            told.limit_remaining = min(status.remaining, _MAX_UINT32)
            window = status.window
            if window is not None:
                limit = told.current_limit
                limit.requests_per_unit = min(window.requests, _MAX_UINT32)
                limit.unit = _UNIT_NUMBERS[window.unit]
                limit.name = window.name
                if window.multiplier != 1:
                    limit.unit_multiplier.value = min(window.multiplier, _MAX_UINT32)
            if status.reset_seconds is not None and window is not None:
                told.duration_until_reset.seconds = status.reset_seconds
        self._tell_client(response, answer)
        return response

    def _tell_client(self, response: Any, answer: Answer) -> None:  # noqa: ANN401 - made at run time
        decision = answer.binding
        if decision is None:
            return
        if not answer.is_over:
            for name, value in self._quota.build(decision):
                response.response_headers_to_add.add(key=name, value=value)
            return
        if self._denial_body and not decision.result.allowed:
            denial = build_denial(decision, self._quota)
            response.raw_body = denial.body
            for name, value in denial.headers:
                if name != "content-length":  # the proxy's own
                    response.response_headers_to_add.add(key=name, value=value)
            return
        seconds = retry_after_seconds(decision.result.retry_after)
        fields = self._quota.build(decision)
        if seconds is not None and not decision.result.allowed:
            fields += (("retry-after", str(seconds)),)
        for name, value in fields:
            response.response_headers_to_add.add(key=name, value=value)

    def _read(self, request: Any) -> list[Descriptor]:  # noqa: ANN401 - made at run time
        if not request.domain:
            raise InvalidInputError("rate limit domain must not be empty")
        if not request.descriptors:
            raise InvalidInputError("rate limit descriptor list must not be empty")
        if len(request.descriptors) > self._limits.max_descriptors:
            raise InvalidInputError(
                f"descriptors: {len(request.descriptors)}, expected at most {self._limits.max_descriptors}"
            )
        return [self._read_one(one) for one in request.descriptors]

    def _read_one(self, one: Any) -> Descriptor:  # noqa: ANN401 - made at run time
        entries = tuple([(entry.key, entry.value) for entry in one.entries])
        if not entries:
            raise InvalidInputError("descriptor: expected at least one entry")
        if len(entries) > self._limits.max_entries:
            raise InvalidInputError(f"descriptor: {len(entries)} entries, expected at most {self._limits.max_entries}")
        for key, _ in entries:
            if not key:
                raise InvalidInputError("descriptor: an entry's key must not be empty")
        hits = one.hits_addend.value if one.HasField("hits_addend") else None
        if not one.HasField("limit"):
            return Descriptor(entries, hits, one.is_negative_hits)
        limit = one.limit
        number = int(limit.unit)
        unit = UNITS[number] if 0 < number < len(UNITS) else ""
        if not unit:
            raise InvalidInputError(f"descriptor: limit.unit={number}: expected one of {', '.join(UNITS[1:])}")
        multiplier = limit.unit_multiplier.value if limit.HasField("unit_multiplier") else 1
        return Descriptor(
            entries, hits, one.is_negative_hits, Window(limit.requests_per_unit, unit, max(1, multiplier))
        )
