"""The ports. Each docstring is the port's specification."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.events import RateLimitEvent
from sluicegate.domain.result import Result

Identifier: TypeAlias = str | Mapping[str, str]
"""Who is asking: one text for every scope, or one for each scope where an endpoint's rules count different things."""


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

        Never fails open: `Failure` if the storage did not do it, or if no rule names the endpoint.
        """
        ...


class StorageProtocol(Protocol):
    """Keep buckets. A storage decides by its own clock, and raises rather than invents an answer.

    Every call is atomic: no other caller, in any process, sees or changes a bucket between the reading and the writing of
    one call. An absent bucket is a full one. Anything that cannot be decided is raised, as `StorageError` where the
    cause is known. A call that raised may or may not have been executed; it is not repeated.

    Optional attributes tell the limiter more:

    - `immediate = True`: the storage also has the plain calls of `SyncStorageProtocol`, and they never wait for anything.
    - `bounded_wait = True`: `take` and `peek` keep no caller longer than a deadline of the storage's own, which is
      `deadline_s` seconds. Without it, or if the limiter's deadline is shorter, the limiter puts a timer round each call.
    - `decide_here(requests)`: a plain call that decides these requests without asking or waiting, where the storage can: it
      pays from what this process has borrowed, or returns a denial that is known to be still true. Else None.
    - `denials_at_hand` and `loans_at_hand`, which belong to it: what it knows of denials, or None, and of loans.
    - `hash_tags = True`: keys should carry the identifier in braces, for Redis Cluster.
    """

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none; a denial changes nothing and prolongs nothing.

        But for one write: a bucket that begins anew, because the clock stepped back by more than its time to full or because
        its rule changed, is written as it was carried over, also by a denial.

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
    """The same verbs as plain calls, for code without an event loop. The specification is `StorageProtocol`'s.

    A call that may wait keeps a deadline of the storage's own: nobody can interrupt it from outside.
    """

    def take_now(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        ...

    def peek_now(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels. Writes nothing."""
        ...

    def refund_now(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        ...

    def reset_now(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        ...


class EventBusProtocol(Protocol):
    """Pass events on to whoever listens.

    A bus with the attribute `inline = True` promises that `publish` returns at once and is called by the limiter in
    place. Any other bus is called from a thread of its own, behind a bounded queue, so that it may be as slow as it
    likes.
    """

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether anybody would get an event of this type; where not, none is built."""
        ...

    def publish(self, event: RateLimitEvent, /) -> object:
        """Pass an event on. What it returns is awaited on the check's event loop if it can be, else ignored."""
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
