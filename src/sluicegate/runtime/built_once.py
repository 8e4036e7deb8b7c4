"""What a process has once."""

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Generic, TypeVar

from sluicegate.runtime.mutex import new_mutex

S = TypeVar("S")


class BuiltOnce(Generic[S]):
    """Build something at the first call, once, though several threads make it together."""

    def __init__(self, build: Callable[[], S]) -> None:
        update_wrapper(self, build)
        self._cached = lru_cache(maxsize=1)(build)
        self._mutex = new_mutex()
        self.cache_clear: Callable[[], None] = self._cached.cache_clear
        """Forgets it, for tests."""

    def __copy__(self) -> "BuiltOnce[S]":
        """Return the same one: there is one of what it builds."""
        return self

    def __deepcopy__(self, _: object) -> "BuiltOnce[S]":
        """Return the same one, as `__copy__` does."""
        return self

    def __call__(self) -> S:
        """Return it."""
        with self._mutex:
            return self._cached()
