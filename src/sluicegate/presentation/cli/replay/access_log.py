"""Parse one line of an access log: client, method, path and time. No input raises.

The formats are Apache's Common and Combined (nginx: `combined`). Everything after the size of the response is ignored, so
formats that append fields to Combined can be read too.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from urllib.parse import unquote

import msgspec

MAX_LINE_BYTES = 64 * 1024
"""The longest line that is parsed; with Apache's default limits a line has at most about half of this."""

_LINE = re.compile(
    # The user may contain spaces. The time is linear in the line all the same: after a date the match ends or fails at a
    # quotation mark, before the next date could begin.
    r"(?P<address>\S+) \S+ (?P<user>\S.*?) \[(?P<day>[0-9]{2}/[A-Za-z]{3}/[0-9]{4})"
    r":(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) (?P<offset>[+-][0-9]{4})\] "
    r'"(?P<request>[^"\\]*(?:\\.[^"\\]*)*)" (?:[0-9]{3}|-) (?:[0-9]+|-)(?!\S)'
)
_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110, section 5.6.2
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED = {"n": "%0A", "r": "%0D", "t": "%09", "v": "%0B", "b": "%08", "f": "%0C"}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}
_LAST_YEAR = 2099  # the limiter's clocks end at 2**52 microseconds, in the year 2112


class LoggedRequest(msgspec.Struct, frozen=True, gc=False):
    """The request of a line.

    Args:
        time_s: Its time in seconds since 1970.
        address: The client's address as written in the log.
        endpoint: Method and decoded path without the query: `GET /articles/1`.
    """

    time_s: int
    address: str
    endpoint: str


class MalformedLine(msgspec.Struct, frozen=True, gc=False):
    """A line without a readable request.

    Args:
        reason: What is wrong with it, for people.
    """

    reason: str


def parse_line(line: bytes) -> LoggedRequest | MalformedLine:
    r"""Parse a line.

    Args:
        line: Any bytes, with or without the line end. Bytes that are not UTF-8 are read as the escapes that a server writes
            for them (`\xhh`).
    """
    if len(line) > MAX_LINE_BYTES:
        return MalformedLine(f"longer than {MAX_LINE_BYTES} bytes")
    match = _LINE.match(line.decode("utf-8", "backslashreplace"))
    if match is None:
        return MalformedLine("not in Common or Combined format")
    address, user, day, hour, minute, second, offset, request = match.groups()
    if user.startswith("- "):
        # Debian's vhost_combined: its first field is the virtual host, which would be taken for the only client.
        return MalformedLine("a field too many before the time, as in vhost_combined")
    midnight_s = _midnight_s(day, offset)
    in_day_s = int(hour) * 3600 + int(minute) * 60 + int(second)
    if midnight_s is None or in_day_s > 86_400 or hour > "23" or minute > "59" or second > "60":  # noqa: PLR2004 - a leap second
        return MalformedLine(f"no such time from 1970 to {_LAST_YEAR}: {day}:{hour}:{minute}:{second} {offset}")
    endpoint = _endpoint(request)
    if endpoint is None:
        return MalformedLine(f"no method and path in the request {request[:80]!r}")
    return LoggedRequest(midnight_s + in_day_s, address, endpoint)


@lru_cache(maxsize=256)
def _midnight_s(day: str, offset: str) -> int | None:
    """Return the start of a day in seconds since 1970; None if there is no such day."""
    month = _MONTHS.get(day[3:6].capitalize())
    year = int(day[7:])
    if month is None or not 1970 <= year <= _LAST_YEAR:  # noqa: PLR2004 - stated in the message
        return None
    try:
        zone = timezone(timedelta(hours=int(offset[:3]), minutes=int(offset[0] + offset[3:])))
        midnight = datetime(year, month, int(day[:2]), tzinfo=zone)
    except ValueError:
        return None
    since_epoch_s = int((midnight - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return since_epoch_s if since_epoch_s >= 0 else None


@lru_cache(maxsize=4096)
def _endpoint(request: str) -> str | None:
    """Return method and path, decoded as ASGI servers decode it; None if the request has no method or path."""
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not target or not protocol.startswith("HTTP/"):
        target = rest  # HTTP/0.9 has no protocol field
    if not target or _METHOD.fullmatch(method) is None:
        return None
    absolute = _ABSOLUTE.match(target)  # an absolute URL, as sent to a proxy
    if absolute is not None:
        target = target[absolute.end() :] or "/"
    path = target.partition("?")[0].partition("#")[0]
    if "\\" in path:
        path = _ESCAPE.sub(_percent, path)
    if "%" in path:
        path = unquote(path)
    return f"{method} {path}" if path else None


def _percent(escape: re.Match[str]) -> str:
    """Return a log's escape as a percent escape, so that one decoding handles both."""
    byte, character = escape.groups()
    if byte is not None:
        return f"%{byte}"
    return _ESCAPED.get(character, character)
