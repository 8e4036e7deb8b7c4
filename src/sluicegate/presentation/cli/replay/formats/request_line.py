"""Read what a client asked for: method and decoded path; and who it says it is."""

import re
from functools import lru_cache
from urllib.parse import unquote

from sluicegate.presentation.cli.replay.formats.record import AGENT_NONE, AGENT_OTHER, AGENT_ROBOT

# A token of RFC 9110, section 5.6.2, that begins with a letter: load balancers write `-` for a request that they could not read.
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED = {"n": "%0A", "r": "%0D", "t": "%09", "v": "%0B", "b": "%08", "f": "%0C"}
_ROBOT = re.compile(
    r"bot\b|bot[/_-]|crawl|spider|slurp|scrap|archiver|fetch|monitor|uptime|pingdom|facebookexternalhit|feed|rss|reader|preview|"
    r"curl/|wget/|python|aiohttp|httpx|okhttp|go-http-client|java/|libwww|perl|ruby|php|node-fetch|axios|scrapy|"
    r"headless|phantomjs|zgrab|masscan|nmap|nikto|sqlmap|https?://",
    re.IGNORECASE,
)
_MAX_CACHED = 65_536
_LONGEST_CACHED = 512  # characters: what a client sends may be of any length


def read_request(request: str) -> tuple[str, str] | None:
    r"""Return method and path of a request line such as `GET /a?b HTTP/1.1`; None if it has no method or path.

    Args:
        request: The line as logged. Escapes of the log (`\xhh`) and of the URL are decoded, as ASGI servers decode them.
    """
    return _read_cached(request) if len(request) <= _LONGEST_CACHED else _read_cached.__wrapped__(request)


def read_target(method: str, target: str) -> tuple[str, str] | None:
    """Return method and path where the log has them in two fields; None if one is none."""
    return read_request(f"{method} {target} HTTP/1.1") if target and " " not in method else None


@lru_cache(maxsize=_MAX_CACHED)
def _read_cached(request: str) -> tuple[str, str] | None:
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
    return (method, path) if path else None


def _percent(escape: re.Match[str]) -> str:
    """Return a log's escape as a percent escape, so that one decoding handles both."""
    byte, character = escape.groups()
    if byte is not None:
        return f"%{byte}"
    return _ESCAPED.get(character, character)


def agent_kind(agent: str) -> int:
    """Return what a user agent says of itself: `AGENT_NONE`, `AGENT_ROBOT` or `AGENT_OTHER`.

    Crawlers name themselves and give an address to complain at; programs are named after their library.
    """
    return _kind_cached(agent) if len(agent) <= _LONGEST_CACHED else _kind_cached.__wrapped__(agent)


@lru_cache(maxsize=_MAX_CACHED)
def _kind_cached(agent: str) -> int:
    if agent in {"", "-"}:
        return AGENT_NONE
    return AGENT_ROBOT if _ROBOT.search(agent) else AGENT_OTHER
