"""Limiters whose rules follow each other, such as those of one process: what one of them resets, all must know."""

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet

from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.protocols import ResettableStorage, SyncResettableStorage


class _HasScopes(Protocol):
    @property
    def all_scopes(self) -> set[str]: ...


class Relative:
    """What has to be reset of one limiter.

    Args:
        rules: Its rules in force.
        key_format: How it names its buckets.
        failure_policy: It has local buckets.
        storage: It may keep buckets in this process, or remember something of them.
    """

    def __init__(
        self, rules: _HasScopes, key_format: KeyFormat, failure_policy: FailurePolicy, storage: object
    ) -> None:
        self._rules = rules
        self._key_format = key_format
        self._failure_policy = failure_policy
        self._storage = storage

    @property
    def prefixes(self) -> set[str]:
        """What the names of its buckets begin with."""
        return self._key_format.prefixes(self._rules.all_scopes)

    def forget_all(self, prefixes: Iterable[str]) -> None:
        """Forget buckets that were reset in the storage.

        Raises:
            StorageError: If it is asked in the midst of another call of this thread.
        """
        self._failure_policy.forget_all(prefixes)
        if isinstance(self._storage, ResettableStorage | SyncResettableStorage):
            self._storage.forget_all(tuple(prefixes))


class Relatives:
    """All limiters whose rules follow each other, as long as they are used."""

    def __init__(self) -> None:
        self._all: WeakSet[Relative] = WeakSet()

    def add(self, relative: Relative) -> None:
        """Add one."""
        self._all.add(relative)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of all their buckets begin with."""
        return tuple(sorted({prefix for relative in list(self._all) for prefix in relative.prefixes}))

    def forget_all(self, prefixes: Iterable[str]) -> None:
        """Let all of them forget buckets that were reset in the storage."""
        for relative in list(self._all):
            relative.forget_all(prefixes)
