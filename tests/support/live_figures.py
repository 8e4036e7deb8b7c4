"""A limiter that is watched, with a short window, and figures as processes tell them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from sluicegate import InlineEventBus, MemoryStorage, TokenBucketAdapter
from sluicegate.application.hot_keys import HotKeys
from sluicegate.application.live.worker_figures import RulesFigures, WorkerFigures, WorkerMeter
from sluicegate.infrastructure.redis_figures import redis_figures
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.presentation.live.api import LiveApi
from sluicegate.presentation.service.service import Service
from sluicegate.presentation.service.settings import ServiceSettings
from support.rate_limit_service import ANYWHERE

TOKEN = "correct-horse-battery"
STARTED = datetime(2026, 11, 26, 7, tzinfo=UTC)


class LiveWorld:
    """A limiter, and a service whose admin API shows it.

    Args:
        rules: The text of a rules file.
        storage: Where the buckets are; in memory if None.
        hot: How clients are shown: `off`, `hashed` or `raw`.
        window_s: How long a window is.
        **service: Settings of the service.
    """

    def __init__(
        self, rules: str, *, storage: Any = None, hot: str = "raw", window_s: float = 0.05, **service: Any
    ) -> None:
        self.bus = InlineEventBus()
        self.limiter = TokenBucketAdapter(
            storage=storage or MemoryStorage(), rules=parse_rules(rules), event_bus=self.bus
        )
        hot_keys = None if hot == "off" else HotKeys(self.bus, raw_identifiers=hot == "raw")
        self.live = LiveApi(WorkerMeter(self.limiter, self.bus, redis_figures, hot_keys), window_s=window_s)
        settings = {"admin": ANYWHERE, "admin_token": TOKEN, "leave_seconds": 0.0, "grace_seconds": 5.0, **service}
        self.service = Service(ServiceSettings(**settings), self.limiter, live=self.live)

    async def ask(self, endpoint: str, identifier: Any = "192.0.2.1", times: int = 1) -> None:
        """Check."""
        for _ in range(times):
            await self.limiter.is_allowed(endpoint=endpoint, identifier=identifier)

    @asynccontextmanager
    async def client(self, token: str = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
        """Run the service, and connect somebody who watches."""
        await self.service.start()
        url = f"http://{self.service.addresses['admin']}"
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
                yield client
        finally:
            await self.service.stop()


def worker_figures(
    counts: dict[tuple[str, str, str, str], int], worker: str = "0", read_us: int = 0, **fields: Any
) -> WorkerFigures:
    """Return the figures of a process.

    Args:
        counts: Checks by endpoint, rule, result and reason.
        worker: Its name.
        read_us: When they were read.
        **fields: Other fields; `numbers` are added to the counts.
    """
    numbers = [("sluicegate.requests", labels, float(count)) for labels, count in counts.items()]
    defaults: dict[str, Any] = {
        "started": STARTED,
        "durations": {},
        "storage": "MemoryStorage",
        "storage_fault": None,
        "identifiers": "off",
        "rules": RulesFigures(
            version="v1", last_error="", named=[], switched_off=[], overrides=[], overrides_of_rules=0
        ),
    }
    return WorkerFigures(
        worker=worker, read_us=read_us, numbers=[*numbers, *fields.pop("numbers", [])], **(defaults | fields)
    )
