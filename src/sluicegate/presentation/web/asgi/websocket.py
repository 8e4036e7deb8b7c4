"""Limits of the messages that clients send on a websocket: rules such as `MESSAGE /feed`.

Each message of a client is checked before the application gets it. A message that no rule names costs one look-up.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.routing.template import A_MESSAGE
from sluicegate.presentation.web.asgi.messages import ASGIRequest, Message, Receive, Scope, Send
from sluicegate.presentation.web.asked_limiter import AwaitedLimiter, RulesToAsk
from sluicegate.presentation.web.headers import DenialResponse
from sluicegate.presentation.web.request_limiter import RequestLimiter

R = TypeVar("R", bound=RulesToAsk)

DenialReply: TypeAlias = Callable[[Scope, DenialResponse], str | bytes | Awaitable[str | bytes]]
"""Return what a client gets in answer to a denied message."""

DeniedMessages: TypeAlias = int | Literal["drop"] | DenialReply
"""What becomes of a denied message: the connection is closed with a code, or it is dropped, or it is answered."""

POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
_TRY_AGAIN_LATER: Final = 1013  # in IANA's registry of close codes
_REASON: Final = "Too many messages"
_NOTES: Final = "sluicegate.message"
"""Where the scope has what limiters in a row have decided about the latest message, so that equal rules are charged once."""


def require_denied_messages(chosen: object) -> DeniedMessages:
    """Return what becomes of denied messages.

    Raises:
        InvalidInputError: If it is no such choice.
    """
    if chosen == "drop" or callable(chosen):
        return cast("DeniedMessages", chosen)
    if type(chosen) is not int:
        raise InvalidTypeError(f"denied_messages={chosen!r:.80}: expected a close code, 'drop', or a function")
    if chosen not in {POLICY_VIOLATION, _TRY_AGAIN_LATER} and not 3000 <= chosen <= 4999:  # noqa: PLR2004 - said below
        raise InvalidInputError(f"denied_messages={chosen}: expected the close code 1008, 1013, or 3000 to 4999")
    return chosen


class LimitedWebsocket:
    """A websocket whose messages from the client are limited.

    Args:
        scope: The connection's scope.
        receive: The server's.
        send: What the application's messages go to.
        limiter: The limiter.
        requests: Asks it.
        denied: What becomes of denied messages.
        root_path: The root path, where the application has its own.
        view: What will answer, where the framework tells it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a connection is
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limiter: AwaitedLimiter[Any],
        requests: RequestLimiter,
        denied: DeniedMessages,
        root_path: str | None,
        view: object,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limiter = limiter
        self._requests = requests
        self._denied: DeniedMessages = denied
        notes: dict[str, Any] | None = scope.get(_NOTES)
        self._is_outermost = notes is None
        self._notes: dict[str, Any] = {} if notes is None else notes
        scope[_NOTES] = self._notes
        self._request = ASGIRequest(scope, None, None, root_path, notes=self._notes, view=view)
        self._request.method = A_MESSAGE
        self._closed = False

    async def receive(self) -> Message:
        """Return the next message that may pass, or the end of the connection."""
        while not self._closed:
            message = await self._receive()
            if message["type"] != "websocket.receive" or not self._is_named():
                return message
            if self._is_outermost:
                self._notes.clear()
            decision = await self._requests.check(self._limiter, self._request)
            if decision is None or decision.result.allowed:
                return message
            if self._denied != "drop":
                await self._answer(self._requests.denial(decision))
        code = self._denied if isinstance(self._denied, int) else POLICY_VIOLATION
        return {"type": "websocket.disconnect", "code": code, "reason": _REASON}

    async def send(self, message: Message) -> None:
        """Send a message of the application's.

        Raises:
            OSError: If the connection was closed because of a denied message: what servers raise when the client has gone.
        """
        if not self._closed:
            await self._send(message)
        elif message["type"] != "websocket.close":
            raise OSError(_REASON)

    def _is_named(self) -> bool:
        """Return whether a rule may be for the messages. Rules may be replaced while the connection is open."""
        try:
            return self._requests.endpoints.find(self._limiter.current_rules(), self._request) is not None
        except Exception:  # noqa: BLE001 - whatever it is, the check meets it too, and lets pass
            return True

    async def _answer(self, denial: DenialResponse) -> None:
        reply: object = None
        if callable(self._denied):
            try:
                made = self._denied(self._scope, denial)
                reply = await made if inspect.isawaitable(made) else made
            except Exception as error:  # noqa: BLE001 - the message is denied all the same
                self._requests.warn("denied_messages", "denied_messages failed; closed the connection.", error)
        if isinstance(reply, str):
            await self._send({"type": "websocket.send", "text": reply})
        elif isinstance(reply, bytes):
            await self._send({"type": "websocket.send", "bytes": reply})
        else:
            self._closed = True
            code = self._denied if isinstance(self._denied, int) else POLICY_VIOLATION
            await self._send({"type": "websocket.close", "code": code, "reason": _REASON})
