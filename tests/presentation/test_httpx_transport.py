"""Requests of an httpx client keep to a rate."""

import asyncio
from typing import Any

import httpx
import pytest

from sluicegate import InvalidInputError, MemoryStorage, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.httpx import RateLimitTimeout, RateLimitTransport


def client(*rules: str, **options: float) -> httpx.AsyncClient:
    """Return a client whose requests are answered in place."""
    inner = httpx.MockTransport(lambda request: httpx.Response(200, text=request.url.host))
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={})
    return httpx.AsyncClient(transport=RateLimitTransport(*rules, transport=inner, limiter=limiter, **options))


async def test_requests_wait_for_their_turn() -> None:
    """Five requests at 50 a second take at least 80 ms, each host apart from the others."""
    loop = asyncio.get_running_loop()
    async with client("50/second burst 1") as http:
        started = loop.time()
        answers = await asyncio.gather(
            *(http.get("http://a.example/") for _ in range(5)), *(http.get("http://b.example/") for _ in range(5))
        )
    assert loop.time() - started >= 0.079
    assert [answer.text for answer in answers] == ["a.example"] * 5 + ["b.example"] * 5


async def test_a_turn_that_would_come_too_late() -> None:
    """A request that cannot be sent in time is not sent, and raises one of httpx's timeouts."""
    async with client("1/minute", timeout_s=0.5) as http:
        await http.get("http://a.example/")
        with pytest.raises(httpx.TimeoutException) as caught:
            await http.get("http://a.example/")
    assert isinstance(caught.value, RateLimitTimeout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": SyncTokenBucketAdapter(storage=MemoryStorage(), rules={})}, "limiter=.*: expected a TokenBucket"),
        ({"timeout_s": "5"}, "timeout_s='5': expected seconds"),
        ({"timeout_s": -1}, "timeout_s=-1: expected 0 or more"),
        ({"identifier": "host"}, "identifier='host': expected a function"),
        ({"transport": httpx.AsyncClient()}, "transport=.*: expected an httpx.AsyncBaseTransport"),
        ({"name": 5}, "name=5: expected a string"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    """When the transport is made, not by its first request."""
    with pytest.raises(InvalidInputError, match=message):
        RateLimitTransport("1/second", **options)
