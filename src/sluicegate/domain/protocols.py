"""The ports. Each docstring is the port's specification."""

from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar, runtime_checkable

import msgspec

from sluicegate.domain.arguments import Identifier
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.result import RateLimitResult, Result

E = TypeVar("E", bound=RateLimitEvent)


@runtime_checkable
class RateLimitProtocol(Protocol):
    """Decide whether requests may pass. Never raises but for wrong arguments and cancellation."""

    async def is_allowed(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Take tokens if all of the endpoint's rules have them; if one does not, none is charged.

        Args:
            endpoint: Method and path template, such as `POST /api/v1/sessions`.
            identifier: Who is asking, 1 to 1024 bytes.
            cost: Tokens to take; 0: the rule's own cost.

        Returns:
            `Success` always: while the storage fails, the answer of the failure policy.

        Raises:
            ValueError: If an argument is wrong; nothing has changed then.
        """
        ...

    async def get_remaining(self, *, endpoint: str, identifier: Identifier) -> Result[int, RateLimitError]:
        """Return the whole tokens left in the tightest bucket; the capacity while the storage fails; 0 without a rule.

        Changes nothing.
        """
        ...

    async def reset(self, *, endpoint: str, identifier: Identifier) -> Result[None, RateLimitError]:
        """Fill the endpoint's buckets of this identifier again.

        Where no rule names the endpoint there is nothing to reset, which is a `Success`. Never fails open: `Failure` if the
        storage did not do it.
        """
        ...


class StorageTraits(msgspec.Struct, frozen=True):
    """What a limiter needs to know of a storage.

    Args:
        deadline_s: The longest that a call keeps its caller while the event loop is free, in seconds, where the storage sees to
            that itself; the storage is a `DeadlineStorage` then. None: it keeps no deadline, and the limiter puts a timer round
            each call.
        hash_tags: Whether keys should carry the identifier in braces, for Redis Cluster.
        never_waits: Whether no verb waits for anything: a limiter with an event loop calls the blocking ones, without a timer.
    """

    deadline_s: float | None = None
    hash_tags: bool = False
    never_waits: bool = False


class StorageProtocol(Protocol):
    """Keep buckets. A storage decides by its own clock, and raises rather than invents an answer.

    Every call is atomic: no other caller, in any process, sees or changes a bucket between the reading and the writing of
    one call. An absent bucket is a full one. Anything that cannot be decided is raised, as `StorageError` where the
    cause is known. A call that raised may or may not have been executed; it is not repeated.
    """

    traits: StorageTraits

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none; a denial changes nothing and prolongs nothing.

        There is one exception: a bucket that begins anew, because the clock stepped back by more than its time to full or
        because its rule changed, is written as it was converted, by a denial too.

        Args:
            requests: One for each bucket, with different keys; `cost_units` of 1 to the capacity.
        """
        ...

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels in the order of the requests. Writes nothing."""
        ...

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put `cost_units` back into each bucket, never above its capacity, and return the levels."""
        ...

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        ...

    async def aclose(self) -> None:
        """Release what the storage holds. Calling it twice is harmless."""
        ...


class SyncStorageProtocol(Protocol):
    """The verbs of `StorageProtocol`, with the same meaning, as calls that block: for code without an event loop.

    A call that may wait keeps a deadline of the storage's own: no caller can interrupt it from outside.
    """

    traits: StorageTraits

    def take_blocking(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        ...

    def peek_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels. Writes nothing."""
        ...

    def refund_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        ...

    def reset_blocking(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        ...


@runtime_checkable
class ReservationStorage(Protocol):
    """What a storage also does where costs are known only afterwards, and calls in flight are counted.

    A `StorageProtocol` may have it; where it has not, limiters refuse the rules and verbs that need it.
    A payment may leave a *claim* in its bucket, named by a number and with an end by the storage's clock: a reservation, from
    which something may come back, or a hold. `domain/claims/claims.py` has the arithmetic. Each call is one atomic step.
    """

    async def reserve(self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /) -> Verdict:
        """Pay all requests or none, as `take` does, and note a claim for each that is paid.

        Args:
            requests: As for `take`; a cost may be 0.
            number: What names the claims, in all of the buckets: 1 to 2**52, drawn at random by the caller.
            terms: What each of the requests leaves in its bucket.
        """
        ...

    async def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them: less goes back, more is taken even if it is not there.

        A bucket without the claim is left as it is, so that a second settlement changes nothing. A reservation that ended
        unsettled is kept for ten minutes; of it nothing comes back, and what is not charged yet is charged.

        Args:
            requests: `cost_units` is the real cost; -1: what was reserved. What a hold has taken always goes back.
            number: What names the claims.
            max_debts: How far below zero the level of each bucket may be brought, in units.
        """
        ...

    async def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end so many microseconds from now, if that is later; costs are ignored.

        A claim that has ended is never revived.

        Returns:
            In how many of the buckets there is such a claim.
        """
        ...


@runtime_checkable
class SyncReservationStorage(Protocol):
    """The verbs of `ReservationStorage`, with the same meaning, as calls that block."""

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Pay all requests or none, and note their claims."""
        ...

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        ...

    def extend_blocking(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        ...


@runtime_checkable
class ResettableStorage(Protocol):
    """A storage that can make all buckets of a limiter full, whoever they belong to."""

    async def reset_all(self, prefixes: Sequence[str], /) -> None:
        """Do what `reset` does with each bucket whose name begins with one of some prefixes, and touch no other one.

        It goes in steps of bounded time, between which checks are decided as ever: a bucket that is paid from meanwhile may be
        reset before or after that.

        Args:
            prefixes: What names begin with, such as `rate_limit:ip:`; at least one.

        Raises:
            StorageError: If some may not have been reset.
        """
        ...

    def forget_all(self, prefixes: Sequence[str], /) -> None:
        """Forget what this process remembers of buckets with these prefixes, which were reset through another storage."""
        ...


@runtime_checkable
class SyncResettableStorage(Protocol):
    """The verbs of `ResettableStorage`, with the same meaning, as calls that block."""

    def reset_all_blocking(self, prefixes: Sequence[str], /) -> None:
        """Do what `reset` does with each bucket whose name begins with one of some prefixes."""
        ...

    def forget_all(self, prefixes: Sequence[str], /) -> None:
        """Forget what this process remembers of buckets with these prefixes, which were reset through another storage."""
        ...


@runtime_checkable
class NamelessStorage(Protocol):
    """A storage, of either kind, that keeps no names of buckets, and must be told whose buckets it has to reset them all."""

    def note_prefix(self, key_prefix: str, /) -> None:
        """Note that a limiter uses the storage, whose buckets' names begin with a prefix and a colon."""
        ...


@runtime_checkable
class NonBlockingStorage(Protocol):
    """A storage, of either kind, that can decide some checks, or all, without waiting."""

    def take_nowait(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Do what `take` does, now; None if that needs waiting, and nothing has happened.

        Memory always decides. Redis decides from a lease, or repeats a denial of less than a second ago.
        """
        ...


@runtime_checkable
class DeadlineStorage(Protocol):
    """A storage, of either kind, that keeps a deadline for its callers."""

    def with_deadline(self, deadline_s: float, /) -> Self:
        """Return the same storage with a shorter deadline for the calls made through what is returned.

        Connections and caches are shared with the original; closing either closes both.
        """
        ...


class EventBusProtocol(Protocol):
    """Pass events on to whoever listens.

    A bus with the attribute `inline = True` promises that `publish` returns at once and is called by the limiter in
    place. Any other bus is called from a thread of its own, behind a bounded queue, so that it may be as slow as it
    likes.
    """

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether this type of event has a listener; if not, no event of it is built."""
        ...

    def publish(self, event: RateLimitEvent, /) -> object:
        """Pass an event on. A coroutine that it returns runs on the check's event loop, unless the bus is inline."""
        ...


class SubscribableBus(EventBusProtocol, Protocol):
    """A bus that takes subscribers: `InlineEventBus` and `BufferedEventBus` do."""

    def subscribe(self, event_type: type[E], subscriber: Callable[[E], object]) -> None:
        """Call `subscriber` with each event of a type."""
        ...


class LoggerProtocol(Protocol):
    """Write log lines: a message and its context. `inline = True` means the same as for a bus."""

    def debug(self, message: str, /, **context: object) -> None:
        """Write a line for developers."""
        ...

    def info(self, message: str, /, **context: object) -> None:
        """Write a line for operators that needs no action."""
        ...

    def warning(self, message: str, /, **context: object) -> None:
        """Write a line about something that was survived."""
        ...

    def error(self, message: str, /, **context: object) -> None:
        """Write a line about something that was not done."""
        ...


class Clock(Protocol):
    """Tell the time that decides in memory."""

    def now_us(self) -> int:
        """Return an instant in whole microseconds, 0 to 2**60, that should not step back."""
        ...
