"""Read Apache's and nginx's Common and Combined formats, and what people put in front of them and behind.

In front: the virtual host (Debian's `vhost_combined`), `X-Forwarded-For`, or both that and the peer. Behind: any fields; a
first quoted one after the agent is nginx's `"$http_x_forwarded_for"`.
"""

import re
from functools import lru_cache

from sluicegate.presentation.cli.replay.formats.client_field import is_address
from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_UNKNOWN,
    LoggedRequest,
    MalformedLine,
    ReaderOptions,
)
from sluicegate.presentation.cli.replay.formats.request_line import agent_kind, read_request
from sluicegate.presentation.cli.replay.formats.timestamps import LAST_YEAR, clf_time_us

_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_LINE = re.compile(
    # The user may contain spaces. The time is linear in the line all the same: after a date the match ends or fails at a
    # quotation mark, before the next date could begin.
    r"(\S.*?) \[([0-9]{2}/[A-Za-z]{3}/[0-9]{4}):([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-][0-9]{4})\] "
    rf"{_QUOTED} ([0-9]{{3}}|-) (?:[0-9]+|-)(?: {_QUOTED} {_QUOTED}(?: {_QUOTED})?)?(?!\S)"
)
IDENTITY_FIELDS = ("user", "host", "referer")
"""What identities may come from, besides the address."""

_NOT_THIS = MalformedLine("not in Common or Combined format")
_TOO_FEW = "expected the client, an identity and a user before the time"
_HOST_IN_FRONT = "a field too many before the time, as in vhost_combined"
_MAX_HEADS = 65_536
_LONGEST_CACHED = 256


class CombinedReader:
    """Read lines in Common or Combined format.

    Args:
        options: Identities may come from `IDENTITY_FIELDS`.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._clients = options.clients
        self._identify = tuple(options.identify.values())
        self._head = lru_cache(maxsize=_MAX_HEADS)(self._read_head)

    def read(self, text: str) -> LoggedRequest | MalformedLine:
        """Read a line."""
        match = _LINE.match(text)
        if match is None:
            return _NOT_THIS
        head, day, hour, minute, second, offset, request, status, referer, agent, forwarded = match.groups()
        found = self._head(head) if len(head) <= _LONGEST_CACHED else self._read_head(head)
        if isinstance(found, MalformedLine):
            return found
        client, user, host = found
        if forwarded and forwarded != "-":
            client = self._clients.client(client, forwarded) or client
        time_us = clf_time_us(day, hour, minute, second, offset)
        if time_us is None:
            return MalformedLine(f"no such time from 1970 to {LAST_YEAR}: {day}:{hour}:{minute}:{second} {offset}")
        target = read_request(request)
        if target is None:
            return MalformedLine(f"no method and path in the request {request[:80]!r}")
        return LoggedRequest(
            time_us,
            client,
            target[0],
            target[1],
            0 if status == "-" else int(status),
            AGENT_UNKNOWN if agent is None else agent_kind(agent),
            self._names(user, host, referer or "") if self._identify else (),
        )

    def _names(self, user: str, host: str, referer: str) -> tuple[str, ...]:
        known = {"user": user, "host": host, "referer": referer}
        return tuple("" if known[field] == "-" else known[field] for field in self._identify)

    def _read_head(self, head: str) -> tuple[str, str, str] | MalformedLine:
        """Return client, user and virtual host from what stands before the time."""
        first, rest = _first_field(head)
        host = peer = ""
        if rest and is_address(rest[0]):  # one more field in front of the peer's address
            peer, rest = rest[0], rest[1:]
            if not _is_list_of_addresses(first):
                host, first = first, ""
        elif rest[1:] and rest[1] == "-" and ":" in first and not is_address(first):
            host, first, rest = first, rest[0], rest[1:]  # a virtual host with its port, and a client that has a name
        client = self._clients.client(peer, first) if peer else self._clients.client(first)
        if len(rest) < 2:  # noqa: PLR2004 - identity and user
            return MalformedLine(_TOO_FEW)
        if len(rest) > 2 and rest[1] == "-":  # noqa: PLR2004 - a user is not named `- something`
            return MalformedLine(_HOST_IN_FRONT)
        if client is None:
            return MalformedLine("no client's address")
        return client, " ".join(rest[1:]), host


def _first_field(head: str) -> tuple[str, list[str]]:
    """Split off the first field: a word, a quoted text, or a list whose hops end in commas."""
    if head.startswith('"'):
        first, _, rest = head[1:].partition('"')
        return first, rest.split()
    words = head.split(" ")
    end = 1
    while words[end - 1].endswith(",") and end < len(words):
        end += 1
    return " ".join(words[:end]), words[end:]


def _is_list_of_addresses(field: str) -> bool:
    """Return whether a field in front of the peer is `X-Forwarded-For`, and not a virtual host, which has a port."""
    if "," in field:
        return True
    return field == "-" or (is_address(field) and (field.count(":") != 1))
