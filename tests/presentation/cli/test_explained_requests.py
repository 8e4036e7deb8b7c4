"""What `rules explain` says of a request is what the middleware does with it."""

import os
import random
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from sluicegate import MemoryStorage, TokenBucketAdapter
from sluicegate.application.rules.rule_explanation import Explainer
from sluicegate.application.rules.rules_snapshot import take_snapshot
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.presentation.web.asgi.middleware import RateLimitMiddleware
from sluicegate.testing import RecordingLogger

REQUESTS = 100_000 if os.environ.get("SLUICEGATE_LONG") else 10_000
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

TEXT = """
[policies]
login = "5/minute per ip"
account = { rate = "20/hour per user", shadow = true }
search = { rate = "10/minute burst 20 per user", overrides = [
    { id = "partner", rate = "1000/minute" },
    { id = "robot", enabled = false },
] }
heavy = { rate = "30/hour", cost = 3, overrides = [{ id = "10.9.0.0/16", rate = "90/hour" }] }
off = { rate = "1/day", enabled = false }

[endpoints]
"POST /sessions" = ["login", "account", "1000/hour per global"]
"GET /search" = ["search", "heavy"]
"GET /items/{id:int}" = "100/minute"
"GET /items/{id}" = "heavy"
"* /files/{rest:path}" = { rules = ["heavy", "login"], cost = 2 }
"GET /off" = "off"
"WEBSOCKET /feed" = "3/day per user"

[groups.exports]
rules = ["20/day per user"]
endpoints = ["GET /search", "GET /export"]

[allow]
ip = ["10.1.0.0/16"]
user = ["root"]
[deny]
ip = ["10.1.6.0/24", "2001:db8:bad::/48", { id = "192.0.2.128/25", until = 2026-11-24T12:02:00Z }]
user = ["mallory"]
"""

PATHS = (
    "/sessions",
    "/search",
    "/items/7",
    "/items/x",
    "/files/a/b",
    "/files/",
    "/off",
    "/export",
    "/feed",
    "/nowhere",
    "/",
)
ADDRESSES = (
    "10.1.2.3",
    "10.1.6.6",
    "192.0.2.200",
    "10.9.1.1",
    "2001:db8:bad::7",
    "2001:db8::7",
    "11.0.0.1",
    "11.0.0.2",
)


class KeepingStorage(MemoryStorage):
    """A storage that keeps what it was asked, each check by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[tuple[str, int, int]]] = []

    def take_nowait(self, requests: Any, /) -> Verdict:
        """Keep key, capacity and cost in tokens, and decide."""
        self.asked.append([(d.key, d.spec.max_tokens, d.cost_units // d.spec.units_per_token) for d in requests])
        return super().take_nowait(requests)


async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Answer everything with 200."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def passes(middleware: RateLimitMiddleware, method: str, path: str, address: str, user: str | None) -> bool:
    """Send a request, and return whether the application answered it."""
    sent: list[MutableMapping[str, Any]] = []
    scope: dict[str, Any] = {
        "type": "websocket" if method == "WEBSOCKET" else "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": (address, 50_000),
        "state": {"user_id": user},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if method == "WEBSOCKET" else "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await middleware(scope, receive, send)
    return sent[0].get("status") == 200 or sent[0]["type"] == "websocket.accept"


async def test_the_middleware_does_what_was_explained() -> None:
    """On many generated requests: who is let pass or denied by a list is, and the buckets asked are those explained."""
    random_ = random.Random(20261124)
    key_format = KeyFormat()
    for text in (TEXT, f'unmatched = "600/minute per user"\n{TEXT}'):
        book = parse_rules(text)
        explain = Explainer(take_snapshot(book, key_format, NOON), key_format, lambda: NOON).explain
        storage, logger = KeepingStorage(), RecordingLogger()
        limiter = TokenBucketAdapter(storage=storage, rules=book, logger=logger, wall_clock=lambda: NOON)
        # Prefixes of 128 bits: `explain` is told an address as it is, not as IPv6 clients are counted.
        middleware = RateLimitMiddleware(application, limiter=limiter, ipv6_prefix=128, logger=logger)
        outcomes = dict.fromkeys(("checked", "allowed", "denied", "no_rule"), 0)
        for _ in range(REQUESTS // 2):
            method = random_.choice(["GET", "GET", "GET", "POST", "HEAD", "WEBSOCKET"])
            path, address = random_.choice(PATHS), random_.choice(ADDRESSES)
            user = random_.choice(["bob", "partner", "robot", "root", "mallory", None])
            storage.asked.clear()
            passed = await passes(middleware, method, path, address, user)
            names = {"ip": address, "user": user or f"anonymous@{address}"}
            explained = explain(f"{method} {path}", names)
            outcomes[explained.outcome] += 1
            deciding = [(r.key, r.max_tokens, r.cost) for r in explained.rules if r.effect == "decides"]
            watching = [[(r.key, r.max_tokens, r.cost)] for r in explained.rules if r.effect == "watches"]
            if explained.outcome == "checked":
                assert storage.asked == [deciding, *watching], (method, path, names)
            else:
                assert passed == (explained.outcome != "denied"), (method, path, names)
                assert storage.asked == []
        if "unmatched" in text:
            assert outcomes.pop("no_rule") == 0
        assert min(outcomes.values()) > REQUESTS // 100, outcomes
        assert not [record for record in logger.records if record[0] not in {"debug", "info"}]
