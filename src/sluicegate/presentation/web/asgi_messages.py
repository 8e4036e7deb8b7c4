"""ASGI's messages, as far as the middleware reads and writes them (asgi.readthedocs.io, HTTP and websocket 2.5)."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias, cast

from sluicegate.presentation.web.headers import Denial, Field, Headers

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def route_path(scope: Scope) -> str:
    """Return the path that the application's router matches: without `root_path`, where it begins with it."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        return path[len(root) :]
    return path


def forwarded_lines(scope: Scope, header: bytes) -> list[str]:
    """Return the lines of the header in which proxies write whom they speak for, in their order."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == header]


def authenticated_user(scope: Scope) -> object:
    """Return the user whom an authentication middleware outside this one has verified; None if there is none.

    That is `scope["user"]` as Starlette's `AuthenticationMiddleware` leaves it, else `request.state.user_id`.
    """
    user = scope.get("user")
    if user is not None and getattr(user, "is_authenticated", False):
        for attribute in ("identity", "username", "display_name"):
            try:
                name = getattr(user, attribute, None)
            except NotImplementedError:  # as Starlette's BaseUser has it
                continue
            if name:
                return name
    state = cast("Mapping[str, object]", scope.get("state") or {})
    return state.get("user_id")


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks, before a request, if it may send it: `OPTIONS` with the two fields of the Fetch standard."""
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


def with_quota(fields: tuple[Field, ...], send: Send) -> Send:
    """Return a `send` that adds fields to the response's, whatever is there: `RateLimit` and `RateLimit-Policy` are lists.

    Args:
        fields: These two.
        send: What the result calls.
    """

    # No coroutine of its own: what the server's returns is all that there is to await.
    def send_with_quota(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:  # not changed in place: an application may send one message many times
            message = {**message, "headers": [*(message.get("headers") or ()), *fields]}
        return send(message)

    return send_with_quota


def adding(fields: Headers, send: Send, *, joining: bool) -> Send:
    """Return a `send` that adds fields to the response's.

    Args:
        fields: Names in lower case, and values. A field that the response has already stays as it is.
        send: What the result calls.
        joining: Whether `RateLimit` and `RateLimit-Policy`, which are lists, join those that the response has.
    """
    added = [(name.encode(), value.encode()) for name, value in fields]
    if joining and all(name.startswith(b"ratelimit") for name, _ in added):
        return with_quota(tuple(added), send)

    async def send_with_fields(message: Message) -> None:
        if message["type"] in _STARTS:
            present = cast("list[tuple[bytes, bytes]]", list(message.get("headers") or ()))
            names = {bytes(name).lower() for name, _ in present}
            present += [f for f in added if f[0] not in names or (joining and f[0].startswith(b"ratelimit"))]
            message = {**message, "headers": present}
        await send(message)

    return send_with_fields


async def respond(send: Send, refusal: Denial, kind: str, *, with_body: bool) -> None:
    """Send a denial.

    Args:
        send: The server's.
        refusal: What to send.
        kind: What the messages' types begin with: `http` or `websocket.http`.
        with_body: False for an answer to `HEAD`.
    """
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await send({"type": f"{kind}.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": refusal.body if with_body else b""})
