"""A transport for httpx that keeps to another service's limit: requests wait until they may be sent."""

from collections.abc import Callable

import httpx

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.application.wait_queue import SlotTimeoutError, require_timeout
from sluicegate.container import get_rate_limit
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.inline_rules import InlineRules, RuleOrText
from sluicegate.presentation.web.identifiers import identifier_text


class RateLimitTimeout(httpx.TimeoutException):
    """There were not enough tokens for a request in time; it was not sent."""


class RateLimitTransport(httpx.AsyncBaseTransport):
    """Send requests at no more than a rate: `AsyncClient(transport=RateLimitTransport("10/second"))`.

    Requests wait in the order in which they came, separately for each identifier. On Redis all processes keep to the rate
    together.

    Args:
        rules: Rules, or texts such as `10/second burst 1`.
        transport: The transport that sends them; None: a new `httpx.AsyncHTTPTransport`.
        identifier: What is counted separately, as a function of the request; None: the host and port.
        timeout_s: The longest wait in seconds; None: no end.
        name: What keys name in the place of an endpoint; empty: `httpx`.
        limiter: The limiter whose storage is used; None: that of the settings.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(
        self,
        *rules: RuleOrText,
        transport: httpx.AsyncBaseTransport | None = None,
        identifier: Callable[[httpx.Request], str] | None = None,
        timeout_s: float | None = 60.0,
        name: str = "",
        limiter: TokenBucketAdapter | None = None,
    ) -> None:
        if identifier is not None and not callable(identifier):
            raise InvalidTypeError(f"identifier={identifier!r:.80}: expected a function of the request")
        if transport is not None and not isinstance(transport, httpx.AsyncBaseTransport):
            raise InvalidTypeError(f"transport={transport!r:.80}: expected an httpx.AsyncBaseTransport")
        require_timeout(timeout_s)
        self._rules = InlineRules(rules, TokenBucketAdapter, limiter, get_rate_limit, name=name)
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._identifier = identifier or _authority
        self._timeout_s = timeout_s

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for tokens, then send the request.

        Raises:
            RateLimitTimeout: If there are not enough tokens in time.
        """
        endpoint, limiter = self._rules.at("httpx")
        identifier = identifier_text(self._identifier(request)) or _authority(request)
        try:
            await limiter.wait(endpoint=endpoint, identifier=identifier, timeout_s=self._timeout_s)
        except SlotTimeoutError as error:
            raise RateLimitTimeout(str(error), request=request) from error
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the transport that sends. The limiter is closed by its owner."""
        await self._transport.aclose()


def _authority(request: httpx.Request) -> str:
    return request.url.netloc.decode("ascii")
