"""Transports for httpx2 that keep to another service's limit: requests wait until they may be sent.

The lines are those of `httpx_transport.py`: the two libraries have the same names, but different classes, and one function over
either module would keep a type checker from telling them apart. All that decides is in `client/http_pacer.py`.
"""

from collections.abc import Awaitable, Callable
from typing import Unpack

import httpx2

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.application.wait_queue import SlotTimeoutError
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.client.http_pacer import ClientName, HTTPPacer, PacingOptions
from sluicegate.presentation.client.pacer import Call
from sluicegate.presentation.client.steps import run, run_blocking
from sluicegate.presentation.inline_rules import RuleOrText


class RateLimitTimeout(httpx2.TimeoutException):
    """There was no turn for a request in time; it was not sent, or was refused before."""


class RateLimitTransport(httpx2.AsyncBaseTransport):
    """Send requests at no more than a rate, and as the answers tell: `AsyncClient(transport=RateLimitTransport("10/second"))`.

    Requests wait in the order in which they came, separately for each identifier. On Redis all processes keep to the rate
    together, and a pause that one of them is told holds for all. A refusal (429, 503, GitHub's 403) is answered by sending the
    request again where that is safe: it is idempotent, and its body can be sent twice.

    Args:
        rules: Rules, or texts such as `10/second burst 1`.
        transport: The transport that sends them; None: a new `httpx2.AsyncHTTPTransport`.
        identifier: What is counted separately, as a function of the request, or a coroutine function; None: the host and port.
        limiter: The limiter whose storage is used; None: that of the settings.
        options: See `PacingOptions`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(
        self,
        *rules: RuleOrText,
        transport: httpx2.AsyncBaseTransport | None = None,
        identifier: Callable[[httpx2.Request], ClientName | Awaitable[ClientName]] | None = None,
        limiter: TokenBucketAdapter | None = None,
        **options: Unpack[PacingOptions],
    ) -> None:
        if transport is not None and not isinstance(transport, httpx2.AsyncBaseTransport):
            raise InvalidTypeError(f"transport={transport!r:.80}: expected an httpx2.AsyncBaseTransport")
        self._pacer = HTTPPacer(rules, asynchronous=True, limiter=limiter, identifier=identifier, **options)
        self._transport = transport or httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Wait for a turn, send the request, and learn from the answer.

        Raises:
            RateLimitTimeout: If there is no turn in time.
        """
        call: Call[httpx2.Response] = Call(
            send=lambda: self._transport.handle_async_request(request),
            read=_read,
            discard=lambda response: response.aclose(),
            repeatable=self._pacer.may_repeat(request) and isinstance(request.stream, httpx2.ByteStream),
        )
        try:
            return await run(self._pacer.request_steps(request, call))
        except SlotTimeoutError as error:
            raise RateLimitTimeout(str(error), request=request) from error

    async def aclose(self) -> None:
        """Close the transport that sends. The limiter is closed by its owner."""
        await self._transport.aclose()


class SyncRateLimitTransport(httpx2.BaseTransport):
    """Do what `RateLimitTransport` does for `httpx2.Client`: requests of different threads wait in one line.

    Args:
        rules: See `RateLimitTransport`.
        transport: The transport that sends the requests; None: a new `httpx2.HTTPTransport`.
        identifier: See `RateLimitTransport`; a plain function.
        limiter: The limiter whose storage is used; None: that of the settings.
        options: See `PacingOptions`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(
        self,
        *rules: RuleOrText,
        transport: httpx2.BaseTransport | None = None,
        identifier: Callable[[httpx2.Request], ClientName] | None = None,
        limiter: SyncTokenBucketAdapter | None = None,
        **options: Unpack[PacingOptions],
    ) -> None:
        if transport is not None and not isinstance(transport, httpx2.BaseTransport):
            raise InvalidTypeError(f"transport={transport!r:.80}: expected an httpx2.BaseTransport")
        self._pacer = HTTPPacer(rules, asynchronous=False, limiter=limiter, identifier=identifier, **options)
        self._transport = transport or httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Wait for a turn, send the request, and learn from the answer.

        Raises:
            RateLimitTimeout: If there is no turn in time.
        """
        call: Call[httpx2.Response] = Call(
            send=lambda: self._transport.handle_request(request),
            read=_read,
            discard=lambda response: response.close(),
            repeatable=self._pacer.may_repeat(request) and isinstance(request.stream, httpx2.ByteStream),
        )
        try:
            return run_blocking(self._pacer.request_steps(request, call))
        except SlotTimeoutError as error:
            raise RateLimitTimeout(str(error), request=request) from error

    def close(self) -> None:
        """Close the transport that sends. The limiter is closed by its owner."""
        self._transport.close()


def _read(response: httpx2.Response) -> tuple[int, httpx2.Headers]:
    return response.status_code, response.headers
