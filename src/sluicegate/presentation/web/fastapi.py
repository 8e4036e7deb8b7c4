"""A dependency for FastAPI's endpoints: rules for one endpoint, with a cost and an identifier that may depend on the request."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, cast

from fastapi import FastAPI, Response, WebSocketException, routing
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit
from sluicegate.presentation.inline_rules import InlineLimiters, RuleOrText, read_rules, require_kind
from sluicegate.presentation.web.asgi_messages import ASGIRequest, Scope, authenticated_user
from sluicegate.presentation.web.client_address import ForwardedHeader
from sluicegate.presentation.web.headers import DenialResponse, HeaderStyle
from sluicegate.presentation.web.identifiers import names_to_ask
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.request_reader import IdentifierFunction

CostOf: TypeAlias = Callable[[Any], int | Awaitable[int]]
"""Return the tokens that a request takes; 0: the rule's own cost."""

TOO_MANY_REQUESTS: dict[int | str, dict[str, Any]] = {
    429: {
        "description": "Too many requests. `RateLimit-Policy` has the quota, `RateLimit` what is left of it.",
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
"""What OpenAPI says of a limited endpoint, for the `responses` of a route, router or application."""

_BODY_FIELDS = frozenset({"content-type", "content-length"})
_TOO_MANY_REQUESTS = 429
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


class RateLimitExceededError(HTTPException):
    """A request was denied. FastAPI answers it like any HTTPException, unless `install_rate_limits` was called.

    Args:
        denial: The response with problem details.
    """

    def __init__(self, denial: DenialResponse) -> None:
        headers = {name: value for name, value in denial.headers if name not in _BODY_FIELDS}
        detail = "Too many requests" if denial.status == _TOO_MANY_REQUESTS else "Temporarily not available"
        super().__init__(denial.status, detail, headers)
        self.denial = denial


class rate_limit:  # noqa: N801 - used as a function: Depends(rate_limit("5/minute"))
    """Limit an endpoint: `Depends(rate_limit("5/minute"))`.

    Args:
        rules: Rules, or texts such as `5/minute per user`; a text without `per` counts addresses.
        cost: Tokens that a request takes, or a function of it; 0: the rule's cost.
        identifier: A function of the request (or websocket) that names the client for all rules but global ones; None: the
            address for `ip`, the authenticated user for `user`.
        name: What keys name in the place of an endpoint; empty: the route's method and path. Routes of the same name and rules
            share buckets.
        limiter: The limiter whose storage is used; None: that of the settings.
        trusted_proxies: See `ClientAddresses`.
        forwarded_header: The header in which these proxies name their clients.
        ipv6_prefix: Bits of an IPv6 address that tell clients apart.
        headers: Which header fields tell clients of their quota. They are added to the responses that FastAPI makes, not to a
            `Response` that an endpoint returns; the middleware adds them to all.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        *rules: RuleOrText,
        cost: int | CostOf = 0,
        identifier: IdentifierFunction | None = None,
        name: str = "",
        limiter: TokenBucketAdapter | None = None,
        trusted_proxies: Iterable[str] = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        ipv6_prefix: int = 64,
        headers: HeaderStyle = "draft-11",
    ) -> None:
        self.rules = read_rules(rules)
        if limiter is not None:
            require_kind(limiter, TokenBucketAdapter)
        scopes = tuple(dict.fromkeys(str(rule.scope) for rule in self.rules))
        self._limiters = InlineLimiters(self.rules, TokenBucketAdapter, lambda: limiter or get_rate_limit(), name=name)
        self._requests = RequestLimiter(
            scopes=scopes if identifier is None else (),
            trusted_proxies=trusted_proxies,
            forwarded_header=forwarded_header,
            ipv6_prefix=ipv6_prefix,
            identifiers={"user": _authenticated}
            if identifier is None
            else dict.fromkeys(names_to_ask(scopes), identifier),
            cost=cost if callable(cost) else None,
            fixed_cost=0 if callable(cost) else cost,
            headers=headers,
        )

    async def __call__(self, connection: HTTPConnection, response: Response) -> None:
        """Let a request pass, or raise what answers it.

        Raises:
            RateLimitExceededError: If the request is denied.
            WebSocketException: If a websocket's handshake is denied.
        """
        endpoint, limiter = self._limiters.at(_place(connection.scope))
        request = ASGIRequest(connection.scope, connection, connection.path_params)
        decision = await self._requests.check(limiter, request, endpoint)
        if decision is None:
            return
        if decision.result.allowed:
            fields = self._requests.headers(decision)
            response.raw_headers.extend([(name.encode(), value.encode()) for name, value in fields])
        elif connection.scope["type"] == "websocket":
            raise WebSocketException(_POLICY_VIOLATION, "Too many requests")
        else:
            raise RateLimitExceededError(self._requests.denial(decision))


def _authenticated(connection: HTTPConnection) -> object:
    """Return the user that authentication has verified; None if there is none."""
    return authenticated_user(connection.scope)


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

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation shows it


async def _answer(_: Request, error: Exception) -> Response:
    denial = cast("RateLimitExceededError", error).denial
    response = Response(denial.body, denial.status)
    response.raw_headers = [(name.encode(), value.encode()) for name, value in denial.headers]
    return response


def _place(scope: Scope) -> str:
    """Return the method and the whole path template of the route that takes a request."""
    # Of an included router the route knows only its own part of the path; FastAPI keeps the whole beside it.
    own = cast("dict[str, object]", scope.get("fastapi") or {})
    route = own.get("effective_route_context") or scope.get("route")
    method = scope.get("method", "WEBSOCKET")
    # The template, never the concrete path: else each value of a parameter would have a bucket of its own.
    template = getattr(route, "path_format", None) or getattr(scope.get("endpoint"), "__qualname__", "")
    return f"dependency {'GET' if method == 'HEAD' else method} {template}"


def _limited_routes(app: FastAPI) -> Iterable[tuple[str, set[str]]]:
    # Newer versions of FastAPI keep included routers apart, and have this to iterate over all routes.
    flatten = cast("Callable[[object], Iterable[Any]]", getattr(routing, "iter_route_contexts", list))
    for route in flatten(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and _is_limited(dependant):
            yield route.path_format, set(route.methods or ())


def _is_limited(dependant: Any) -> bool:  # noqa: ANN401 - an internal class of FastAPI's, without a public type
    return isinstance(dependant.call, rate_limit) or any(_is_limited(part) for part in dependant.dependencies)
