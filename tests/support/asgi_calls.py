"""Call an ASGI application with any scope, however strange, and keep what it sends."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

App = Callable[..., Awaitable[None]]


class Answer(NamedTuple):
    """What an application sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    messages: list[dict[str, Any]]


def http_scope(  # noqa: PLR0913 - what a server knows
    method: str = "GET",
    path: str = "/",
    *,
    headers: Sequence[tuple[str, str]] = (),
    client: tuple[str, int] | None = ("192.0.2.1", 4711),
    root_path: str = "",
    kind: str = "http",
    **more: Any,
) -> dict[str, Any]:
    """Return a scope as a server makes it."""
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": root_path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": client,
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    if kind == "http":
        scope["method"] = method
    else:
        scope["subprotocols"] = []
    return scope | more


async def send_scope(app: App, scope: dict[str, Any], body: bytes = b"") -> Answer:
    """Send one request and collect the answer. Of a websocket, status is 101 if it was accepted, 403 if it was closed."""
    incoming: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    if scope["type"] == "websocket":
        incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    # A server makes a scope of its own for each request.
    await app(scope.copy() if type(scope) is dict else scope, receive, send)
    status, headers, content = 0, {}, b""
    for message in sent:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            status = message["status"]
        if message["type"] == "websocket.accept":
            status = 101
        if message["type"] == "websocket.close" and not status:
            status = 403
        headers |= {name.decode(): value.decode() for name, value in message.get("headers") or ()}
        content += message.get("body", b"")
    return Answer(status, headers, content, sent)


async def get(app: App, path: str = "/", **options: Any) -> Answer:
    """Send one GET."""
    return await send_scope(app, http_scope("GET", path, **options))
