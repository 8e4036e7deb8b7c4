"""A middleware with the mistakes that are made in the field, to show that the tests of ours could fail."""

import base64
import json
import re
from typing import Any

from starlette.requests import Request

from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter


class NaiveMiddleware:
    """Limit requests, wrongly."""

    def __init__(self, app: Any, *, rules: dict[str, RateLimitRule], **_: Any) -> None:
        self.app = app
        self.patterns = {e: re.compile(re.sub(r"\{[^}]*\}", "[^/]+", e.partition(" ")[2]) + "$") for e in rules}
        self.buckets: dict[str, TokenBucketAdapter] = {}
        self.rules = rules

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Skip by prefix and by URL, key by path, believe every header, call the application inside a try."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            if request.url.path.startswith(("/health", "/docs")):
                await self.app(scope, receive, send)
                return
            rule = self.rule(request.method, request.url.path)
            who = self.who(request)
            if rule is None:
                await self.app(scope, receive, send)
                return
            key = f"{who}:{request.url.path}"
            if key not in self.buckets:
                self.buckets[key] = TokenBucketAdapter(storage=MemoryStorage(), rules={"x": rule})
            result: Any = await self.buckets[key].is_allowed(endpoint="x", identifier="x")
            if result.value.allowed:
                await self.app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 429, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
        except Exception:  # noqa: BLE001 - the mistake
            await self.app(scope, receive, send)

    def rule(self, method: str, path: str) -> RateLimitRule | None:
        """Return the first rule whose expression fits."""
        for endpoint, pattern in self.patterns.items():
            if endpoint.startswith(f"{method} ") and pattern.match(path):
                return self.rules[endpoint]
        return None

    def who(self, request: Request) -> str:
        """Return whatever the client says."""
        token = request.headers.get("authorization", "")
        if token.startswith("Bearer ") and token.count(".") == 2:
            claims = token.split(".")[1]
            return str(json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"])
        forwarded = request.headers.get("x-forwarded-for")
        if forwarded:
            return forwarded.split(",")[0].strip()
        return request.client.host if request.client else "unknown"
