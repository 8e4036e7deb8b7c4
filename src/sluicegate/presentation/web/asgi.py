"""The middleware for ASGI applications of any framework. It needs none itself.

It decides before the application sees a request, by the path that the server put into the scope, and never by a URL put together
from headers. Then it calls the application once, outside any `try`: what the application raises is the application's own.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias, cast

from sluicegate.application.checked import Checked
from sluicegate.application.failure_policy import describe
from sluicegate.application.notifier import Notifier
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_rate_limit
from sluicegate.domain.arguments import MAX_TEXT_BYTES as MAX_IDENTIFIER_BYTES
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.compiled_rules import UNMATCHED, Rules
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import LoggerProtocol, RateLimitProtocol
from sluicegate.domain.result import Success
from sluicegate.infrastructure.settings import read_settings
from sluicegate.presentation.web.asgi_messages import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    adding,
    authenticated_user,
    forwarded_lines,
    is_preflight,
    respond,
    route_path,
    with_quota,
)
from sluicegate.presentation.web.asgi_short_way import (
    Asked,
    ShortWay,
    build_short_way,
    no_short_way,
    passed_by,
)
from sluicegate.presentation.web.client_address import ClientAddresses, ForwardedHeader
from sluicegate.presentation.web.headers import (
    Denial,
    HeaderStyle,
    denial,
    quota_headers,
    require_style,
)
from sluicegate.presentation.web.identifiers import (
    BY_ADDRESS,
    EVERYBODY,
    Exemptions,
    identify,
    needed_names,
    provider_of,
    require_names,
)
from sluicegate.presentation.web.proxy_hint import ProxyHint
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SystemClock

IdentifierFunction: TypeAlias = Callable[[Scope], object]
"""Return who is asking as an application's authentication has verified it, or None; a coroutine function if it likes."""

CostFunction: TypeAlias = Callable[[Scope], int | Awaitable[int]]
"""Return the tokens that a request takes; 0: the rule's own cost."""

DenialFunction: TypeAlias = Callable[[Scope, Denial], ASGIApp | Awaitable[ASGIApp]]
"""Return what answers a denied request: a response, such as Starlette's, is an application."""

_WEBSOCKET = "WEBSOCKET"
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


class RateLimitMiddleware:
    """Limit requests and websocket handshakes.

    Args:
        app: The application.
        rules: Endpoints and their rules, in the order of the application's routes: `{"POST /login": …, "GET /items/{id}": …}`;
            `WEBSOCKET /feed` for handshakes, `* /path` for any method, `*` for what no other fits. None: the rules file
            of the settings.
        limiter: What decides; built from the settings and the rules if None. Any `RateLimitProtocol` will do; one that is no
            `TokenBucketAdapter` gets the method and the concrete path.
        exempt: Paths that are not counted: exactly (`/health`) or with all below them (`/static/*`).
        trusted_proxies: See `ClientAddresses`. Empty: the peer's address is the client's.
        forwarded_header: Where these proxies write whom they speak for.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.
        identifiers: A function for each scope that is not an address, such as `tenant`, or other than the usual: `user` is by
            default the authenticated `scope["user"]`, else `scope["state"]["user_id"]`.
        cost: What a request takes; None: its rule's cost.
        headers: Which fields tell clients of their quota.
        on_denied: What answers in place of the problem details. Fields that it leaves out are added to its response.
        logger: Who is told of what went wrong; None: `logging.getLogger("sluicegate")`.

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
        for field, function in {"cost": cost, "on_denied": on_denied, **(identifiers or {})}.items():
            if function is not None and not callable(function):
                raise InvalidTypeError(f"{field}={function!r:.80}: expected a function")
        self.app = app
        self._owned = build_rate_limit(read_settings(), rules=rules, logger=logger) if limiter is None else None
        self._limiter: RateLimitProtocol = self._owned or cast("RateLimitProtocol", limiter)
        self._adapter = self._limiter if isinstance(self._limiter, TokenBucketAdapter) else None
        self._exempt = Exemptions(exempt)
        self._addresses = ClientAddresses(
            trusted_proxies, header=forwarded_header, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix
        )
        self._header = self._addresses.header.encode()
        self._identifiers = {"user": authenticated_user, **(identifiers or {})}
        if self._adapter is not None:
            require_names(self._adapter.scopes, self._identifiers)
        self._ip_is_address = "ip" not in self._identifiers
        self._cost = cost
        self._style: HeaderStyle = require_style(headers)
        self._on_denied = on_denied
        self._notifier = Notifier(None, logger or StdlibLogger(), SystemClock(), log_identifiers=False)
        self._hint = ProxyHint(self._addresses, self._notifier)
        self._short_way: ShortWay = no_short_way
        if self._adapter is not None and self._ip_is_address and cost is None:
            self._short_way = build_short_way(
                self._adapter, self._addresses, self._exempt, self._style, self._hint.look
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a denied request; else let the application do so."""
        kind = scope["type"]
        if kind == "http":
            try:
                answer = self._short_way(scope)
                if type(answer) is Asked:
                    limiter = cast("TokenBucketAdapter", self._adapter)
                    checked = await limiter.check(endpoint=answer.endpoint.name, identifier=answer.identifier)
                    answer = passed_by(checked, answer.endpoint)
            except Exception:  # noqa: BLE001 - the long way meets the same failure, and answers it
                answer = None
            if type(answer) is tuple:
                await self.app(scope, receive, with_quota(answer, send) if answer else send)
                return
            outcome = await self._check(scope) if answer is None else cast("Checked", answer)
        elif kind == "lifespan":
            await self.app(scope, receive, send)
            if self._owned is not None:
                await self._owned.aclose()
            return
        else:
            outcome = await self._check(scope) if kind == "websocket" else None
        if outcome is None:
            await self.app(scope, receive, send)
        elif outcome.result.allowed:
            fields = quota_headers(outcome, self._style)
            await self.app(scope, receive, adding(fields, send, joining=True) if fields else send)
        else:
            await self._deny(scope, receive, send, denial(outcome, self._style))

    async def _check(self, scope: Scope) -> Checked | None:
        """Return the limiter's answer; None if there is nothing to count."""
        method = scope["method"].upper() if scope["type"] == "http" else _WEBSOCKET
        path = route_path(scope)
        if path in self._exempt or (method == "OPTIONS" and is_preflight(scope)):
            return None
        try:
            if self._adapter is None:
                return await self._ask_any(scope, method, path)
            endpoint = self._adapter.match(method, path)
            if endpoint is None:
                return None
            scopes = self._adapter.scopes_of(endpoint)
            identifier: Identifier | None = None
            if scopes == BY_ADDRESS and self._ip_is_address:
                identifier = self._address(scope)  # what most rules count, on a short way
            if identifier is None:
                identifier = await self._identify(scope, scopes, endpoint, path)
            if identifier is None:
                return None
            cost = 0 if self._cost is None else await self._cost_of(scope)
            return await self._adapter.check(endpoint=endpoint, identifier=identifier, cost=cost)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self._notifier.warn_throttled("bug", "A request was not counted; let pass.", error=describe(error))
            return None

    async def _ask_any(self, scope: Scope, method: str, path: str) -> Checked | None:
        endpoint = f"{method} {path}"
        if len(endpoint.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
            endpoint = UNMATCHED
        scopes = tuple(dict.fromkeys(("ip", *self._identifiers)))
        identifier = await self._identify(scope, ("ip",) if len(self._identifiers) == 1 else scopes, "", path)
        if identifier is None:
            return None
        cost = 0 if self._cost is None else await self._cost_of(scope)
        result = await self._limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)
        return Checked(result.value) if isinstance(result, Success) else None

    async def _identify(self, scope: Scope, scopes: tuple[str, ...], endpoint: str, path: str) -> Identifier | None:
        address = self._address(scope)
        named: dict[str, object] = {}
        for name in needed_names(scopes):
            function = self._identifiers.get(name)
            if function is not None:
                named[name] = await self._name(function, name, scope)
        provider = provider_of(endpoint, path) if "user_provider" in scopes else ""
        identifier = identify(scopes, address, named, provider) if scopes else EVERYBODY
        if identifier is None:
            self._notifier.warn_throttled(
                "no_address",
                "A request has no client address, so that nobody can be counted; let pass. Behind a proxy on a Unix socket"
                " set trusted_proxies=('unix',).",
            )
        return identifier

    async def _name(self, function: IdentifierFunction, name: str, scope: Scope) -> object:
        try:
            value = function(scope)
            return await value if inspect.isawaitable(value) else value
        except Exception as error:  # noqa: BLE001 - the address stands in for whom the application cannot name
            self._notifier.warn_throttled(f"identifier:{name}", "An identifier function failed.", error=describe(error))
            return None

    async def _cost_of(self, scope: Scope) -> int:
        try:
            cost = cast("CostFunction", self._cost)(scope)
            number = await cost if inspect.isawaitable(cost) else cost
        except Exception as error:  # noqa: BLE001 - a client that makes it fail gets no free pass by it
            self._notifier.warn_throttled(
                "cost", "A cost function failed; took the rule's cost.", error=describe(error)
            )
            return 0
        if type(number) is not int or number < 0:
            self._notifier.warn_throttled("cost", "A cost function gave no whole number; took the rule's cost.")
            return 0
        return number

    def _address(self, scope: Scope) -> str | None:
        client = scope.get("client")
        peer = client[0] if client else None
        if self._addresses.trusts_proxies:
            return self._addresses.client(peer, forwarded_lines(scope, self._header))
        self._hint.look(scope, peer)
        return self._addresses.client(peer)

    async def _deny(self, scope: Scope, receive: Receive, send: Send, refusal: Denial) -> None:
        answer: ASGIApp | None = None
        if self._on_denied is not None:
            try:
                answered = self._on_denied(scope, refusal)
                answer = await answered if inspect.isawaitable(answered) else answered
            except Exception as error:  # noqa: BLE001 - the request is denied all the same
                self._notifier.warn_throttled("on_denied", "on_denied failed.", error=describe(error))
        if answer is not None:
            own = {"content-type", "content-length"}
            fields = tuple(field for field in refusal.headers if field[0] not in own)
            await answer(scope, receive, adding(fields, send, joining=False))
        elif scope["type"] == "http":
            await respond(send, refusal, "http", with_body=scope["method"] != "HEAD")
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await respond(send, refusal, "websocket.http", with_body=True)
        else:
            # Before it is accepted, a handshake that is closed is answered by 403: all that ASGI has without the extension.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "Too many requests"})
