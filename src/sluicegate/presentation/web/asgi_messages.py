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
        root_path: The root path, where the application has its own; None: the scope's.
    """

    __slots__ = ("_facts", "_headers", "_root_path")

    def __init__(
        self,
        scope: Scope,
        subject: object = None,
        parameters: Mapping[str, object] | None = None,
        root_path: str | None = None,
    ) -> None:
        facts: dict[str, Any] = scope if isinstance(scope, dict) else dict(scope)  # to read a dict is the faster for it
        whole: str = facts["path"]
        root: str = (facts.get("root_path") or "") if root_path is None else root_path
        path = without_root(whole, root) if root else whole
        client = facts.get("client")
        method = str(facts["method"]).upper() if facts["type"] == "http" else _WEBSOCKET
        peer = client[0] if client else None
        super().__init__(
            method,
            path,
            path,
            peer if isinstance(peer, str) else None,
            scope if subject is None else subject,
            parameters,
        )
        self._headers: Any = facts["headers"]
        self._root_path = root
        self._facts = facts

    def root_path(self) -> str:
        """Return the scope's root path, or the application's own."""
        return self._root_path

    def whole_path(self) -> str:
        """Return the scope's path."""
        path: str = self._facts["path"]
        return path

    def raw_path(self) -> bytes | None:
        """Return the scope's raw path, which not every server has."""
        raw: bytes | None = self._facts.get("raw_path")
        return raw

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

    __slots__ = ("_added", "_if_absent", "_send")

    def __init__(self, send: Send, fields: Headers, *, joining: bool) -> None:
        self._send = send
        self._added: list[tuple[bytes, bytes]] = []
        self._if_absent: list[tuple[bytes, bytes]] = []
        for name, value in fields:
            if joining and name.startswith("ratelimit"):
                self._added.append((name.encode(), value.encode()))
            else:
                self._if_absent.append((name.encode(), value.encode()))

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message, and return what the server's `send` returned: there is nothing else to await."""
        if message["type"] not in _STARTS:
            return self._send(message)
        # A copy: an application may send the same message many times.
        start: dict[str, Any] = message.copy() if isinstance(message, dict) else dict(message)
        headers: list[tuple[bytes, bytes]] = [*(start.get("headers") or ()), *self._added]
        start["headers"] = headers
        if self._if_absent:
            present = {bytes(name).lower() for name, _ in headers}
            headers.extend([field for field in self._if_absent if field[0] not in present])
        return self._send(start)


def without_root(path: str, root: str) -> str:
    """Return the path that Starlette's router matches: without the root path, if it begins with that."""
    if path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
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
