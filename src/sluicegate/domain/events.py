"""The events that a limiter publishes: immutable records of what happened."""

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7


class RateLimitEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of every event.

    Args:
        endpoint: The endpoint as the rule names it.
        identifier: The client's identifier. It is personal data: hash it before it leaves the process.
        scope: The scope of the rule that decided.
        rule: The name of the rule that decided, or would deny first; empty where no single one did. It is never the client's.
        event_id: A version 7 UUID (RFC 9562), so events sort by time.
    """

    endpoint: str
    identifier: str
    scope: str
    rule: str = ""
    event_id: UUID = msgspec.field(default_factory=uuid7)

    @property
    def timestamp(self) -> datetime:
        """When the event was created, in UTC, to the millisecond; read from its id."""
        return datetime.fromtimestamp((self.event_id.int >> 80) / 1000, tz=UTC)


class RateLimitCheckAttempted(RateLimitEvent, frozen=True, kw_only=True):
    """A check is about to ask the storage for `cost` tokens."""

    cost: int


class RateLimitCheckAllowed(RateLimitEvent, frozen=True, kw_only=True):
    """A check was allowed; `remaining_tokens` are left in the bucket that will deny first."""

    cost: int
    remaining_tokens: int
    execution_time_ms: float


class RateLimitCheckDenied(RateLimitEvent, frozen=True, kw_only=True):
    """A check was denied; it would be allowed in `retry_after` seconds (`math.inf`: never)."""

    cost: int
    retry_after: float
    execution_time_ms: float


class RateLimitCheckSkipped(RateLimitEvent, frozen=True, kw_only=True):
    """A check was allowed without asking the storage: all rules of the endpoint are switched off, or in shadow mode."""

    cost: int
    because: Literal["switched_off", "shadow"]


class RateLimitFailedOpen(RateLimitEvent, frozen=True, kw_only=True):
    """The storage failed for `reason`, and the check was allowed, or decided by a bucket in this process."""

    cost: int
    reason: str
    policy: Literal["allow", "local"]
    allowed: bool
    execution_time_ms: float


class RateLimitFailedClosed(RateLimitEvent, frozen=True, kw_only=True):
    """The storage failed for `reason`, and the check was denied because the rule says so."""

    cost: int
    reason: str
    execution_time_ms: float


class RateLimitShadowDenied(RateLimitEvent, frozen=True, kw_only=True):
    """A rule in shadow mode would have denied a request, but did not.

    `policy` is the rule's name; the rule would have allowed the request in `retry_after` seconds (`math.inf`: never).
    """

    cost: int
    policy: str
    retry_after: float


class RateLimitDebtCapped(RateLimitEvent, frozen=True, kw_only=True):
    """A commit of `cost` tokens exceeded the debt that its rule, `policy`, allows: only `charged` were charged."""

    cost: int
    charged: int
    policy: str
    max_debt: int


class RateLimitClaimed(RateLimitEvent, frozen=True, kw_only=True):
    """A reservation has taken tokens of a rule, or a call in flight is counted by it, until it is settled or ends.

    Args:
        claim: The number that names the reservation or the call in all of its events; of each of its rules there is one.
        in_flight: Whether the rule counts calls in flight.
        cost: The tokens that it took; of a call in flight how many calls it counts as.
        expires_in: Seconds after which it ends by itself, unless it is extended.
    """

    claim: int
    in_flight: bool
    cost: int
    expires_in: float


class RateLimitClaimExtended(RateLimitEvent, frozen=True, kw_only=True):
    """A reservation, or a call in flight, of the number `claim` ends `expires_in` seconds from now, if that is later."""

    claim: int
    expires_in: float


class RateLimitClaimSettled(RateLimitEvent, frozen=True, kw_only=True):
    """A reservation was committed or cancelled, or a call in flight has ended.

    Args:
        claim: Its number; see `RateLimitClaimed`.
        applied: Whether it still counted; False: it was settled before, or had ended long ago.
        charged: Tokens that are charged in all; 0 of a call in flight.
        returned: Tokens that came back.
    """

    claim: int
    applied: bool
    charged: int
    returned: int


class RateLimitListed(RateLimitEvent, frozen=True, kw_only=True):
    """An entry of the allow or deny list, `listed`, decided a check; the storage was not asked."""

    cost: int
    allowed: bool
    listed: str


class RulesEvent(RateLimitEvent, frozen=True, kw_only=True):
    """The fields of events about the rules as a whole. Endpoint, identifier and scope are empty.

    Args:
        rules_version: The version of the rules after the event.
    """

    endpoint: str = ""
    identifier: str = ""
    scope: str = ""
    rules_version: str


class RateLimitRulesChanged(RulesEvent, frozen=True, kw_only=True):
    """The rules were replaced; `previous_version` is the version of the old ones."""

    previous_version: str


class RateLimitRulesRefused(RulesEvent, frozen=True, kw_only=True):
    """New rules were refused because of `error`; the old ones still apply."""

    error: str


class RateLimitSwitched(RulesEvent, frozen=True, kw_only=True):
    """Rules were switched off or on again: by a call, by a rules file, or because a kill switch ended.

    Args:
        policies: The names of the rules; empty: all.
        off: Whether they are off now.
        until: When they apply again; None: not until somebody switches them on.
        reason: Why, as given by the person who switched them.
    """

    policies: tuple[str, ...]
    off: bool
    until: datetime | None = None
    reason: str = ""


class RateLimitStorageRecovered(RateLimitEvent, frozen=True, kw_only=True):
    """The storage answers again, after `away_seconds` in which `failures` calls failed. The fields of a check are empty."""

    endpoint: str = ""
    identifier: str = ""
    scope: str = ""
    away_seconds: float
    failures: int


class RateLimitAdministered(RateLimitEvent, frozen=True, kw_only=True):
    """An operator has changed something, or tried to: for an audit. Endpoint, identifier and scope are empty where none is meant.

    Args:
        action: What: `reset`, `refund`, `override`, `switch_off`, `reload`, ….
        actor: Who, as far as is known: the address that the call came from.
        done: Whether it was done.
        detail: What it changed, or why it was not done.
    """

    endpoint: str = ""
    identifier: str = ""
    scope: str = ""
    action: str
    actor: str
    done: bool
    detail: str = ""
