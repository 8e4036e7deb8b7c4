"""The middleware for ASGI applications of any framework. It needs none itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_for_application
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import LoggerProtocol, RateLimitProtocol
from sluicegate.domain.rules.rule_book import Rules
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.presentation.web.answer import AnswerCost, AnswerTest
from sluicegate.presentation.web.asgi.face import ASGIFace, DenialFunction
from sluicegate.presentation.web.asgi.messages import ASGIApp, TypedASGIApp, authenticated_user
from sluicegate.presentation.web.asgi.websocket import POLICY_VIOLATION, DeniedMessages, require_denied_messages
from sluicegate.presentation.web.asked_limiter import AwaitedLimiter
from sluicegate.presentation.web.headers import HeaderStyle
from sluicegate.presentation.web.identity.client_address import ForwardedHeader
from sluicegate.presentation.web.port_limiter import PortLimiter
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.request_reader import (
    CostFunction,
    IdentifierFunction,
    RequestTest,
    require_functions,
)
from sluicegate.presentation.web.routes.endpoint_finder import PathReadings
from sluicegate.presentation.web.startup_failure import built_late


def _without_limits(middleware: ASGIFace, app: ASGIApp) -> None:
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={})
    requests = RequestLimiter(enabled=False, trusted_proxies=())
    ASGIFace.__init__(middleware, app, limiter, requests, None, None, recognises_router=False)


class RateLimitMiddleware(ASGIFace):
    """Limit requests and websocket handshakes.

    Under `add_middleware` of Starlette and FastAPI, which construct it late, a mistake stops the server when it starts.

    Args:
        app: The application.
        rules: Endpoints and their rules, in the order of the application's routes: `{"POST /login": …, "GET /items/{id}": …}`;
            `WEBSOCKET /feed` for handshakes, `MESSAGE /feed` for messages of clients, `* /path` for any method, `*` for requests
            that no other endpoint matches. None: the rules file of the settings.
        limiter: The limiter; None: one built from the settings and the rules. It may be any `RateLimitProtocol`; one that is no
            `TokenBucketAdapter` gets the method and the concrete path as the endpoint.
        exempt: Paths that are not counted: exact ones (`/health`) or with all below them (`/static/*`).
        path_readings: See `PathReadings`.
        exempt_when: Returns whether a request is not counted, as a function of the scope; None: all others are.
        enabled: False: no request is counted.
        trusted_proxies: See `ClientAddresses`. Empty: the peer's address is the client's. None: the settings say these, the
            header and the hops.
        forwarded_header: The header in which these proxies name their clients.
        trusted_hops: How many proxies a request passes; 0: not counted.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.
        identifiers: A function of the scope for each rule's scope that is not an address, such as `tenant`. `user` is by
            default the authenticated `scope["user"]`, else `scope["state"]["user_id"]`.
        cost: What a request takes, as a function of the scope; 0: nothing. None: its rule's cost.
        count_when: Returns whether a request counts, as a function of its `Answer`, whose `request` is the scope. What does not
            count costs nothing. None: all count.
        answer_cost: What a request cost in the end: the header field in which the application tells it, which no client sees, or
            a function of the `Answer`. `cost` is what it may cost, and is reserved meanwhile.
        reserves: Whether the cost is reserved until the application tells it by `request.state.rate_limit.commit`.
        headers: Which header fields tell clients of their quota.
        retry_after_ms: Whether denials also carry `Retry-After-Ms`, in milliseconds.
        on_denied: Returns the response to a denied request in place of the problem details. Header fields that it leaves out
            are added.
        denied_messages: What becomes of a message of a websocket that is denied by a rule such as `MESSAGE /feed`: the code with
            which the connection is closed, 1008, 1013 or 3000 to 4999; `drop`: the application does not get it; or a function
            of the scope and the `DenialResponse`, which returns the text or the bytes that the client gets in answer.
        logger: Where warnings are logged; None: `logging.getLogger("sluicegate")`.

    Raises:
        InvalidInputError: If an argument, a rule or a setting is wrong.
    """

    @built_late(_without_limits)
    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        app: TypedASGIApp,
        *,
        rules: Rules | None = None,
        limiter: RateLimitProtocol | None = None,
        exempt: Iterable[str] = (),
        path_readings: PathReadings = "auto",
        exempt_when: RequestTest | None = None,
        enabled: bool = True,
        trusted_proxies: Iterable[str] | None = None,
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        trusted_hops: int = 0,
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
        identifiers: Mapping[str, IdentifierFunction] | None = None,
        cost: CostFunction | None = None,
        count_when: AnswerTest | None = None,
        answer_cost: AnswerCost | None = None,
        reserves: bool = False,
        headers: HeaderStyle = "draft-11",
        retry_after_ms: bool = False,
        on_denied: DenialFunction | None = None,
        denied_messages: DeniedMessages = POLICY_VIOLATION,
        logger: LoggerProtocol | None = None,
    ) -> None:
        if limiter is not None and rules is not None:
            raise InvalidInputError("rules: expected none beside a limiter, which has its own")
        require_functions({"on_denied": on_denied})
        require_denied_messages(denied_messages)
        named: dict[str, IdentifierFunction] = {"user": authenticated_user, **(identifiers or {})}
        owned: TokenBucketAdapter | None = None
        if limiter is None:
            limiter = owned = build_for_application(rules=rules, logger=logger)[0]
        scopes: Iterable[str] = ()
        asked: AwaitedLimiter[Any]
        if isinstance(limiter, TokenBucketAdapter):
            asked, scopes = limiter, limiter.scopes
        else:
            asked = PortLimiter(limiter, tuple(dict.fromkeys(("ip", *(named if identifiers else ())))))
        requests = RequestLimiter(
            scopes=scopes,
            exempt=exempt,
            path_readings=path_readings,
            exempt_when=exempt_when,
            enabled=enabled,
            trusted_proxies=trusted_proxies,
            forwarded_header=forwarded_header,
            trusted_hops=trusted_hops,
            ipv4_prefix=ipv4_prefix,
            ipv6_prefix=ipv6_prefix,
            identifiers=named,
            cost=cost,
            count_when=count_when,
            answer_cost=answer_cost,
            reserves=reserves,
            headers=headers,
            retry_after_ms=retry_after_ms,
            logger=logger,
        )
        if requests.reserves and not isinstance(limiter, TokenBucketAdapter):
            raise InvalidTypeError(
                "count_when, answer_cost, reserves: expected a TokenBucketAdapter, which has reservations"
            )
        super().__init__(
            app,
            asked,
            requests,
            on_denied,
            owned,
            recognises_router=path_readings == "auto",
            denied_messages=denied_messages,
        )
