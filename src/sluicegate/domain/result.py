"""The answers: what a check decided, and success or failure as a value for `match`."""

from typing import Generic, NoReturn, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")
E = TypeVar("E")


class RateLimitResult(msgspec.Struct, frozen=True, gc=False):
    """Say whether a request may pass, and what its client should know.

    Args:
        allowed: The verdict.
        retry_after: Seconds until the same request would pass if no other one came: 0.0 when allowed, `math.inf` when its
            cost exceeds the bucket's capacity and no wait would help.
        remaining: Whole tokens left in the bucket, 0 to `limit`.
        limit: The bucket's capacity in tokens; 0 where no rule applies.
        reset_seconds: Whole seconds, rounded up, until the bucket is full again.
    """

    allowed: bool
    retry_after: float
    remaining: int
    limit: int
    reset_seconds: int


class Success(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Carry the value of a call that was answered: `case Success(value=v)`.

    The garbage collector does not follow it: what it carries, a result, a number or nothing, refers to nothing.
    """

    value: T


class Failure(msgspec.Struct, Generic[E], frozen=True):
    """Carry the error of a call that was not: `case Failure(error=e)`."""

    error: E

    @property
    def value(self) -> NoReturn:
        """Raise what says that there is none, so that the value of a result can be asked for without a `match`.

        Checks are always a `Success`: `(await limiter.is_allowed(…)).value`.

        Raises:
            AttributeError: Always; the message has the error.
        """
        raise AttributeError(f"a Failure has no value: {self.error}")


Result: TypeAlias = Success[T] | Failure[E]
