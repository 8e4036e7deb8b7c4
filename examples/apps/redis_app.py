"""A FastAPI application whose limits several processes share on Redis, and what it answers while Redis is away.

Run: `examples/servers/redis/serve &`, then `python examples/apps/redis_app.py redis://limits:change-me@127.0.0.1:6390 8000` and
`curl -i -X POST http://127.0.0.1:8000/sessions` six times. Stop Redis, and do it again: logins are still counted, by this process
alone; everything else passes.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from sluicegate import RateLimitMiddleware, RateLimitRule, RedisStorage, TokenBucketAdapter

RULES = {
    # A guesser must not profit from an outage: while Redis is away, each process counts by itself.
    "POST /sessions": RateLimitRule(5, 5, "ip", on_storage_error="local"),
    "GET /articles/{article_id}": RateLimitRule.per_minute(60),  # passes while Redis is away
}


def build(url: str) -> FastAPI:
    """Build the application.

    Args:
        url: Where Redis is.
    """
    # The storage connects with the first check; a check is decided within 200 ms, by Redis or by the rule's policy.
    limiter = TokenBucketAdapter(storage=RedisStorage.from_url(url, deadline_ms=200), rules=RULES, deadline_ms=200)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await limiter.aclose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(RateLimitMiddleware, limiter=limiter)

    @app.post("/sessions")
    async def sign_in() -> dict[str, str]:
        """Sign in: five tries at once, then one in twelve seconds."""
        return {"session": "s3cr3t"}

    @app.get("/articles/{article_id}")
    async def article(article_id: int) -> dict[str, int]:
        """Read an article."""
        return {"article": article_id}

    @app.get("/failures")
    async def failures() -> dict[str, int]:
        """Tell how many checks Redis did not decide, and why. No rule is for this endpoint."""
        return limiter.failures

    return app


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
