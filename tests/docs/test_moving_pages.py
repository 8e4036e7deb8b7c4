"""The pages on moving from other libraries: the old calls and ours are both run, and answer the same requests as the page says.

A comment above the old code has the requests and the statuses: `<!-- pair: GET /a, GET /a (X-Key: ann): 200 429 -->`; where the
old library answers otherwise, `: 200 403 -> 200 429`. The Python block after it is the old code, the next one is ours.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from django.core.cache import cache
from django.test import Client, override_settings
from flask import Flask

from sluicegate import container
from support.django_project import Routes
from support.pages import MOVING_PAGES

LIBRARIES = ("slowapi", "flask_limiter", "fastapi_limiter", "django_ratelimit")
_PAIR = re.compile(
    r"<!-- pair: (.+?): ([\d ]+)(?:-> ([\d ]+))?-->\n```python\n(.*?)```\n.*?```python\n(.*?)```\n", re.DOTALL
)
_REQUEST = re.compile(r"(\w+) ([^\s,]+)(?: \(([\w-]+): (\w+)\))?")


class Pair(NamedTuple):
    """An old call and ours.

    Args:
        page: The page.
        line: How many lines of the page stand before ours.
        requests: Method, path, and a header's name and value or two empty texts, of each request.
        old: The old code.
        old_statuses: What it answers.
        new: Our code.
        new_statuses: What it answers.
    """

    page: Path
    line: int
    requests: list[tuple[str, str, str, str]]
    old: str
    old_statuses: list[int]
    new: str
    new_statuses: list[int]


def _pairs() -> Iterator[Pair]:
    for page in MOVING_PAGES:
        text = page.read_text()
        for found in _PAIR.finditer(text):
            requests, old, new = found[1], [int(one) for one in found[2].split()], (found[3] or found[2]).split()
            yield Pair(
                page,
                text[: found.start(5)].count("\n"),
                _REQUEST.findall(requests),
                found[4],
                old,
                found[5],
                [int(one) for one in new],
            )


PAIRS = list(_pairs())
_id = [f"{pair.page.stem}:{pair.line}" for pair in PAIRS]


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    """Begin each half of a pair with full buckets."""
    for cached in (container.get_rate_limit, container.get_sync_rate_limit):
        cached.cache_clear()
    cache.clear()
    yield
    for cached in (container.get_rate_limit, container.get_sync_rate_limit):
        cached.cache_clear()


def _answers(code: str, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Run a block, send the requests to the application that it makes, and return the statuses."""
    namespace: dict[str, Any] = {"__name__": "moving"}
    monkeypatch.setitem(sys.modules, "moving", type(sys)("moving"))
    exec(compile(code, str(pair.page), "exec"), namespace)  # noqa: S102 - our own pages
    app = namespace.get("app")
    if isinstance(app, Flask):
        visitor = app.test_client()
        return [
            visitor.open(path, method=method, headers={name: value} if name else {}).status_code
            for method, path, name, value in pair.requests
        ]
    if app is not None:
        return asyncio.run(_asgi_answers(app, pair))
    options = {
        "SLUICEGATE": namespace.get("SLUICEGATE", {"rules": {}}),
        "ROOT_URLCONF": Routes(*namespace["urlpatterns"]),
    }
    with override_settings(**options):
        django = Client()
        return [
            django.generic(method, path, headers={name: value} if name else {}).status_code
            for method, path, name, value in pair.requests
        ]


async def _asgi_answers(app: Any, pair: Pair) -> list[int]:
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 50_000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        return [
            (await client.request(method, path, headers={name: value} if name else {})).status_code
            for method, path, name, value in pair.requests
        ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of theirs
@pytest.mark.parametrize("pair", PAIRS, ids=_id)
def test_the_old_call_answers_as_the_page_says(
    pair: Pair, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the page would compare ours with something that nobody has."""
    for library in LIBRARIES:
        if library in pair.old:
            pytest.importorskip(library, reason=f"{library} is not installed")
    code = pair.old
    if "redis://localhost:6379" in code:
        code = code.replace("redis://localhost:6379", request.getfixturevalue("redis_server").url)
    assert _answers(code, pair, monkeypatch) == pair.old_statuses


@pytest.mark.parametrize("pair", PAIRS, ids=_id)
def test_our_call_answers_as_the_page_says(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests, and the same statuses unless the page says otherwise."""
    assert _answers(pair.new, pair, monkeypatch) == pair.new_statuses


def test_each_library_has_a_page_with_pairs() -> None:
    """None is left out, and no comment is misread."""
    assert len({pair.page for pair in PAIRS}) == len(MOVING_PAGES) == 5
    assert sum(page.read_text().count("<!-- pair") for page in MOVING_PAGES) == len(PAIRS)
