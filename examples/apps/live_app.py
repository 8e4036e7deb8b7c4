"""The live page of a limiter in an application, behind a password: what it decides now, and why.

Run: `python examples/apps/live_app.py 8000`, open http://127.0.0.1:8000/ops/limits/ as `ops` with the password `change-me`, then
`curl -i http://127.0.0.1:8000/quote` a few times.
"""

import base64
import secrets
import sys
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sluicegate import InlineEventBus, MemoryStorage, RateLimitMiddleware, RateLimitRule, TokenBucketAdapter
from sluicegate.hot_keys import HotKeys
from sluicegate.live import live_page

EXPECTED: Final = b"Basic " + base64.b64encode(b"ops:change-me")


class BehindPassword:
    """Let operators in, and nobody else. It stands for your own authentication."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for the password."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        if secrets.compare_digest(given, EXPECTED):
            await self.app(scope, receive, send)
        else:
            refusal = PlainTextResponse("Who are you?", 401, {"www-authenticate": 'Basic realm="operators"'})
            await refusal(scope, receive, send)


async def quote(_: Request) -> Response:
    """Answer with a quotation."""
    return PlainTextResponse("Festina lente.")


bus = InlineEventBus()
limiter = TokenBucketAdapter(
    storage=MemoryStorage(), rules={"GET /quote": RateLimitRule.parse("20/minute burst 3")}, event_bus=bus
)
page = live_page(limiter, bus, hot_keys=HotKeys(bus, raw_identifiers=True), changes=True)
app = Starlette(
    routes=[Route("/quote", quote), Mount("/ops/limits", BehindPassword(page))],
    middleware=[Middleware(RateLimitMiddleware, limiter=limiter)],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
