"""The live page in an application: it shows this process, and changes nothing unless it may."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sluicegate import InlineEventBus, InvalidTypeError, MemoryStorage, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.live import live_page

LOGIN = {"endpoint": "POST /login", "identifier": "ann"}
RULES = {"POST /login": RateLimitRule.per_minute(2, scope="user")}


class Site:
    """An application with the page at `/ops/limits`."""

    def __init__(self, **options: Any) -> None:
        bus = InlineEventBus()
        self.limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=RULES, event_bus=bus)
        self.app = Starlette(routes=[Mount("/ops/limits", live_page(self.limiter, bus, **options))])

    def client(self) -> httpx.AsyncClient:
        """Return a client for it."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://site")


async def test_the_page_and_its_figures_are_below_the_mount() -> None:
    """Everything is asked for relative to where it is."""
    site = Site()
    for _ in range(3):
        await site.limiter.is_allowed(**LOGIN)
    async with site.client() as client:
        assert (await client.get("/ops/limits")).headers["location"].endswith("/ops/limits/")
        page = (await client.get("/ops/limits/")).text
        assert 'data-needs-token="no" data-changes="no"' in page
        assert not [part for part in page.split('"') if part.startswith(("/", "http"))]
        assert (await client.get("/ops/limits/live.js")).headers["content-type"].startswith("text/javascript")
        figures = (await client.get("/ops/limits/v1/live")).json()
        assert (figures["traffic"]["allowed"], figures["traffic"]["denied"], figures["hot"]) == (2, 1, None)
        told = (await client.post("/ops/limits/v1/explain", json=LOGIN)).json()
        assert told["denied_by"] == ["user-2-60s"]


async def test_it_changes_nothing_unless_it_may() -> None:
    """The routes are not there."""
    site = Site()
    async with site.client() as client:
        for path in ("reset", "switch-off", "switch-on", "reload", "override"):
            assert (await client.post(f"/ops/limits/v1/{path}", json=LOGIN)).status_code == 404
    assert site.limiter.rules.switched_off == ()


async def test_where_it_may_it_fills_buckets_and_throws_switches() -> None:
    """And nothing more."""
    site = Site(changes=True)
    await site.limiter.is_allowed(**LOGIN)
    async with site.client() as client:
        assert 'data-changes="yes"' in (await client.get("/ops/limits/")).text
        assert (await client.post("/ops/limits/v1/reset", json=LOGIN)).json()["done"]
        assert (await site.limiter.get_remaining(**LOGIN)).value == 2  # type: ignore[union-attr]
        assert (await client.post("/ops/limits/v1/switch-off", json={"reason": "x"})).json()["done"]
        assert len(site.limiter.rules.switched_off) == 1
        assert (await client.post("/ops/limits/v1/switch-on", json={})).json()["done"]
        assert (await client.post("/ops/limits/v1/override", json={})).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
        {"content-type": "application/json", "sec-fetch-site": "cross-site"},
        {"content-type": "application/json", "sec-fetch-site": "same-site"},
    ],
)
async def test_another_site_cannot_make_a_signed_in_browser_change_something(headers: dict[str, str]) -> None:
    """What a form or a simple request can send is refused, whoever is signed in."""
    site = Site(changes=True)
    async with site.client() as client:
        answer = await client.post("/ops/limits/v1/switch-off", content=b"{}", headers=headers)
        assert answer.status_code == 403
    assert site.limiter.rules.switched_off == ()


def test_another_kind_of_limiter_is_refused() -> None:
    """By its name."""
    limiter: Any = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES)
    with pytest.raises(InvalidTypeError, match="expected a TokenBucketAdapter"):
        live_page(limiter, InlineEventBus())
