"""A dependency for FastAPI's endpoints: rules for one endpoint, with a cost and an identifier that may depend on the request."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias, cast
from weakref import WeakSet

from fastapi import FastAPI, Response, WebSocketException, routing
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from sluicegate.application.check import Decision
from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit
from sluicegate.presentation.inline_rules import InlineRule, InlineRules
from sluicegate.presentation.web.answer import AnswerCost, AnswerTest
from sluicegate.presentation.web.asgi.answer_watcher import AnswerWatcher
from sluicegate.presentation.web.asgi.fastapi_places import place_of
from sluicegate.presentation.web.asgi.messages import (
    ASGIRequest,
    authenticated_user,
    record_of,
)
from sluicegate.presentation.web.headers import BODY_FIELDS, DenialResponse, HeaderStyle
from sluicegate.presentation.web.identity.client_address import ForwardedHeader
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.request_reader import IdentifierFunction, RequestTest, require_functions
from sluicegate.presentation.web.request_record import RECORD, RequestRecord

CostOf: TypeAlias = Callable[[Any], int | Awaitable[int]]
"""Return the tokens that a request takes; 0: none, it is free."""

OnDenied: TypeAlias = Callable[[Request, DenialResponse], Response | Awaitable[Response]]
"""Return the response to a denied request."""

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

_TOO_MANY_REQUESTS = 429
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


class RateLimitExceededError(HTTPException):
    """A request was denied. FastAPI answers it like any HTTPException, unless `install_rate_limits` was called.

    Args:
        denial: The response with problem details.
    """

    def __init__(self, denial: DenialResponse) -> None:
        headers = {name: value for name, value in denial.headers if name not in BODY_FIELDS}
        detail = "Too many requests" if denial.status == _TOO_MANY_REQUESTS else "Temporarily not available"
        super().__init__(denial.status, detail, headers)
        self.denial = denial


_installed: "WeakSet[FastAPI]" = WeakSet()
"""The applications that check the settings when they start, and tell the server in one line what is wrong."""


class rate_limit:  # noqa: N801 - used as a function: Depends(rate_limit("5/minute"))
    """Limit an endpoint: `Depends(rate_limit("5/minute"))`.

    The lists, overrides and kill switches of the limiter hold for it, and its buckets are known to `reset` and `get_remaining`
    by the route, such as `POST /login`.

    Args:
        rules: Rules, texts such as `5/minute per user` (a text without `per` counts addresses), names of policies of the rules
            file, or functions of the request that return them.
        cost: Tokens that a request takes; 0: the rule's cost. Or a function of the request, whose 0 means none.
        count_when: Returns whether a request counts, as a function of its `Answer`; None: all count. This and the next two need
            `install_rate_limits` or `RateLimitMiddleware`, which see the answers.
        answer_cost: What a request cost in the end: a header field that no client sees, or a function of the `Answer`. `cost` is
            what it may cost, and is reserved meanwhile.
        reserves: Whether the cost is reserved until the endpoint tells it by `request.state.rate_limit.commit`.
        identifier: A function of the request (or websocket) that names the client for all rules but global ones; None: the
            address for `ip`, the authenticated user for `user`.
        name: What keys name in the place of an endpoint; empty: the route's method and path. Routes of the same name and rules
            share buckets.
        limiter: The limiter whose storage and lists are used; None: that of the settings.
        exempt_when: Returns whether a request is not counted; None: all others are.
        enabled: False: no request is counted.
        trusted_proxies: See `ClientAddresses`; None: the settings say these, the header and the hops.
        forwarded_header: The header in which these proxies name their clients.
        trusted_hops: How many proxies a request passes; 0: not counted.
        ipv6_prefix: Bits of an IPv6 address that tell clients apart.
        headers: Which header fields tell clients of their quota. Without `install_rate_limits` or the middleware they are only
            added to responses that FastAPI makes, not to a `Response` that an endpoint returns, nor to errors.
        retry_after_ms: Whether denials also carry `Retry-After-Ms`, in milliseconds.

    Raises:
        InvalidInputError: If an argument is wrong; or a setting, unless `install_rate_limits` was called, which tells of it when
            the server starts.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        *rules: InlineRule,
        cost: int | CostOf = 0,
        count_when: AnswerTest | None = None,
        answer_cost: AnswerCost | None = None,
        reserves: bool = False,
        identifier: IdentifierFunction | None = None,
        name: str = "",
        limiter: TokenBucketAdapter | None = None,
        exempt_when: RequestTest | None = None,
        enabled: bool = True,
        trusted_proxies: Iterable[str] | None = None,
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        trusted_hops: int = 0,
        ipv6_prefix: int = 64,
        headers: HeaderStyle = "draft-11",
        retry_after_ms: bool = False,
    ) -> None:
        self._requests = RequestLimiter(
            exempt_when=exempt_when,
            enabled=enabled,
            trusted_proxies=trusted_proxies,
            forwarded_header=forwarded_header,
            trusted_hops=trusted_hops,
            ipv6_prefix=ipv6_prefix,
            identifiers={"user": _authenticated} if identifier is None else None,
            identifier=identifier,
            cost=cost if callable(cost) else None,
            fixed_cost=0 if callable(cost) else cost,
            count_when=count_when,
            answer_cost=answer_cost,
            reserves=reserves,
            headers=headers,
            retry_after_ms=retry_after_ms,
        )
        self._rules = InlineRules(
            rules,
            TokenBucketAdapter,
            limiter,
            get_rate_limit,
            name=name,
            requests=self._requests,
            at_start=not _installed,
        )

    async def __call__(self, connection: HTTPConnection, response: Response) -> None:
        """Let a request pass, or raise what answers it.

        Raises:
            RateLimitExceededError: If the request is denied.
            WebSocketException: If a websocket's handshake is denied.
        """
        decision = await self._check(connection, place_of(connection.scope))
        if decision is None:
            return
        if decision.result.allowed:
            record: RequestRecord | None = connection.scope.get(RECORD)
            if record is not None and not record.is_told:
                fields = record.fields_to_send()
                response.raw_headers.extend([(name.encode(), value.encode()) for name, value in fields])
        elif connection.scope["type"] == "websocket":
            raise WebSocketException(_POLICY_VIOLATION, "Too many requests")
        else:
            record_of(connection.scope).told(decision)
            raise RateLimitExceededError(self._requests.denial(decision))

    async def message(self, connection: HTTPConnection) -> None:
        """Count a message of a websocket that was accepted, in buckets of their own.

        Raises:
            WebSocketException: If it is denied; FastAPI closes the connection with 1008.
        """
        decision = await self._check(connection, f"MESSAGE {place_of(connection.scope).partition(' ')[2]}")
        if decision is not None and not decision.result.allowed:
            raise WebSocketException(_POLICY_VIOLATION, "Too many messages")

    def declare(self, place: str) -> None:
        """Put the rules into force for a route before its first request, so that `reset` and `rules` know them.

        Raises:
            InvalidInputError: If a rule names a policy that the limiter does not have.
        """
        if not self._rules.asks_functions:
            self._rules.at(place)

    def note(self, place: str) -> None:
        """Note a route for commands; see `InlineRules.note`."""
        self._rules.note(place)

    async def _check(self, connection: HTTPConnection, place: str) -> Decision | None:
        endpoint, limiter = self._rules.at(place, connection)
        scope = connection.scope
        notes = None if place.startswith("MESSAGE") else scope
        request = ASGIRequest(scope, connection, connection.path_params, notes=notes, view=scope.get("endpoint"))
        return await self._requests.check(limiter, request, endpoint)


def _authenticated(connection: HTTPConnection) -> object:
    """Return the user that authentication has verified; None if there is none."""
    return authenticated_user(connection.scope)


def install_rate_limits(app: FastAPI, *, on_denied: OnDenied | None = None) -> None:
    """Answer denials with problem details of RFC 9457, tell the quota on every response, and show a 429 in OpenAPI.

    A `RateLimitedError` that an endpoint raises, such as that of a `rate_limited` function, is answered in the same way. Errors
    and responses that an endpoint returns carry the quota too. OpenAPI shows a 429 for each endpoint with a `rate_limit`.

    Args:
        app: The application, before or after its routes are added, and before it serves.
        on_denied: Returns the response to a denied request in place of the problem details. Header fields that it leaves out
            are added.

    Raises:
        InvalidTypeError: If `on_denied` is no function.
    """
    require_functions({"on_denied": on_denied})
    _installed.add(app)
    answers = _Answers(on_denied)
    app.add_exception_handler(RateLimitExceededError, answers.exceeded)
    app.add_exception_handler(RateLimitedError, answers.limited)
    app.add_middleware(AnswerWatcher, declare=partial(_declare, app))
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for route in _limited_routes(app):
            for method in route.methods or ():
                operation = schema.get("paths", {}).get(route.path_format, {}).get(method.lower())
                if operation is not None:
                    for status, documented in TOO_MANY_REQUESTS.items():
                        operation.setdefault("responses", {}).setdefault(str(status), documented)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation shows it


class _Answers:
    """The responses to denied requests."""

    def __init__(self, on_denied: OnDenied | None) -> None:
        self._on_denied = on_denied
        self._requests = RequestLimiter()

    async def exceeded(self, request: Request, error: Exception) -> Response:
        """Answer what a dependency raised."""
        return await self._response(request, cast("RateLimitExceededError", error).denial)

    async def limited(self, request: Request, error: Exception) -> Response:
        """Answer what anything else that is limited raised."""
        return await self._response(request, self._requests.denial(cast("RateLimitedError", error).decision))

    async def _response(self, request: Request, denial: DenialResponse) -> Response:
        if self._on_denied is not None:
            try:
                made = self._on_denied(request, denial)
                response = await made if inspect.isawaitable(made) else made
                present = {name.lower() for name in response.headers}
                added = [field for field in denial.headers if field[0] not in present and field[0] not in BODY_FIELDS]
                response.raw_headers.extend([(name.encode(), value.encode()) for name, value in added])
            except Exception as failure:  # noqa: BLE001 - the request is denied all the same
                self._requests.warn("on_denied", "on_denied failed.", failure)
            else:
                return response
        response = Response(denial.body, denial.status)
        response.raw_headers = [(name.encode(), value.encode()) for name, value in denial.headers]
        return response


def _declare(app: FastAPI) -> None:
    """Put the rules of all routes into force that do not depend on the request."""
    for limit, place in _limited_places(app):
        limit.declare(place)


def note_routes(app: Any, mounted_at: str) -> None:  # noqa: ANN401 - whatever an application is
    """Note the rules of all routes for commands.

    Args:
        app: The application.
        mounted_at: The template of the mounts that lead to it; empty if it is the outermost.
    """
    for limit, place in _limited_places(app):
        method, _, path = place.partition(" ")
        limit.note(f"{method} {mounted_at}{path}")


def _limited_places(app: FastAPI) -> Iterator[tuple[rate_limit, str]]:
    for route in _limited_routes(app):
        for limit in _limits_of(route.dependant):
            for method in getattr(route, "methods", None) or ("WEBSOCKET",):
                yield limit, f"{method} {route.path_format}"


def _limited_routes(app: FastAPI) -> Iterable[Any]:
    # Newer versions of FastAPI keep included routers apart, and have this to iterate over all routes.
    flatten = cast("Callable[[object], Iterable[Any]]", getattr(routing, "iter_route_contexts", list))
    for route in flatten(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and any(_limits_of(dependant)):
            yield route


def _limits_of(dependant: Any) -> Iterator[rate_limit]:  # noqa: ANN401 - an internal class of FastAPI's, without a public type
    if isinstance(dependant.call, rate_limit):
        yield dependant.call
    for part in dependant.dependencies:
        yield from _limits_of(part)
