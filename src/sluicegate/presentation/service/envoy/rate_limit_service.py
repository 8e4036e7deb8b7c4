"""Answer requests of the Envoy rate limit protocol: from a protobuf message to a protobuf message."""

from typing import Any, Final

import msgspec
from google.protobuf import json_format

from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.descriptor_answer import Answer, DescriptorLimiter
from sluicegate.presentation.service.descriptor_request import Target
from sluicegate.presentation.service.envoy.messages import (
    OK,
    OVER_LIMIT,
    POOL,
    UNITS,
    RateLimitRequest,
    RateLimitResponse,
)
from sluicegate.presentation.service.envoy.request_reader import parse, read_descriptors
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.presentation.service.undecided import StorageUnavailableError
from sluicegate.presentation.web.headers import QuotaHeaders, build_denial, retry_after_seconds

_UNIT_NUMBERS: Final = {unit: number for number, unit in enumerate(UNITS)}
_MAX_KNOWN: Final = 4096  # requests whose meaning is kept
_MAX_KNOWN_BYTES: Final = 512  # of the longest of them
_MAX_UINT32: Final = 2**32 - 1


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
        # A third of the work of an answer is to read the request, and proxies send the same one for a client each time.
        self._known: dict[bytes, list[Target]] = {}
        self._known_by: RulesSnapshot | None = None

    async def answer(self, data: bytes, timeout_s: float | None) -> bytes:
        """Answer a serialized request with a serialized response.

        Args:
            data: The request.
            timeout_s: The longest that the caller waits; None: as long as the limiter does.

        Raises:
            InvalidInputError: If the request is wrong.
            StorageUnavailableError: If the storage did not decide, and this is told.
        """
        rules = self._limiter.current_rules()
        if rules is not self._known_by:
            self._known.clear()
            self._known_by = rules
        known = self._known.get(data)
        if known is None:
            known = self._read(rules, parse(RateLimitRequest, data))
            if len(data) <= _MAX_KNOWN_BYTES:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[data] = known
        return (await self._respond(rules, known, timeout_s)).SerializeToString()  # type: ignore[no-any-return]

    async def look(self, data: bytes, timeout_s: float | None) -> bytes:
        """Answer a serialized request as `answer` would, and change nothing; arguments and exceptions are those of `answer`."""
        rules = self._limiter.current_rules()
        targets = self._read(rules, parse(RateLimitRequest, data), is_look=True)
        return (await self._respond(rules, targets, timeout_s)).SerializeToString()  # type: ignore[no-any-return]

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
        rules = self._limiter.current_rules()
        response = await self._respond(rules, self._read(rules, request), None)
        return response.overall_code != OVER_LIMIT, json_format.MessageToJson(response, descriptor_pool=POOL)

    def _read(
        self,
        rules: RulesSnapshot,
        request: Any,  # noqa: ANN401 - made at run time
        *,
        is_look: bool = False,
    ) -> list[Target]:
        descriptors = read_descriptors(request, self._limits)
        if is_look:
            descriptors = [msgspec.structs.replace(one, is_look=True) for one in descriptors]
        return self._limiter.read(rules, request.domain, descriptors, request.hits_addend)

    async def _respond(self, rules: RulesSnapshot, targets: list[Target], timeout_s: float | None) -> Any:  # noqa: ANN401 - made at run time
        answer = await self._limiter.decide(rules, targets, timeout_s)
        if answer.is_degraded and self._storage_errors:
            raise StorageUnavailableError
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
