"""A transport for httpx that keeps to somebody else's limit: requests wait for their turn."""

from collections.abc import Callable

import httpx

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.application.wait_queue import SlotTimeoutError
from sluicegate.container import get_rate_limit
from sluicegate.presentation.inline_rules import LimiterByName, RuleOrText, policies, read_rules
from sluicegate.presentation.web.client_address import identifier_text


class RateLimitTimeout(httpx.TimeoutException):
    """A request's turn did not come in time; it was not sent."""


class RateLimitTransport(httpx.AsyncBaseTransport):
    """Send requests at no more than a rate: `AsyncClient(transport=RateLimitTransport("10/second"))`.

    Requests that wait do so in the order in which they came, apart for each identifier. On Redis all processes keep to the
    rate together.

    Args:
        rules: Rules, or texts such as `10/second burst 1`.
        transport: What sends them; a new `httpx.AsyncHTTPTransport` if None.
        identifier: What is counted apart, as a function of the request; the host and port by default.
        timeout_s: The longest wait in seconds; None: no end.
        name: What stands in keys.
        limiter: Whose storage is used; None: that of the settings.

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
        read = read_rules(rules)
        self._name = name or f"httpx {policies(read)}"
        self._limiters = LimiterByName(read)
        self._limiter = limiter
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._identifier = identifier or _authority
        self._timeout_s = timeout_s

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the request's turn, then send it.

        Raises:
            RateLimitTimeout: If its turn does not come in time.
        """
        limiter = self._limiters.get(TokenBucketAdapter, self._name, lambda: self._limiter or get_rate_limit())
        identifier = identifier_text(self._identifier(request)) or _authority(request)
        try:
            await limiter.wait(endpoint=self._name, identifier=identifier, timeout_s=self._timeout_s)
        except SlotTimeoutError as error:
            raise RateLimitTimeout(str(error), request=request) from error
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the transport that sends; the limiter is its owner's."""
        await self._transport.aclose()


def _authority(request: httpx.Request) -> str:
    return request.url.netloc.decode("ascii")
