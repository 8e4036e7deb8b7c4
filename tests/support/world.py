"""A limiter in memory, with everything that it touches in the test's hands."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sluicegate import Failure, MemoryStorage, RateLimitEvent, RateLimitResult, Success, TokenBucketAdapter
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.testing import FakeClock, RecordingEventBus, RecordingLogger

IP = "10.0.0.1"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class World:
    """A limiter with its storage (`storage`), clocks (`clock`, `now`), events (`bus`) and log (`logger`).

    Args:
        rules: Endpoints and their rules, or the text of a rules file.
        storage: Where the buckets are; in memory, on `clock`, if None.
        listening: Whether the bus is told of events.
        **settings: What else the limiter is given, such as `deadline_ms`.
    """

    def __init__(
        self, rules: str | Mapping[str, Any], *, storage: Any = None, listening: bool = True, **settings: Any
    ) -> None:
        self.clock, self.bus, self.logger = FakeClock(), RecordingEventBus(), RecordingLogger()
        self.now = NOON
        self.endpoint = "GET /a" if isinstance(rules, str) else next(iter(rules))
        self.storage = MemoryStorage(clock=self.clock) if storage is None else storage
        self.limiter = TokenBucketAdapter(
            storage=self.storage,
            rules=parse_rules(rules) if isinstance(rules, str) else rules,
            event_bus=self.bus if listening else None,
            logger=self.logger,
            clock=self.clock,
            wall_clock=lambda: self.now,
            **settings,
        )

    async def check(self, endpoint: str | None = None, identifier: Any = IP, cost: int = 0) -> RateLimitResult:
        """Check and unwrap.

        Args:
            endpoint: What is asked for; if None, the first endpoint of the rules, or `GET /a` of a text.
            identifier: Who asks.
            cost: What it takes; 0: the rule's own cost.
        """
        asked = self.endpoint if endpoint is None else endpoint
        match await self.limiter.is_allowed(endpoint=asked, identifier=identifier, cost=cost):
            case Success(value=result):
                return result
            case Failure(error=error):
                raise AssertionError(error)

    async def passed(self, times: int, endpoint: str | None = None, identifier: Any = IP) -> int:
        """Return how many of some checks pass."""
        return sum([(await self.check(endpoint, identifier)).allowed for _ in range(times)])

    def heard(self, event_type: type[RateLimitEvent]) -> list[Any]:
        """Return the events of a type that the bus was told."""
        return [event for event in self.bus.events if type(event) is event_type]
