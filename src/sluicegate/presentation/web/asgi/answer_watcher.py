"""The middleware round FastAPI's dependencies, which see no answers themselves."""

from collections.abc import Callable

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.asgi.messages import ASGIApp, QuotaSend, Receive, Scope, Send, record_of
from sluicegate.presentation.web.startup_failure import StartupFailure


class AnswerWatcher:
    """Add to every response what the dependencies inside have decided, and settle what they have claimed.

    Args:
        app: The application.
        declare: Called before the first request.
    """

    def __init__(self, app: ASGIApp, declare: Callable[[], None]) -> None:
        self._app = app
        self._declare: Callable[[], None] | None = declare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and settle at its end."""
        if self._declare is not None:
            declare, self._declare = self._declare, None
            try:
                declare()
            except InvalidInputError as error:
                if scope["type"] != "lifespan":
                    raise
                await StartupFailure(error)(scope, receive, send)
                return
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        record = record_of(scope)
        outside = 0 if record.claims is None else len(record.claims.claims)
        if not record.is_told:
            send = QuotaSend(send, record, scope.get("method", "GET"))
        try:
            await self._app(scope, receive, send)
        except Exception:
            if record.claims is not None:
                record.claims.failed(outside)
            raise
        finally:
            if record.claims is not None:
                await record.claims.settle(outside)
