"""A dependency for FastAPI's endpoints: a rule of their own, with a cost and an identifier that may depend on the request."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, cast

from fastapi import FastAPI, Response, WebSocketException, routing
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from sluicegate.application.checked import Checked
from sluicegate.application.failure_policy import describe
from sluicegate.application.notifier import Notifier
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.inline_rules import LimiterByName, RuleOrText, policies, read_rules
from sluicegate.presentation.web.asgi_messages import Scope, authenticated_user
from sluicegate.presentation.web.client_address import ClientAddresses, ForwardedHeader
from sluicegate.presentation.web.headers import (
    Denial,
    Field,
    HeaderStyle,
    build_quota_fields,
    denial,
    quota_headers,
    require_style,
)
from sluicegate.presentation.web.identifiers import BY_ADDRESS, identify, needed_names, require_names
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SystemClock

IdentifierOf: TypeAlias = Callable[[Any], object]
"""Return who is asking, from the request (or websocket); a coroutine function if it likes."""

CostOf: TypeAlias = Callable[[Any], int | Awaitable[int]]
"""Return the tokens that a request takes; 0: the rule's own cost."""

TOO_MANY_REQUESTS: dict[int | str, dict[str, Any]] = {
    429: {
        "description": "Too many requests. The quota is told in `RateLimit-Policy`, what is left of it in `RateLimit`.",
        "headers": {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
            "RateLimit": {"schema": {"type": "string"}},
            "RateLimit-Policy": {"schema": {"type": "string"}},
        },
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "format": "uri"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "violated-policies": {"type": "array", "items": {"type": "string"}},
                    },
                }
            }
        },
    }
}
"""What OpenAPI says of a limited endpoint, for a route's, router's or application's `responses`."""

_POLICY_VIOLATION = 1008


class RateLimitExceededError(HTTPException):
    """A request was denied. FastAPI answers it as any HTTPException, unless `install_rate_limits` was called."""

    def __init__(self, refusal: Denial) -> None:
        own = {"content-type", "content-length"}
        headers = {name: value for name, value in refusal.headers if name not in own}
        detail = "Too many requests" if refusal.status == 429 else "Temporarily not available"  # noqa: PLR2004 - a status
        super().__init__(refusal.status, detail, headers)
        self.refusal = refusal


class rate_limit:  # noqa: N801 - used as a function: Depends(rate_limit("5/minute"))
    """Limit an endpoint: `Depends(rate_limit("5/minute"))`.

    Args:
        rules: Rules, or texts such as `5/minute per user`; a text without `per` counts addresses.
        cost: Tokens that a request takes, or a function of it; 0: the rule's cost.
        identifier: Who is asking, for all rules but global ones; by default the address for `ip`, the authenticated user for
            `user`.
        name: What stands in keys; by default the route's method and path. Routes of the same name and rules share buckets.
        limiter: Whose storage is used; None: that of the settings.
        trusted_proxies: See `ClientAddresses`.
        forwarded_header: Where these proxies write whom they speak for.
        ipv6_prefix: Bits of an IPv6 address that tell clients apart.
        headers: Which fields tell clients of their quota. They are added to the responses that FastAPI makes, not to a
            `Response` that an endpoint returns; the middleware adds them to all.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        *rules: RuleOrText,
        cost: int | CostOf = 0,
        identifier: IdentifierOf | None = None,
        name: str = "",
        limiter: TokenBucketAdapter | None = None,
        trusted_proxies: Iterable[str] = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        ipv6_prefix: int = 64,
        headers: HeaderStyle = "draft-11",
    ) -> None:
        self.rules = read_rules(rules)
        if limiter is not None and not isinstance(limiter, TokenBucketAdapter):
            raise InvalidTypeError(
                f"limiter={limiter!r:.80}: expected a TokenBucketAdapter, which can take rules of its own"
            )
        self._scopes = tuple(dict.fromkeys(str(rule.scope) for rule in self.rules if rule.enabled))
        if identifier is None:
            require_names(self._scopes, ())
        self._cost = cost
        self._identifier = identifier
        self._name = name
        self._limiter = limiter
        self._limiters = LimiterByName(self.rules)
        self._known: dict[tuple[str, str], tuple[str, TokenBucketAdapter]] = {}
        self._addresses = ClientAddresses(trusted_proxies, header=forwarded_header, ipv6_prefix=ipv6_prefix)
        self._by_peer = self._scopes == BY_ADDRESS and identifier is None and not self._addresses.trusts_proxies
        self._style: HeaderStyle = require_style(headers)
        self._quota_fields = build_quota_fields(self.rules[0], headers) if len(self.rules) == 1 else None
        self._notifier = Notifier(None, StdlibLogger(), SystemClock(), log_identifiers=False)

    async def __call__(self, connection: HTTPConnection, response: Response) -> None:
        """Let a request pass, or raise what answers it.

        Raises:
            RateLimitExceededError: If the request is denied.
            WebSocketException: If a websocket's handshake is denied.
        """
        checked = await self._check(connection)
        if checked is None:
            return
        if checked.result.allowed:
            response.raw_headers.extend(self._fields(checked))
        elif connection.scope["type"] == "websocket":
            raise WebSocketException(_POLICY_VIOLATION, "Too many requests")
        else:
            raise RateLimitExceededError(denial(checked, self._style))

    async def _check(self, connection: HTTPConnection) -> Checked | None:
        try:
            name, limiter = self._limiter_of(connection.scope)
            client = connection.scope.get("client") if self._by_peer else None
            identifier = (
                self._addresses.of_peer(client[0]) if client and client[0] else await self._identify(connection)
            )
            if identifier is None:
                self._notifier.warn_throttled("no_address", "A request has no client address; let pass uncounted.")
                return None
            cost = await self._cost_of(connection) if callable(self._cost) else self._cost
            return await limiter.check(endpoint=name, identifier=identifier, cost=cost)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self._notifier.warn_throttled("bug", "A request was not counted; let pass.", error=describe(error))
            return None

    def _limiter_of(self, scope: Scope) -> tuple[str, TokenBucketAdapter]:
        """Return what stands for the place in keys, and its limiter; worked out once for each method of a route."""
        place = ("", "") if self._name else _place(scope)
        known = self._known.get(place)
        if known is None:
            name = self._name or f"dependency {' '.join(place)} {policies(self.rules)}"
            limiter = self._limiters.get(TokenBucketAdapter, name, lambda: self._limiter or get_rate_limit())
            known = self._known[place] = name, limiter
        return known

    def _fields(self, checked: Checked) -> tuple[Field, ...]:
        if self._quota_fields is not None and checked.tightest is self.rules[0] and checked.degraded is None:
            return self._quota_fields(checked.result)
        return tuple([(name.encode(), value.encode()) for name, value in quota_headers(checked, self._style)])

    async def _identify(self, connection: HTTPConnection) -> Identifier | None:
        peer = connection.client.host if connection.client else None
        address = self._addresses.client(peer, connection.headers.getlist(self._addresses.header))
        named: dict[str, object] = {}
        for scope in needed_names(self._scopes):
            if self._identifier is not None:
                named[scope] = await self._own_identifier(connection)
            elif scope == "user":
                named[scope] = authenticated_user(connection.scope)
        return identify(self._scopes, address, named, str(connection.path_params.get("provider", "")))

    async def _own_identifier(self, connection: HTTPConnection) -> object:
        try:
            value = cast("IdentifierOf", self._identifier)(connection)
            return await value if inspect.isawaitable(value) else value
        except Exception as error:  # noqa: BLE001 - the address stands in
            self._notifier.warn_throttled("identifier", "An identifier function failed.", error=describe(error))
            return None

    async def _cost_of(self, connection: HTTPConnection) -> int:
        try:
            cost = cast("CostOf", self._cost)(connection)
            number = await cost if inspect.isawaitable(cost) else cost
        except Exception as error:  # noqa: BLE001 - a client that makes it fail gets no free pass by it
            self._notifier.warn_throttled(
                "cost", "A cost function failed; took the rule's cost.", error=describe(error)
            )
            return 0
        return number if type(number) is int and number >= 0 else 0


def install_rate_limits(app: FastAPI) -> None:
    """Answer denials with problem details of RFC 9457, and show a 429 in OpenAPI for each endpoint with a `rate_limit`.

    Args:
        app: The application, before or after its routes are added.
    """
    app.add_exception_handler(RateLimitExceededError, _answer)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for path, methods in _limited_routes(app):
            for method in methods:
                operation = schema.get("paths", {}).get(path, {}).get(method.lower())
                if operation is not None:
                    for status, documented in TOO_MANY_REQUESTS.items():
                        operation.setdefault("responses", {}).setdefault(str(status), documented)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


async def _answer(_: Request, error: Exception) -> Response:
    refusal = cast("RateLimitExceededError", error).refusal
    response = Response(refusal.body, refusal.status)
    response.raw_headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    return response


def _place(scope: Scope) -> tuple[str, str]:
    # Where a router was included, the route knows only its own part of the path; FastAPI keeps the whole beside it.
    own = cast("dict[str, object]", scope.get("fastapi") or {})
    route = own.get("effective_route_context") or scope.get("route")
    method = scope.get("method", "WEBSOCKET")
    # The template, never the concrete path: else each value of a parameter had a bucket of its own.
    template = getattr(route, "path_format", None) or getattr(scope.get("endpoint"), "__qualname__", "")
    return "GET" if method == "HEAD" else method, str(template)


def _limited_routes(app: FastAPI) -> Iterable[tuple[str, set[str]]]:
    # Newer versions keep included routers as they are, and have this to look through them.
    flatten = cast("Callable[[object], Iterable[Any]]", getattr(routing, "iter_route_contexts", list))
    for route in flatten(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and _is_limited(dependant):
            yield route.path_format, set(route.methods or ())


def _is_limited(dependant: Any) -> bool:  # noqa: ANN401 - FastAPI's own, without a public type
    return isinstance(dependant.call, rate_limit) or any(_is_limited(part) for part in dependant.dependencies)
