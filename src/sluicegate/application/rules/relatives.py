"""Limiters whose rules follow each other, such as those of one process: what one of them resets, all must know."""

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet, ref

from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.application.rules.rules_snapshot import CurrentRules
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.protocols import ResettableStorage, SyncResettableStorage
from sluicegate.domain.rules.compiled_rules import Keys


class _HasScopes(Protocol):
    @property
    def all_scopes(self) -> set[str]: ...


class _HasRules(Protocol):
    @property
    def held(self) -> CurrentRules: ...


class Neighbours:
    """Rules whose buckets may be where those of others are, and came before them.

    Args:
        followed: The rules that all of them follow; None: there are none.
        before: The others, as long as they are used.
    """

    def __init__(self, followed: _HasRules | None = None, before: "tuple[ref[_HasRules], ...]" = ()) -> None:
        self._followed = followed
        self._before = before

    def keys(self) -> Keys:
        """Return the keys that are taken, with the rules that count there; the first ones come first."""
        found: Keys = {}
        for rules in (self._followed, *[one() for one in self._before]):
            held: CurrentRules | None = getattr(
                rules, "held", None
            )  # of what another thread is making there is nothing yet
            if held is not None:
                found = {**held.snapshot.rules.keys, **found}
        return found


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
        self._apart: list[ref[_HasRules]] = []

    def add(self, relative: Relative) -> None:
        """Add one."""
        self._all.add(relative)

    def neighbours(self, rules: _HasRules, followed: _HasRules | None) -> Neighbours:
        """Return what some rules have to stand apart from, and let those that come later stand apart from them."""
        before = [one for one in self._apart if one() is not None]
        self._apart = [*before, ref(rules)]
        return Neighbours(followed, tuple(before))

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of all their buckets begin with."""
        return tuple(sorted({prefix for relative in list(self._all) for prefix in relative.prefixes}))

    def forget_all(self, prefixes: Iterable[str]) -> None:
        """Let all of them forget buckets that were reset in the storage."""
        for relative in list(self._all):
            relative.forget_all(prefixes)
