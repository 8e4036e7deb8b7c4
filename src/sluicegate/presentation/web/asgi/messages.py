"""ASGI's scopes and messages, as far as the middleware reads and writes them (asgi.readthedocs.io, HTTP and websocket 2.5)."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias, cast

from sluicegate.presentation.web.body_end import BodyEnd
from sluicegate.presentation.web.headers import DenialResponse, Headers
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.request_claims import RequestClaims
from sluicegate.presentation.web.request_record import RECORD, RequestRecord, is_list, record_in

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
TypedASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
"""An application of a framework that has types of its own for scopes and messages, as Litestar and Quart have."""

_WEBSOCKET = "WEBSOCKET"
_SWITCHING = 101  # what a websocket that is accepted is answered with
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class ASGIRequest(IncomingRequest):
    """A request or a websocket handshake.

    Args:
        scope: The connection's scope, of type `http` or `websocket`.
        subject: What functions of the application get; None: the scope.
        parameters: The path's parameters, where the framework tells them.
        root_path: The root path, where the application has its own; None: the scope's.
        notes: The scope, if decisions are noted there.
        view: What will answer, where the framework tells it.
    """

    __slots__ = ("_facts", "_headers", "_root_path", "_whole_path")

    def __init__(  # noqa: PLR0913 - what is known beside the scope
        self,
        scope: Scope,
        subject: object = None,
        parameters: Mapping[str, object] | None = None,
        root_path: str | None = None,
        *,
        notes: Scope | None = None,
        view: object = None,
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
            notes,
            view,
        )
        self._headers: Any = facts["headers"]
        self._root_path = root
        self._facts = facts
        self._whole_path = whole  # a router may put another path into the scope

    def is_settled(self) -> bool:
        """Return whether a middleware outside sees the answer."""
        record: RequestRecord | None = self._facts.get(RECORD)
        return record is not None and record.is_settled

    def offer(self, budget: object) -> None:
        """Put it into `request.state`, as `rate_limit`."""
        if self.notes is not None:
            self.notes.setdefault("state", {})["rate_limit"] = budget

    def root_path(self) -> str:
        """Return the scope's root path, or the application's own."""
        return self._root_path

    def whole_path(self) -> str:
        """Return the scope's path."""
        return self._whole_path

    def raw_path(self) -> bytes | None:
        """Return the scope's raw path, which not every server has."""
        raw: bytes | None = self._facts.get("raw_path")
        return raw

    def header_lines(self, name: str) -> list[str]:
        """Return the lines of a header field in their order."""
        wanted = name.encode()
        return [value.decode("latin-1") for field, value in self._headers if field == wanted]


class HeaderSend:
    """A `send` that adds header fields to a response. A field that the response has already stays as it is.

    Args:
        send: The server's.
        fields: What to add.
    """

    __slots__ = ("_fields", "_send", "started")

    def __init__(self, send: Send, fields: Headers) -> None:
        self._send = send
        self._fields = fields
        self.started = False
        """Whether the response has begun."""

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message, and return what the server's `send` returned: there is nothing else to await."""
        if message["type"] not in _STARTS:
            return self._send(message)
        self.started = True
        return self._send(with_fields(message, self._fields, joining=False))


class QuotaSend:
    """A `send` that tells the client what limiters have decided about its request, this side of the server or further inside.

    `RateLimit` and `RateLimit-Policy`, which are lists, are added to those of the response; other fields only if it has none.
    What is claimed for the request is settled before the client has the whole answer, as far as it is known then.

    Args:
        send: The server's.
        record: What they have decided.
        method: The request's method; of a websocket, `GET`.
    """

    __slots__ = ("_end", "_method", "_record", "_send", "started")

    def __init__(self, send: Send, record: RequestRecord, method: str) -> None:
        self._send = send
        self._record = record
        self._method = method
        self._end: BodyEnd | None = None
        self.started = False
        """Whether the response has begun."""
        record.is_told = record.is_settled = True

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message, and return what the server's `send` returned, unless something is to be settled first."""
        record = self._record
        claims = record.claims
        if message["type"] in _STARTS:
            self.started = True
            fields = record.fields_to_send()
            if fields:
                message = with_fields(message, fields, joining=True)
            if claims is None:
                return self._send(message)
            lines = field_texts(message)
            status = message.get("status", _SWITCHING)
            claims.answered(status, lines)
            if message["type"] == "http.response.start":
                self._end = BodyEnd(self._method, status, lines)
            message = without_fields(message, claims.private)
        if claims is None or not self._is_last(message):
            return self._send(message)
        return self._settle_and_send(claims, message)

    def _is_last(self, message: Message) -> bool:
        """Return whether the client has the whole answer with a message."""
        kind = message["type"]
        if kind == "http.response.body":
            ended = self._end is not None and self._end.comes_with(len(message.get("body", b"")))
            return ended or not message.get("more_body", False)
        if kind == "http.response.start":
            return self._end is not None and self._end.comes_with(0)
        return bool(kind == "websocket.close")

    async def _settle_and_send(self, claims: RequestClaims, message: Message) -> None:
        await claims.settle_known()
        await self._send(message)


def field_texts(message: Message) -> list[tuple[str, str]]:
    """Return the header fields of a message that starts a response, their names in lower case."""
    lines: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    return [(bytes(name).lower().decode("latin-1"), bytes(value).decode("latin-1")) for name, value in lines]


def without_fields(message: Message, names: AbstractSet[str]) -> Message:
    """Return a message that starts a response without the header fields of some names, which are in lower case."""
    if not names:
        return message
    lines: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    start: dict[str, Any] = dict(message)
    start["headers"] = [line for line in lines if bytes(line[0]).lower().decode("latin-1") not in names]
    return start


def with_fields(message: Message, fields: Headers, *, joining: bool) -> dict[str, Any]:
    """Return a copy of the message that starts a response, with header fields: an application may send the same one again.

    Args:
        message: The message.
        fields: What to add, if the response has no such field.
        joining: Whether fields that are lists are added even so.
    """
    start: dict[str, Any] = message.copy() if isinstance(message, dict) else dict(message)
    headers: list[tuple[bytes, bytes]] = list(start.get("headers") or ())
    start["headers"] = headers
    if_absent: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        (headers if joining and is_list(name) else if_absent).append((name.encode(), value.encode()))
    if if_absent:
        present = {bytes(name).lower() for name, _ in headers}
        for field in if_absent:
            if field[0] not in present:
                headers.append(field)
                present.add(field[0])
    return start


def record_of(scope: Scope) -> RequestRecord:
    """Return what limiters have decided about a request so far."""
    return record_in(scope)


def without_root(path: str, root: str) -> str:
    """Return the path that Starlette's router matches: without the root path, if it begins with that."""
    if path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        return path[len(root) :]
    return path


def view_of(scope: Scope) -> object:
    """Return the view that the router of a Starlette application will call; None where that is not known.

    Only asked where views are exempt: it matches the routes one after the other, as the router does afterwards.
    """
    routes: Any = getattr(scope.get("app"), "routes", None)
    asked = dict(scope)
    included: Any = None
    while routes:
        for route in routes:
            matches: Any = getattr(route, "matches", None)
            found: Any = matches(asked) if matches is not None else None
            if found is not None and found[0].name == "FULL":
                asked.update(found[1])
                included = getattr(route, "effective_candidates", None)  # of a router that FastAPI keeps as one route
                break
        else:
            return None
        routes = getattr(asked.get("endpoint"), "routes", None) if included is None else included()
    return asked.get("endpoint")


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
