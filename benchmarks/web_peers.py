"""A FastAPI application, alone and behind each limiter, called as a server calls it but without a network."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import redis.asyncio
import throttled.asyncio
import throttled.asyncio.contrib.fastapi
from fastapi import Depends, FastAPI, Request
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Limiter, Rate, RedisStateStore, SingleBucketFactory, StateBucket, TokenBucket
from slowapi import Limiter as SlowLimiter
from slowapi.middleware import SlowAPIASGIMiddleware, SlowAPIMiddleware
from slowapi.util import get_remote_address

from memory_peers import rule
from rounds import Check
from sluicegate import MemoryStorage, RateLimitMiddleware, RedisStorage, StorageProtocol, TokenBucketAdapter
from sluicegate.presentation.web.headers import HeaderStyle

_MILLION = 10**6
_HOUR_MS = 3_600_000
_PATH = "/items/{item_id}"
_ROUTE = f"GET {_PATH}"

Message = MutableMapping[str, Any]


def alone() -> FastAPI:
    """Return the application without a limiter."""
    app = FastAPI()

    @app.get(_PATH)
    async def item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    return app


def ours(url: str = "", headers: HeaderStyle = "draft-11") -> FastAPI:
    """Return it behind our middleware."""
    storage: StorageProtocol = RedisStorage.from_url(url, deadline_ms=5_000) if url else MemoryStorage()
    limiter = TokenBucketAdapter(storage=storage, rules={_ROUTE: rule(_MILLION, _MILLION)}, deadline_ms=5_000)
    app = alone()
    app.add_middleware(RateLimitMiddleware, limiter=limiter, headers=headers)
    return app


def ours_without_headers(url: str = "") -> FastAPI:
    """Return it behind our middleware, without the headers that tell clients of their quota."""
    return ours(url, "none")


def slowapi(url: str = "", middleware: type = SlowAPIASGIMiddleware) -> FastAPI:
    """Return it behind slowapi's ASGI middleware, the faster of its two, which its documentation recommends for that."""
    app = alone()
    app.state.limiter = SlowLimiter(
        key_func=get_remote_address,
        default_limits=[f"{_MILLION}/hour"],
        headers_enabled=True,
        storage_uri=url or None,
    )
    app.add_middleware(middleware)
    return app


def slowapi_older(url: str = "") -> FastAPI:
    """Return it behind slowapi's other middleware, which is built on Starlette's BaseHTTPMiddleware."""
    return slowapi(url, SlowAPIMiddleware)


def slowapi_without_headers(url: str = "") -> FastAPI:
    """Return it behind slowapi's ASGI middleware without quota headers: its default, which calls its storage less often."""
    app = slowapi(url)
    app.state.limiter._headers_enabled = False  # noqa: SLF001 - what its constructor sets
    return app


def slowapi_decorator(url: str = "") -> FastAPI:
    """Return it with slowapi's decorator on the endpoint, as its quick start has it."""
    limiter = SlowLimiter(key_func=get_remote_address, storage_uri=url or None)
    app = FastAPI()
    app.state.limiter = limiter

    @app.get(_PATH)
    @limiter.limit(f"{_MILLION}/hour")
    async def item(request: Request, item_id: int) -> dict[str, int]:  # noqa: ARG001 - the decorator looks for it
        return {"item": item_id}

    return app


def fastapi_limiter(url: str = "") -> FastAPI:
    """Return it with fastapi-limiter's dependency on pyrate-limiter's token bucket: one bucket, and no headers."""
    rates = [Rate(_MILLION, _HOUR_MS, burst=_MILLION)]
    store = RedisStateStore(redis.asyncio.Redis.from_url(url), "fastapi-limiter") if url else None
    bucket = StateBucket(rates, algorithm=TokenBucket(), **({"store": store} if store else {}))
    limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False))
    app = FastAPI()

    @app.get(_PATH, dependencies=[Depends(RateLimiter(limiter=limiter))])
    async def item(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    return app


def throttled_py(url: str = "") -> FastAPI:
    """Return it with throttled-py's decorator on its token bucket."""
    options = {"REUSE_CONNECTION": True}
    store = throttled.asyncio.RedisStore(server=url, options=options) if url else throttled.asyncio.MemoryStore()
    limiter = throttled.asyncio.contrib.fastapi.Limiter(
        throttled.asyncio.rate_limiter.per_hour(_MILLION, burst=_MILLION),
        store=store,
        key_func=lambda request: request.client.host,
    )
    app = FastAPI()

    @app.get(_PATH)
    @limiter.limit()
    async def item(request: Request, item_id: int) -> dict[str, int]:  # noqa: ARG001 - the decorator looks for it
        return {"item": item_id}

    return app


def request_to(app: Callable[..., Awaitable[None]]) -> Check:
    """Return a check that sends one request of a client through the application, and expects 200."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def check(client: str) -> None:
        status = 0

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        await app(_scope(client), receive, send)
        assert status == 200  # noqa: PLR2004 - the code for success

    return check


def _scope(client: str) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items/7",
        "raw_path": b"/items/7",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"example.org"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
        "client": (client, 40_000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
