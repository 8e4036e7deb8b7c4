"""Starlette, as far as the service uses it: routes whose handlers get a bounded body and return a reply."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.presentation.service.undecided import StorageUnavailableError
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
        header_lines: Returns the lines of a header field, whose name is in lower case, in their order.
    """

    method: str
    path: str
    query: bytes
    body: bytes
    peer: str | None
    header_lines: Callable[[str], list[str]]


class Chunks(Protocol):
    """The parts of a body that has no end yet."""

    async def next_chunk(self) -> bytes:
        """Return the next one as soon as there is one; empty: it was the last."""
        ...

    def close(self) -> None:
        """Let go of what they are made from. It is called once, whatever happens."""
        ...


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
    return Router([Route(one.path, _Served(one.handler, limits, by), methods=[one.method]) for one, by in served])


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
    """Serve one endpoint: an ASGI application."""

    def __init__(self, handler: Handler, limits: ServiceLimits, guard: Callable[[Call], Reply | None] | None) -> None:
        self._handler = handler
        self._max_bytes = limits.max_message_bytes
        self._body_seconds = limits.request_seconds
        self._take_seconds = limits.take_seconds
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self._guard is not None:
            refused = self._guard(_call(request, b""))
            if refused is not None:
                return self._response(refused)
        body = b""
        if request.method not in {"GET", "HEAD"}:
            sent = await self._read(request)
            if isinstance(sent, Reply):
                return self._response(sent)
            body = sent
        call = _call(request, body)
        try:
            return self._response(await self._handler(call))
        except InvalidInputError as error:
            return self._response(problem(400, "Bad request", str(error)))
        except StorageUnavailableError as error:
            return self._response(problem(503, "Storage not available", str(error)))

    def _response(self, reply: Reply) -> Response:
        headers = dict(reply.headers)
        if reply.content_type:
            headers["content-type"] = reply.content_type
        if reply.chunks is not None:
            return _Streamed(reply.chunks, self._take_seconds, reply.status, headers)
        return Response(reply.body, reply.status, headers)

    async def _read(self, request: Request) -> bytes | Reply:
        too_large = problem(413, "Too large", f"The body has more than {self._max_bytes} bytes.")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and len(declared) < 20 and int(declared) > self._max_bytes:  # noqa: PLR2004 - digits of a number
            return too_large
        body = b""
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._max_bytes:
                        return too_large
        except TimeoutError:
            return problem(408, "Too slow", f"The body did not come within {self._body_seconds:g} seconds.")
        except ClientDisconnect:
            return problem(400, "Bad request", "The connection was closed before the end of the body.")
        return body


def _call(request: Request, body: bytes) -> Call:
    scope, client = request.scope, request.client
    peer = client.host if client is not None else None
    return Call(scope["method"], scope["path"], scope["query_string"], body, peer, request.headers.getlist)


class _Streamed(Response):
    """A response that goes on until its chunks end, its client is gone, or takes nothing for a while."""

    def __init__(self, chunks: Chunks, take_seconds: float, status: int, headers: dict[str, str]) -> None:
        super().__init__(b"", status, headers)
        del self.headers["content-length"]
        self._chunks = chunks
        self._take_seconds = take_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - of ASGI
        try:
            sending = asyncio.ensure_future(self._send(send))
            leaving = asyncio.ensure_future(_disconnected(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                leaving.cancel()
                await asyncio.wait((sending, leaving))
        finally:
            self._chunks.close()
        error = None if sending.cancelled() else sending.exception()
        if error is not None and not isinstance(error, TimeoutError):
            raise error

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        more = True
        while more:
            chunk = await self._chunks.next_chunk()
            more = bool(chunk)
            async with asyncio.timeout(self._take_seconds):
                await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
