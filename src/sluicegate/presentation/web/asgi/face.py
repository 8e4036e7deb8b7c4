"""What the ASGI middleware does with a request. Compiled; `RateLimitMiddleware`, which users see and subclass, adds the options.

It decides before the application sees a request, by the path that the server put into the scope, never by a URL that is built
from headers. Then it calls the application once. Of what the application raises, only a `RateLimitedError` is the limiter's to
answer.
"""

import inspect
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any, TypeAlias

from mypy_extensions import mypyc_attr

from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.presentation.web.asgi.messages import (
    ASGIApp,
    ASGIRequest,
    HeaderSend,
    QuotaSend,
    Receive,
    Scope,
    Send,
    record_of,
    respond,
    view_of,
)
from sluicegate.presentation.web.asgi.websocket import POLICY_VIOLATION, DeniedMessages, LimitedWebsocket
from sluicegate.presentation.web.asked_limiter import AwaitedLimiter
from sluicegate.presentation.web.headers import BODY_FIELDS, DenialResponse
from sluicegate.presentation.web.incoming_request import any_exempt
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.routes.known_routers import known_router

DenialFunction: TypeAlias = Callable[[Scope, DenialResponse], ASGIApp | Awaitable[ASGIApp]]
"""Return what answers a denied request: a response, such as Starlette's, is an application."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ASGIFace:
    """Limit requests and websocket handshakes of an application.

    Args:
        app: The application.
        limiter: The limiter.
        requests: Asks it about requests.
        on_denied: Returns the response to a denied request; None: problem details.
        owned: The limiter, if it is to be closed with the application.
        recognises_router: Whether paths are read as the application's router is known to read them.
        denied_messages: What becomes of denied messages of a websocket.
    """

    def __init__(  # noqa: PLR0913 - collaborators
        self,
        app: ASGIApp,
        limiter: AwaitedLimiter[Any],
        requests: RequestLimiter,
        on_denied: DenialFunction | None,
        owned: TokenBucketAdapter | None,
        *,
        recognises_router: bool,
        denied_messages: DeniedMessages = POLICY_VIOLATION,
    ) -> None:
        self.app = app
        self._denied_messages: DeniedMessages = denied_messages
        self._limiter = limiter
        self._requests = requests
        self._on_denied = on_denied
        self._owned = owned
        self._recognises_router = recognises_router
        self._is_first = True
        self._root_path: str | None = None

    @property
    def limiter(self) -> AwaitedLimiter[Any]:
        """The limiter, for `reset` and the like."""
        return self._limiter

    def __copy__(self) -> "ASGIFace":
        """Return a middleware for the same application, which asks the same limiter."""
        other = type(self).__new__(type(self))
        ASGIFace.__init__(
            other,
            self.app,
            self._limiter,
            self._requests,
            self._on_denied,
            self._owned,
            recognises_router=self._recognises_router,
            denied_messages=self._denied_messages,
        )
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "ASGIFace":
        """Return a middleware for a copy of the application, which asks the same limiter."""
        other = self.__copy__()
        memo[id(self)] = other
        other.app = deepcopy(self.app, memo)
        return other

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, C901 - any framework's; one way
        """Answer a denied request; call the application for every other."""
        kind = scope["type"]
        if kind == "http" or kind == "websocket":  # noqa: PLR1714 - compiled, two comparisons are the faster
            if self._is_first:
                self._look_at_the_application()
            record = record_of(scope)
            outside = record.enter()
            view = view_of(scope) if any_exempt() else None
            decision = await self._requests.check(
                self._limiter, ASGIRequest(scope, None, None, self._root_path, notes=scope, view=view)
            )
            if decision is not None and not decision.result.allowed:
                record.told(decision)
                await self._deny(scope, receive, send, self._requests.denial(decision))
                return
            telling = QuotaSend(send, record, scope.get("method", "GET"))
            receiving: Receive = receive
            sending: Send = telling
            if kind == "websocket":
                websocket = LimitedWebsocket(
                    scope, receive, telling, self._limiter, self._requests, self._denied_messages, self._root_path, view
                )
                receiving, sending = websocket.receive, websocket.send
            failure: BaseException | None = None
            try:
                await self.app(scope, receiving, sending)
            except BaseException as error:  # noqa: BLE001 - raised below: where a handler awaits, mypyc mixes up exceptions
                failure = error
            if isinstance(failure, RateLimitedError):
                if kind != "http" or not telling.started:
                    denial = self._requests.denial(failure.decision)
                    failure = None
                    await self._deny(scope, receive, sending, denial, accepted=telling.started)
            elif isinstance(failure, Exception) and record.claims is not None and not telling.started:
                record.claims.failed(outside)
            if record.claims is not None:
                await record.claims.settle(outside)
            if failure is not None:
                try:
                    raise failure
                finally:
                    failure = None  # its traceback leads back to this frame: they would keep each other
            return
        await self.app(scope, receive, send)
        if kind == "lifespan" and self._owned is not None:
            await self._owned.aclose()

    def _look_at_the_application(self) -> None:
        """Find out how the application reads paths: before its first request, for before that it may get more routes."""
        known = known_router(self.app)
        if self._recognises_router:
            self._requests.endpoints.router = known.router
            self._requests.endpoints.asked = known.asked
        self._root_path = known.root_path
        self._is_first = False

    async def _deny(
        self, scope: Scope, receive: Receive, send: Send, denial: DenialResponse, *, accepted: bool = False
    ) -> None:
        if accepted:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "Too many requests"})
            return
        answer: ASGIApp | None = None
        if self._on_denied is not None:
            try:
                made = self._on_denied(scope, denial)
                answer = await made if inspect.isawaitable(made) else made
            except Exception as error:  # noqa: BLE001 - the request is denied all the same
                self._requests.warn("on_denied", "on_denied failed.", error)
        if answer is not None:
            fields = tuple([field for field in denial.headers if field[0] not in BODY_FIELDS])
            await answer(scope, receive, HeaderSend(send, fields))
        elif scope["type"] == "http":
            await respond(send, denial, "http", with_body=scope["method"] != "HEAD")
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await respond(send, denial, "websocket.http", with_body=True)
        else:
            # A handshake that is closed before it is accepted is answered with 403: ASGI has no more without the extension.
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "Too many requests"})
