"""The clients that ask most and are denied most, in bounded memory, without a metric series for each client."""

import os
from hashlib import blake2b

import msgspec

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
)
from sluicegate.domain.heavy_hitters import HeavyHitters
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.runtime.mutex import held_here, new_mutex

_DECISIONS: tuple[type[RateLimitEvent], ...] = (
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitListed,
    RateLimitFailedOpen,
    RateLimitFailedClosed,
)


class HotKey(msgspec.Struct, frozen=True):
    """A client of an endpoint that asks often.

    Args:
        endpoint: The endpoint.
        identifier: The client, hashed unless identifiers are kept as they are.
        count: How often it asked, or was denied, at most.
        error: How much of that may belong to others: it was `count - error` times at least.
    """

    endpoint: str
    identifier: str
    count: int
    error: int

    @property
    def key(self) -> str:
        """Endpoint, a blank and the identifier."""
        return f"{self.endpoint} {self.identifier}"


class HotKeys:
    """Count the clients of each endpoint that ask most, and those that are denied most. Safe to share between threads.

    Args:
        bus: The bus of a limiter. An `InlineEventBus` is right, for nothing here waits.
        capacity: How many are told apart, 1 to 100,000. A client with more than one in `capacity` of all requests is among them.
        secret: What identifiers are hashed with, 1 to 64 bytes; None: something that this process keeps to itself.
        raw_identifiers: Whether identifiers are kept as they are.

    Raises:
        InvalidInputError: If a value is out of range.
    """

    def __init__(
        self,
        bus: SubscribableBus,
        *,
        capacity: int = 1_000,
        secret: bytes | None = None,
        raw_identifiers: bool = False,
    ) -> None:
        if type(capacity) is not int:
            raise InvalidTypeError(f"capacity={capacity!r:.80}: expected a whole number")
        if not 1 <= capacity <= 100_000:  # noqa: PLR2004 - the bound is stated in the message
            raise InvalidInputError(f"capacity={capacity}: expected 1 to 100000")
        if secret is not None and not 1 <= len(secret) <= 64:  # noqa: PLR2004 - what BLAKE2b takes
            raise InvalidInputError(f"secret: has {len(secret)} bytes, expected 1 to 64")
        self._key = os.urandom(16) if secret is None else bytes(secret)
        self.capacity = capacity
        """How many clients are told apart."""
        self.raw_identifiers = raw_identifiers
        """Whether identifiers are kept as they are."""
        self._mutex = new_mutex()
        self._asked: HeavyHitters[tuple[str, str]] = HeavyHitters(capacity)
        self._denied: HeavyHitters[tuple[str, str]] = HeavyHitters(capacity)
        for event_type in _DECISIONS:
            bus.subscribe(event_type, self._note)

    def most_asked(self, most: int = 10) -> list[HotKey]:
        """Return the keys with the most requests, most first."""
        return self._top(self._asked, most)

    def most_denied(self, most: int = 10) -> list[HotKey]:
        """Return the keys with the most denials, most first."""
        return self._top(self._denied, most)

    def _top(self, hitters: HeavyHitters[tuple[str, str]], most: int) -> list[HotKey]:
        with self._mutex:
            found = hitters.top(most)
        return [HotKey(*one.key, one.count, one.error) for one in found]

    def _note(self, event: RateLimitEvent) -> None:
        denied = isinstance(event, RateLimitCheckDenied | RateLimitFailedClosed) or not getattr(event, "allowed", True)
        key = event.endpoint, self._shown(event.identifier)
        if held_here(self._mutex):  # a signal handler in the midst of a call here
            return
        with self._mutex:
            self._asked.add(key)
            if denied:
                self._denied.add(key)

    def _shown(self, identifier: str) -> str:
        if self.raw_identifiers:
            return identifier
        return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).hexdigest()
