"""ASGI's scopes and messages, as far as the middleware reads and writes them (asgi.readthedocs.io, HTTP and websocket 2.5)."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias, cast

from sluicegate.presentation.web.headers import DenialResponse, Headers
from sluicegate.presentation.web.incoming_request import IncomingRequest

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_WEBSOCKET = "WEBSOCKET"
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class ASGIRequest(IncomingRequest):
    """A request or a websocket handshake.

    Args:
        scope: The connection's scope, of type `http` or `websocket`.
        subject: What functions of the application get; None: the scope.
        parameters: The path's parameters, where the framework tells them.
    """

    __slots__ = ("_headers",)

    def __init__(self, scope: Scope, subject: object = None, parameters: Mapping[str, object] | None = None) -> None:
        path = route_path(scope)
        client = scope.get("client")
        method = str(scope["method"]).upper() if scope["type"] == "http" else _WEBSOCKET
        peer = client[0] if client else None
        super().__init__(
            method,
            path,
            path,
            peer if isinstance(peer, str) else None,
            scope if subject is None else subject,
            parameters,
        )
        self._headers: Any = scope["headers"]

    def header_lines(self, name: str) -> list[str]:
        """Return the lines of a header field in their order."""
        wanted = name.encode()
        return [value.decode("latin-1") for field, value in self._headers if field == wanted]


class HeaderSend:
    """A `send` that adds header fields to a response.

    Args:
        send: The server's.
        fields: What to add. A field that the response has already stays as it is.
        joining: Whether `RateLimit` and `RateLimit-Policy`, which are lists, are added even so.
    """

    __slots__ = ("_fields", "_joining", "_send")

    def __init__(self, send: Send, fields: Headers, *, joining: bool) -> None:
        self._send = send
        self._fields = fields
        self._joining = joining

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message, and return what the server's `send` returned: there is nothing else to await."""
        if message["type"] in _STARTS:
            # A copy: an application may send the same message many times.
            message = {**message, "headers": self._joined(list(message.get("headers") or ()))}
        return self._send(message)

    def _joined(self, present: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        names: set[bytes] | None = None
        for name, value in self._fields:
            field = name.encode(), value.encode()
            if not (self._joining and name.startswith("ratelimit")):
                if names is None:
                    names = {bytes(other).lower() for other, _ in present}
                if field[0] in names:
                    continue
            present.append(field)
        return present


def route_path(scope: Scope) -> str:
    """Return the path that the application's router matches: without `root_path`, if it begins with that."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        return path[len(root) :]
    return path


def authenticated_user(scope: Scope) -> object:
    """Return the user that an authentication middleware outside this one has verified; None if there is none.

    It is `scope["user"]` as Starlette's `AuthenticationMiddleware` sets it, else `request.state.user_id`.
    """
    user = scope.get("user")
    if user is not None and getattr(user, "is_authenticated", False):
        for attribute in ("identity", "username", "display_name"):
            try:
                name = getattr(user, attribute, None)
            except NotImplementedError:  # Starlette's BaseUser raises it
                continue
            if name:
                return name
    state = cast("Mapping[str, object]", scope.get("state") or {})
    return state.get("user_id")


async def respond(send: Send, denial: DenialResponse, kind: str, *, with_body: bool) -> None:
    """Send the response to a denied request.

    Args:
        send: The server's.
        denial: The response.
        kind: What the messages' types begin with: `http` or `websocket.http`.
        with_body: False for a response to `HEAD`.
    """
    headers = [(name.encode(), value.encode()) for name, value in denial.headers]
    await send({"type": f"{kind}.response.start", "status": denial.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": denial.body if with_body else b""})
