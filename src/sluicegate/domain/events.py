"""What happened, as frozen records in the past tense."""

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7


class RateLimitEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What all events have.

    Args:
        endpoint: The endpoint as the rule names it.
        identifier: Who asked. It is personal data: subscribers hash it before it leaves the process.
        scope: Whom the deciding rule counts.
        event_id: A version 7 UUID (RFC 9562), which orders events by time.
    """

    endpoint: str
    identifier: str
    scope: str
    event_id: UUID = msgspec.field(default_factory=uuid7)

    @property
    def timestamp(self) -> datetime:
        """When the event was made, to the millisecond, in UTC: the instant that its id carries."""
        return datetime.fromtimestamp((self.event_id.int >> 80) / 1000, tz=UTC)


class RateLimitCheckAttempted(RateLimitEvent, frozen=True, kw_only=True):
    """A check is about to ask the storage for `cost` tokens."""

    cost: int


class RateLimitCheckAllowed(RateLimitEvent, frozen=True, kw_only=True):
    """A check was paid; `remaining_tokens` are left in the tightest bucket."""

    cost: int
    remaining_tokens: int
    execution_time_ms: float


class RateLimitCheckDenied(RateLimitEvent, frozen=True, kw_only=True):
    """A check was denied; it would pass in `retry_after` seconds (`math.inf`: never)."""

    cost: int
    retry_after: float
    execution_time_ms: float


class RateLimitFailedOpen(RateLimitEvent, frozen=True, kw_only=True):
    """The storage failed for `reason` and the check was answered without it, by letting pass or by a local bucket."""

    cost: int
    reason: str
    policy: Literal["allow", "local"]
    allowed: bool
    execution_time_ms: float


class RateLimitFailedClosed(RateLimitEvent, frozen=True, kw_only=True):
    """The storage failed for `reason` and the rule's policy is to refuse."""

    cost: int
    reason: str
    execution_time_ms: float


class RateLimitShadowDenied(RateLimitEvent, frozen=True, kw_only=True):
    """A rule in shadow mode would have denied a request, which went on all the same.

    `policy` is the rule's name; the request would have had to wait for `retry_after` seconds (`math.inf`: for ever).
    """

    cost: int
    policy: str
    retry_after: float


class RateLimitListed(RateLimitEvent, frozen=True, kw_only=True):
    """The allow or deny list decided a check, by the entry `listed`, without asking the storage."""

    cost: int
    allowed: bool
    listed: str


class RulesEvent(RateLimitEvent, frozen=True, kw_only=True):
    """What events about the rules as a whole have: no endpoint, no identifier and no scope.

    Args:
        rules_version: The version of the rules in force after it.
    """

    endpoint: str = ""
    identifier: str = ""
    scope: str = ""
    rules_version: str


class RateLimitRulesChanged(RulesEvent, frozen=True, kw_only=True):
    """Other rules are in force; `previous_version` was before."""

    previous_version: str


class RateLimitRulesRefused(RulesEvent, frozen=True, kw_only=True):
    """Rules were refused for `error`, and those before stay in force."""

    error: str


class RateLimitSwitched(RulesEvent, frozen=True, kw_only=True):
    """A kill switch was thrown or taken back, by hand, by a rules file or by its own end.

    Args:
        policies: The rules; empty: all.
        off: Whether they are off now.
        until: When they hold again by themselves; None: when somebody switches them on.
        reason: Why, in the words of who did it.
    """

    policies: tuple[str, ...]
    off: bool
    until: datetime | None = None
    reason: str = ""
