"""Success or failure as a value, for `match`."""

from typing import Generic, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")
E = TypeVar("E")


class Success(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Carry the value of a call that was answered: `case Success(value=v)`.

    The garbage collector does not follow it: what it carries, a result, a number or nothing, refers to nothing.
    """

    value: T


class Failure(msgspec.Struct, Generic[E], frozen=True):
    """Carry the error of a call that was not: `case Failure(error=e)`."""

    error: E


Result: TypeAlias = Success[T] | Failure[E]
