"""Read requests from records whose fields have names: JSON objects, CSV rows.

A role, such as `client`, is looked for under the names that common servers give it; where a record has none of them, the
reason names them. What was found last is tried first.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_UNKNOWN,
    LoggedRequest,
    MalformedLine,
    ReaderOptions,
)
from sluicegate.presentation.cli.replay.formats.request_line import agent_kind, read_request, read_target
from sluicegate.presentation.cli.replay.formats.timestamps import any_time_us

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    # Traefik's StartUTC, Caddy's ts, nginx's variables, then what people choose themselves
    "time": ("StartUTC", "ts", "time_iso8601", "msec", "time_local", "@timestamp", "timestamp", "time", "datetime", "date"),
    "client": (
        "request.client_ip", "request.remote_ip", "request.remote_addr", "ClientHost", "ClientAddr", "remote_addr",
        "client_ip", "clientip", "client", "remote_ip", "ip", "address", "c-ip",
    ),
    "forwarded": (
        "request.headers.X-Forwarded-For", "request_X-Forwarded-For", "http_x_forwarded_for", "x_forwarded_for",
        "X-Forwarded-For", "forwarded",
    ),
    "method": ("request.method", "RequestMethod", "request_method", "method", "http_method", "verb"),
    "path": ("request.uri", "RequestPath", "request_uri", "uri", "path", "url", "endpoint"),
    "request": ("request", "request_line"),
    "status": ("status", "DownstreamStatus", "status_code", "response", "response_code", "code"),
    "agent": (
        "request.headers.User-Agent", "request_User-Agent", "http_user_agent", "user_agent", "useragent", "agent",
        "User-Agent",
    ),
}  # fmt: skip
"""The roles, and where each is looked for. A dot leads into an object; of a list the first element counts."""


class RecordReader:
    """Turn a record into a request.

    Args:
        options: Where the fields are, and which of them identify the client by other scopes.
        get: Returns the value of a record at a name; None if it has none.

    Raises:
        InvalidInputError: If `options.fields` names an unknown role.
    """

    def __init__(self, options: ReaderOptions, get: Callable[[object, str], object]) -> None:
        for role in options.fields:
            if role not in ROLES:
                raise InvalidInputError(f"field={role!r}: expected one of {', '.join(ROLES)}")
        self._get = get
        self._clients = options.clients
        self._identify = tuple(options.identify.values())
        self._places = {
            role: [options.fields[role]] if role in options.fields else list(usual) for role, usual in ROLES.items()
        }

    def read(self, record: object) -> LoggedRequest | MalformedLine:
        """Read a record."""
        time_us = any_time_us(self._find(record, "time"))
        if time_us is None:
            return self._missing("time")
        peer = _text(self._find(record, "client"))
        client = self._clients.client(peer, _text(self._find(record, "forwarded")))
        if client is None:
            return self._missing("client's address")
        target = self._target(record)
        if target is None:
            return self._missing("method and path")
        return LoggedRequest(
            time_us,
            client,
            *target,
            _status(self._find(record, "status")),
            self._agent(record),
            tuple(_text(self._get(record, field)) for field in self._identify),
        )

    def _target(self, record: object) -> tuple[str, str] | None:
        method, path = self._find(record, "method"), self._find(record, "path")
        if isinstance(method, str) and isinstance(path, str):
            return read_target(method, path)
        request = self._find(record, "request")
        return read_request(request) if isinstance(request, str) else None

    def _agent(self, record: object) -> int:
        agent = self._find(record, "agent")
        return agent_kind(agent) if isinstance(agent, str) else AGENT_UNKNOWN

    def _find(self, record: object, role: str) -> object:
        places = self._places[role]
        for index, place in enumerate(places):
            value = self._get(record, place)
            if value is not None and not isinstance(value, dict):
                if index:
                    places.insert(0, places.pop(index))
                return value
        return None

    def _missing(self, what: str) -> MalformedLine:
        role = {"client's address": "client", "method and path": "path"}.get(what, what)
        return MalformedLine(f"no {what}; looked for it in {', '.join(sorted(self._places[role]))}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return "" if value == "-" else value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _status(value: object) -> int:
    text = _text(value)
    return int(text) if len(text) == 3 and text.isdecimal() else 0  # noqa: PLR2004 - digits of a status
