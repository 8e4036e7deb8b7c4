"""The page's own files. They are the same for everybody and hold no figures, so they need no token, as its questions do."""

from typing import Final

import msgspec

from sluicegate.presentation.pages.assets import (
    BASE_STYLES,
    CHART_LIBRARY,
    CHART_LICENCE,
    CHART_STYLES,
    CHARTS,
    read_asset,
    shared_asset,
)
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply
from sluicegate.presentation.web.headers import Headers

_OWN: Final = (
    "live.css",
    "live.js",
    "feed.js",
    "figures.js",
    "history.js",
    "actions.js",
    "rows.js",
    "words.js",
    "icon.svg",
)
_SHARED: Final = (BASE_STYLES, CHART_LIBRARY, CHART_STYLES, CHARTS, CHART_LICENCE)
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FIELDS: Final[Headers] = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


class PageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the page offers.

    Args:
        needs_token: Whether what it asks for needs the admin token.
        changes: Whether people may change something.
    """

    needs_token: bool
    changes: bool


def page_endpoints(options: PageOptions) -> list[Endpoint]:
    """Return the routes of the page's files."""
    package = "sluicegate.presentation.live"
    html = read_asset(package, "live.html")
    for name in ("needs_token", "changes"):
        html = html.replace(f"{{{{{name}}}}}", "yes" if getattr(options, name) else "no")
    texts = {name: read_asset(package, name) for name in _OWN} | {name: shared_asset(name) for name in _SHARED}
    return [
        _file("/", "html", html),
        *[_file(f"/{name}", name.rpartition(".")[2], text) for name, text in texts.items()],
    ]


def _file(path: str, kind: str, text: str) -> Endpoint:
    reply = Reply(200, text.encode(), _TYPES[kind], _FIELDS)

    async def serve(_: Call) -> Reply:
        return reply

    return Endpoint("GET", path, serve)
