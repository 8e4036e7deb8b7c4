"""Routes on Starlette's router, whose handlers get a bounded body and return a reply."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from starlette.routing import Route, Router

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.http.streamed import Chunks, send_streamed
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.presentation.service.undecided import StorageUnavailableError
from sluicegate.presentation.web.asgi.messages import Message, Receive, Scope, Send
from sluicegate.presentation.web.headers import Headers

JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"


class Call(msgspec.Struct, frozen=True):
    """A request.

    Args:
        method: Its method.
        path: Its path.
        query: Its query, as it was sent.
        body: Its body.
        peer: The address at the other end of the connection; None for a Unix socket.
        headers: Its header fields, with names in lower case.
    """

    method: str
    path: str
    query: bytes
    body: bytes
    peer: str | None
    headers: Iterable[tuple[bytes, bytes]]

    def header_lines(self, name: str) -> list[str]:
        """Return the lines of a header field, whose name is in lower case, in their order."""
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for field, value in self.headers if field == wanted]


class Reply(msgspec.Struct, frozen=True):
    """A response.

    Args:
        status: Its status.
        body: Its body.
        content_type: The body's type; empty: none.
        headers: More header fields.
        chunks: The body, if it comes in parts; None: `body` is the whole of it.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()
    chunks: Chunks | None = None


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


class Endpoint(msgspec.Struct, frozen=True):
    """A route of the service.

    Args:
        method: Its method.
        path: Its path.
        handler: Answers its requests. An `InvalidInputError` that it raises becomes status 400, a `StorageUnavailableError` 503.
    """

    method: str
    path: str
    handler: Handler


def build_app(
    endpoints: Sequence[Endpoint],
    limits: ServiceLimits,
    *,
    guard: Callable[[Call], Reply | None] | None = None,
    open_endpoints: Sequence[Endpoint] = (),
) -> Router:
    """Return an ASGI application.

    Args:
        endpoints: What it serves.
        limits: How large a body may be.
        guard: Looks at each request of an endpoint first, and may answer in its place.
        open_endpoints: What it serves without the guard.
    """
    served = [(one, guard) for one in endpoints] + [(one, None) for one in open_endpoints]
    # A router and endpoints that are ASGI applications: a `Starlette` and its functions put four more calls round each request.
    return Router(
        [Route(one.path, _Served(one.handler, limits, by), methods=[one.method]) for one, by in served],
        redirect_slashes=False,
    )


def json_reply(value: object, status: int = 200, headers: Headers = ()) -> Reply:
    """Return a reply with a value as JSON; infinity becomes null."""
    return Reply(status, msgspec.json.encode(value), JSON, headers)


def problem(status: int, title: str, detail: str) -> Reply:
    """Return a reply with problem details (RFC 9457)."""
    body = msgspec.json.encode({"title": title, "status": status, "detail": detail})
    return Reply(status, body, _PROBLEM, (("cache-control", "no-store"),))


def decode(body: bytes, kind: type[Any]) -> Any:  # noqa: ANN401 - of the kind that is asked for
    """Return a body that is JSON of a certain kind.

    Raises:
        InvalidInputError: If it is not.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"body: {error}"[:500]) from None


class _Served:
    """Serve one endpoint: an ASGI application. Starlette's `Request` and `Response` would take longer than the check itself."""

    def __init__(self, handler: Handler, limits: ServiceLimits, guard: Callable[[Call], Reply | None] | None) -> None:
        self._handler = handler
        self._max_bytes = limits.max_message_bytes
        self._body_seconds = limits.request_seconds
        self._take_seconds = limits.take_seconds
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = await self._answer(scope, receive)
        if reply.chunks is None:
            await send(_start(reply, (b"content-length", b"%d" % len(reply.body))))
            await send({"type": "http.response.body", "body": reply.body})
        else:
            await send_streamed(_start(reply), reply.chunks, self._take_seconds, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        if self._guard is not None:
            refused = self._guard(_call(scope))
            if refused is not None:
                return refused
        body = b""
        if scope["method"] not in {"GET", "HEAD"}:
            sent = await self._read(receive)
            if isinstance(sent, Reply):
                return sent
            body = sent
        try:
            return await self._handler(_call(scope, body))
        except InvalidInputError as error:
            return problem(400, "Bad request", str(error))
        except StorageUnavailableError as error:
            return problem(503, "Storage not available", str(error))

    async def _read(self, receive: Receive) -> bytes | Reply:
        body, more = b"", True
        try:
            async with asyncio.timeout(self._body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return problem(400, "Bad request", "The connection was closed before the end of the body.")
                    body += message.get("body", b"")
                    if len(body) > self._max_bytes:
                        return problem(413, "Too large", f"The body has more than {self._max_bytes} bytes.")
                    more = message.get("more_body", False)
        except TimeoutError:
            return problem(408, "Too slow", f"The body did not come within {self._body_seconds:g} seconds.")
        return body


def _call(scope: Scope, body: bytes = b"") -> Call:
    client = scope.get("client")
    return Call(
        scope["method"], scope["path"], scope["query_string"], body, client[0] if client else None, scope["headers"]
    )


def _start(reply: Reply, *fields: tuple[bytes, bytes]) -> Message:
    headers = [*fields, *[(name.encode(), value.encode("latin-1")) for name, value in reply.headers]]
    if reply.content_type:
        headers.append((b"content-type", reply.content_type.encode()))
    return {"type": "http.response.start", "status": reply.status, "headers": headers}
