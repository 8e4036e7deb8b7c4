"""Time that a limiter adds to a request: the bare application, ours and slowapi's, in one run and one process.

Run: `.venv/bin/python benchmarks/http_overhead.py`. With a redis-server in PATH it also measures 50 requests at once on Redis.
Each round measures all contenders one after the other, so that other load on the machine hits all of them. Printed are the
shortest round, which other processes disturbed least, and the median. slowapi has two middlewares: our share refers to the ASGI
one, which its documentation calls the faster; the one on Starlette's BaseHTTPMiddleware adds several times as much.
"""

import asyncio
import logging
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response

from sluicegate import (
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RedisStorage,
    StorageProtocol,
    TokenBucketAdapter,
    rate_limit,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
warnings.simplefilter("ignore")

from slowapi import Limiter  # noqa: E402 - after its warnings are silenced
from slowapi.middleware import SlowAPIASGIMiddleware, SlowAPIMiddleware  # noqa: E402
from slowapi.util import get_remote_address  # noqa: E402

from support.asgi_calls import http_scope  # noqa: E402

ROUNDS = 30
_YARDSTICK = "slowapi, SlowAPIASGIMiddleware"
Application = Callable[..., Awaitable[None]]
Measure = Callable[[Application, int], Awaitable[tuple[float, float]]]
RULE = RateLimitRule.per_minute(1_000_000_000)


async def receive() -> dict[str, Any]:
    """Return an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: object) -> None:
    """Discard a message."""


async def endpoint() -> dict[str, str]:
    """Return a small body."""
    return {"hello": "world"}


def bare() -> FastAPI:
    """Return the application without a limiter."""
    app = FastAPI()
    app.get("/items/{item_id}")(endpoint)
    return app


def with_middleware(storage: StorageProtocol) -> Application:
    """Return the application behind our middleware."""
    limiter = TokenBucketAdapter(storage=storage, rules={"GET /items/{item_id}": RULE}, deadline_ms=1_000)
    return RateLimitMiddleware(bare(), limiter=limiter)


def with_dependency(storage: StorageProtocol) -> Application:
    """Return the application with our dependency."""
    app = FastAPI()
    limiter = TokenBucketAdapter(storage=storage, rules={}, deadline_ms=1_000)
    app.get("/items/{item_id}", dependencies=[Depends(rate_limit(RULE, limiter=limiter))])(endpoint)
    return app


def with_slowapi_middleware(storage_uri: str, middleware: type) -> Application:
    """Return the application behind one of slowapi's middlewares, which tells clients of their quota as ours does."""
    app = FastAPI()
    limiter = Limiter(
        key_func=get_remote_address, storage_uri=storage_uri, default_limits=["1000000000/minute"], headers_enabled=True
    )
    app.state.limiter = limiter
    app.get("/items/{item_id}")(endpoint)
    app.add_middleware(middleware)
    return app


def with_slowapi_decorator(storage_uri: str) -> Application:
    """Return the application with slowapi's decorator, which tells clients of their quota as our dependency does."""
    app = FastAPI()
    limiter = Limiter(key_func=get_remote_address, storage_uri=storage_uri, headers_enabled=True)
    app.state.limiter = limiter

    @app.get("/items/{item_id}")
    @limiter.limit("1000000000/minute")
    async def limited(request: Request, item_id: str, response: Response) -> dict[str, str]:  # noqa: ARG001 - slowapi asks for them
        return {"hello": "world"}

    return app


async def one_after_another(app: Application, requests: int) -> tuple[float, float]:
    """Return microseconds for each request: of the clock, and of this process's processor time."""
    scope = http_scope(
        "GET", "/items/7", headers=[("host", "a.example"), ("user-agent", "benchmark"), ("accept", "*/*")]
    )
    started, used = time.perf_counter(), time.process_time()
    for _ in range(requests):
        await app(dict(scope, state={}), receive, send)
    return (time.perf_counter() - started) / requests * 1e6, (time.process_time() - used) / requests * 1e6


async def at_once(app: Application, requests: int) -> tuple[float, float]:
    """Return what `one_after_another` does, with 50 requests at a time."""
    scope = http_scope(
        "GET", "/items/7", headers=[("host", "a.example"), ("user-agent", "benchmark"), ("accept", "*/*")]
    )

    async def client() -> None:
        for _ in range(requests // 50):
            await app(dict(scope, state={}), receive, send)

    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(50)))
    return (time.perf_counter() - started) / requests * 1e6, (time.process_time() - used) / requests * 1e6


async def compare(title: str, apps: dict[str, Application], measure: Measure, requests: int) -> None:
    """Measure the applications in alternating rounds and print what each adds."""
    for app in apps.values():
        await measure(app, requests // 4)
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            rounds[name].append(await measure(app, requests))
    for kind, clock in enumerate(("elapsed", "processor time of this process")):
        least = {name: min(times[kind] for times in measured) for name, measured in rounds.items()}
        print(f"\n{title}: {clock}, microseconds for a request, least (median) of {ROUNDS} rounds of {requests}")
        for name, measured in rounds.items():
            added = least[name] - least["bare"]
            theirs = "slowapi, decorator" if name == "dependency" else _YARDSTICK
            share = (
                f"{added / (least[theirs] - least['bare']):6.1%} of {theirs}"
                if name in {"middleware", "dependency"}
                else ""
            )
            middle = statistics.median(times[kind] for times in measured)
            print(f"  {name:30} {least[name]:8.1f} ({middle:8.1f})   added {added:7.1f}  {share}")


async def main() -> None:
    """Compare in memory, and on Redis where there is one."""
    logging.disable(logging.CRITICAL)
    print(f"Python {platform.python_version()}, FastAPI, in process, no sockets but to Redis")
    apps = {
        "bare": bare(),
        "middleware": with_middleware(MemoryStorage()),
        "dependency": with_dependency(MemoryStorage()),
        _YARDSTICK: with_slowapi_middleware("memory://", SlowAPIASGIMiddleware),
        "slowapi, SlowAPIMiddleware": with_slowapi_middleware("memory://", SlowAPIMiddleware),
        "slowapi, decorator": with_slowapi_decorator("memory://"),
    }
    await compare("In memory, one after another", apps, one_after_another, 500)
    from support.redis_servers import RedisServer  # noqa: PLC0415 - only where there is one

    with RedisServer() as server:
        storages = [RedisStorage.from_url(server.url, deadline_ms=1_000) for _ in range(2)]
        apps = {
            "bare": bare(),
            "middleware": with_middleware(storages[0]),
            "dependency": with_dependency(storages[1]),
            _YARDSTICK: with_slowapi_middleware(server.url, SlowAPIASGIMiddleware),
            "slowapi, SlowAPIMiddleware": with_slowapi_middleware(server.url, SlowAPIMiddleware),
            "slowapi, decorator": with_slowapi_decorator(server.url),
        }
        await compare("On Redis, 50 at once", apps, at_once, 500)
        for storage in storages:
            await storage.aclose()


if __name__ == "__main__":
    asyncio.run(main())
