"""The middleware for ASGI applications of any framework. It needs none itself.

It decides before the application sees a request, by the path that the server put into the scope, never by a URL that is built
from headers. Then it calls the application once, outside any `try`: what the application raises is not the limiter's to handle.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_rate_limit
from sluicegate.domain.compiled_rules import Rules
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import LoggerProtocol, RateLimitProtocol
from sluicegate.infrastructure.settings import read_settings
from sluicegate.presentation.web.asgi_messages import (
    ASGIApp,
    ASGIRequest,
    HeaderSend,
    Receive,
    Scope,
    Send,
    authenticated_user,
    respond,
)
from sluicegate.presentation.web.client_address import ForwardedHeader
from sluicegate.presentation.web.headers import DenialResponse, HeaderStyle
from sluicegate.presentation.web.port_limiter import PortLimiter
from sluicegate.presentation.web.request_limiter import AwaitedLimiter, RequestLimiter
from sluicegate.presentation.web.request_reader import CostFunction, IdentifierFunction, require_functions

DenialFunction: TypeAlias = Callable[[Scope, DenialResponse], ASGIApp | Awaitable[ASGIApp]]
"""Return what answers a denied request: a response, such as Starlette's, is an application."""

_BODY_FIELDS = frozenset({"content-type", "content-length"})
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


class RateLimitMiddleware:
    """Limit requests and websocket handshakes.

    Args:
        app: The application.
        rules: Endpoints and their rules, in the order of the application's routes: `{"POST /login": …, "GET /items/{id}": …}`;
            `WEBSOCKET /feed` for handshakes, `* /path` for any method, `*` for requests that no other endpoint matches. None: the
            rules file of the settings.
        limiter: The limiter; None: one built from the settings and the rules. It may be any `RateLimitProtocol`; one that is no
            `TokenBucketAdapter` gets the method and the concrete path as the endpoint.
        exempt: Paths that are not counted: exact ones (`/health`) or with all below them (`/static/*`).
        trusted_proxies: See `ClientAddresses`. Empty: the peer's address is the client's.
        forwarded_header: The header in which these proxies name their clients.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.
        identifiers: A function of the scope for each rule's scope that is not an address, such as `tenant`. `user` is by
            default the authenticated `scope["user"]`, else `scope["state"]["user_id"]`.
        cost: What a request takes, as a function of the scope; None: its rule's cost.
        headers: Which header fields tell clients of their quota.
        on_denied: Returns the response to a denied request in place of the problem details. Header fields that it leaves out
            are added.
        logger: Where warnings are logged; None: `logging.getLogger("sluicegate")`.

    Raises:
        InvalidInputError: If an argument, a rule or a setting is wrong.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        app: ASGIApp,
        *,
        rules: Rules | None = None,
        limiter: RateLimitProtocol | None = None,
        exempt: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
        identifiers: Mapping[str, IdentifierFunction] | None = None,
        cost: CostFunction | None = None,
        headers: HeaderStyle = "draft-11",
        on_denied: DenialFunction | None = None,
        logger: LoggerProtocol | None = None,
    ) -> None:
        if limiter is not None and rules is not None:
            raise InvalidInputError("rules: expected none beside a limiter, which has its own")
        require_functions({"on_denied": on_denied})
        named: dict[str, IdentifierFunction] = {"user": authenticated_user, **(identifiers or {})}
        self.app = app
        self._owned: TokenBucketAdapter | None = None
        if limiter is None:
            limiter = self._owned = build_rate_limit(read_settings(), rules=rules, logger=logger)
        scopes: Iterable[str] = ()
        self._limiter: AwaitedLimiter
        if isinstance(limiter, TokenBucketAdapter):
            self._limiter, scopes = limiter, limiter.scopes
        else:
            self._limiter = PortLimiter(limiter, tuple(dict.fromkeys(("ip", *(named if identifiers else ())))))
        self._requests = RequestLimiter(
            scopes=scopes,
            exempt=exempt,
            trusted_proxies=trusted_proxies,
            forwarded_header=forwarded_header,
            ipv4_prefix=ipv4_prefix,
            ipv6_prefix=ipv6_prefix,
            identifiers=named,
            cost=cost,
            headers=headers,
            logger=logger,
        )
        self._on_denied = on_denied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a denied request; call the application for every other."""
        kind = scope["type"]
        if kind in {"http", "websocket"}:
            decision = await self._requests.check(self._limiter, ASGIRequest(scope))
            if decision is not None:
                if not decision.result.allowed:
                    await self._deny(scope, receive, send, self._requests.denial(decision))
                    return
                fields = self._requests.headers(decision)
                if fields:
                    send = HeaderSend(send, fields, joining=True)
        await self.app(scope, receive, send)
        if kind == "lifespan" and self._owned is not None:
            await self._owned.aclose()

    async def _deny(self, scope: Scope, receive: Receive, send: Send, denial: DenialResponse) -> None:
        answer: ASGIApp | None = None
        if self._on_denied is not None:
            try:
                made = self._on_denied(scope, denial)
                answer = await made if inspect.isawaitable(made) else made
            except Exception as error:  # noqa: BLE001 - the request is denied all the same
                self._requests.warn("on_denied", "on_denied failed.", error)
        if answer is not None:
            fields = tuple([field for field in denial.headers if field[0] not in _BODY_FIELDS])
            await answer(scope, receive, HeaderSend(send, fields, joining=False))
        elif scope["type"] == "http":
            await respond(send, denial, "http", with_body=scope["method"] != "HEAD")
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await respond(send, denial, "websocket.http", with_body=True)
        else:
            # A handshake that is closed before it is accepted is answered with 403: ASGI has no more without the extension.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "Too many requests"})
