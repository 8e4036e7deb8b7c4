"""Whatever Litestar serves is counted under the rule of the route that it took, and under no other."""

import asyncio
import re
from typing import Any

import litestar
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar.handlers import asgi
from litestar.response import Response

from sluicegate import RateLimitMiddleware, RateLimitRule
from support.asgi_calls import http_scope, send_scope

_WORDS = ("a", "b", "special", "3", "a-b", "A")
_CONVERTERS = ("str", "int", "float", "uuid", "date", "decimal", "path")
_SEGMENTS = st.one_of(st.sampled_from(_WORDS), st.sampled_from([f"{{p:{one}}}" for one in _CONVERTERS]))
_UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
_VALUES = (
    *_WORDS,
    "",
    "-3",
    "1_0",
    "3.0",
    "nan",
    "2026-01-02",
    "special;x",
    " ",
    "..",
    ".",
    "é",
    "%41",
    "b\n",
    _UUID,
    _UUID.upper(),
)


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Return a route's template: parameters have different names, and `path` stands last."""
    segments = draw(st.lists(_SEGMENTS, max_size=3))
    named = [one.replace("p:", f"p{place}:") for place, one in enumerate(segments)]
    for place, one in enumerate(named):
        if one.endswith(":path}"):
            return "/" + "/".join(named[: place + 1])
    return "/" + "/".join(named) + draw(st.sampled_from(("", "/"))) * bool(named)


def rule_path(template: str) -> str:
    """Return a template as rules write it."""
    return re.sub(r":(date|decimal|str)\}", "}", template)


def served(name: str, template: str) -> Any:
    """Return a handler that answers with its name."""

    @litestar.get(template, name=name, sync_to_thread=False)
    def serve() -> Response[str]:
        return Response(f"served:{name}", media_type="text/plain")

    return serve


def mounted(path: str) -> Any:
    """Return a mount of an application that serves whatever it gets."""

    @asgi(path, is_mount=True, copy_scope=True)
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served:mount"})

    return serve


@st.composite
def applications(draw: st.DrawFn) -> tuple[Any, dict[str, RateLimitRule], str]:
    """Return an application behind the middleware, and the templates of its routes."""
    found = draw(
        st.lists(
            templates(), min_size=1, max_size=5, unique_by=lambda one: re.sub(r"p\d:(?!path)\w+", "", one).rstrip("/")
        )
    )
    mount = draw(st.sampled_from(("", "", "/m")))
    handlers = [served(f"r{place}", template) for place, template in enumerate(found)]
    names = {f"GET {rule_path(template)}": f"r{place}" for place, template in enumerate(found)}
    if mount:
        handlers.append(mounted(mount))
        names[f"GET {mount}/{{rest:path}}"] = "mount"
        names[f"GET {mount}"] = "mount"
    ordered = draw(st.permutations(list(names.items())))
    rules = {endpoint: RateLimitRule(9, 9, "ip", name=name) for endpoint, name in ordered}
    try:
        app = litestar.Litestar(handlers, openapi_config=None)
    except litestar.exceptions.ImproperlyConfiguredException:
        app = litestar.Litestar([], openapi_config=None)
    return app, rules, mount


_PATHS = st.lists(
    st.sampled_from(("/", "//", "/m", "/mx", *[f"/{one}" for one in _VALUES])), min_size=1, max_size=5
).map("".join)


@settings(max_examples=200, deadline=None, database=None)
@given(applications(), st.lists(_PATHS, min_size=1, max_size=8), st.sampled_from(("", "/root")))
def test_what_litestar_serves_is_counted_exactly(application: Any, paths: list[str], root: str) -> None:
    """In any order of the rules, with any spelling of a path, below a root path, beside a mount."""
    app, rules, _ = application
    limited = RateLimitMiddleware(app, rules=rules)

    async def ask() -> None:
        for path in paths:
            scope = http_scope("GET", root + path, root_path=root, headers=[("host", "a.example")])
            answer = await send_scope(limited, scope)
            if answer.status != 200:
                continue
            name = answer.body.decode().removeprefix("served:")
            counted = re.findall(r'"(\w+)";q=', answer.headers.get("ratelimit-policy", ""))
            if name == "mount":  # what is mounted may read the rest in any way
                assert name in counted, (path, counted)
            else:
                assert counted == [name], (path, name, counted)

    asyncio.run(ask())
