"""Frameworks copy routes with all that hangs on them: a copy shares what it copies from, its buckets above all."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from sluicegate import (
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RedisStorage,
    SharedMemoryStorage,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    WSGIRateLimitMiddleware,
)
from sluicegate.fastapi import rate_limit
from sluicegate.presentation.web.request_limiter import RequestLimiter
from support.asgi_calls import get


def _wsgi_app(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b""]


async def _asgi_app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("trip", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "make",
    [
        lambda _: RedisStorage.from_url("redis://127.0.0.1:1"),
        lambda _: SyncRedisStorage.from_url("redis://127.0.0.1:1"),
        lambda folder: SharedMemoryStorage(folder / "buckets", size_bytes=1 << 20),
        lambda _: RequestLimiter(scopes=["ip"]),
    ],
    ids=["redis", "sync redis", "shared memory", "requests"],
)
def test_a_copy_of_a_storage_elsewhere_shares_all(
    make: Callable[[Path], Any], trip: Callable[[Any], Any], tmp_path: Path
) -> None:
    """It has connections, threads and locks, which cannot be copied."""
    made = make(tmp_path)
    copied = trip(made)
    assert copied is made or (trip is copy.copy and vars(copied) == vars(made))
    assert copy.deepcopy({"route": made})["route"] is made
    if hasattr(made, "with_deadline"):
        other = made.with_deadline(0.001)
        assert other is not made
        assert (other.traits.deadline_s, made.traits.deadline_s) == (0.001, 0.05)


@pytest.mark.parametrize("trip", [copy.copy, copy.deepcopy])
async def test_a_copy_of_a_middleware_shares_its_buckets(trip: Callable[[Any], Any]) -> None:
    """What the one has counted, the other knows, whatever the framework."""
    rule = RateLimitRule(1, 0.001, "ip")
    asgi = RateLimitMiddleware(_asgi_app, limiter=TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": rule}))
    wsgi = WSGIRateLimitMiddleware(
        _wsgi_app, limiter=SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": rule})
    )
    statuses = [(await get(app)).status for app in (asgi, trip(asgi))]
    for app in (wsgi, trip([wsgi])[0]):
        app(
            {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"},
            lambda status, *_: statuses.append(int(status[:3])),
        )
    assert statuses == [200, 429, 200, 429]


@pytest.mark.parametrize("trip", [copy.copy, copy.deepcopy])
async def test_a_copy_of_a_dependency_shares_its_buckets(trip: Callable[[Any], Any]) -> None:
    """As of a route that Cadwyn copies for another version of an API."""
    dependency = rate_limit("1/hour", limiter=TokenBucketAdapter(storage=MemoryStorage(), rules={}))
    app = FastAPI()
    for path, depends in (("/a", dependency), ("/b", trip(dependency))):
        app.get(path, name="same", dependencies=[Depends(depends)])(lambda: 1)
    shared = rate_limit("1/hour", name="both", limiter=TokenBucketAdapter(storage=MemoryStorage(), rules={}))
    for path, depends in (("/c", shared), ("/d", trip(shared))):
        app.get(path, dependencies=[Depends(depends)])(lambda: 1)
    assert [(await get(app, path)).status for path in ("/a", "/a", "/b", "/c", "/d")] == [200, 429, 200, 200, 429]
