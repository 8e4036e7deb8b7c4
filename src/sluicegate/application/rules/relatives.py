"""Limiters whose rules follow each other, such as those of one process: what one of them resets, all must know."""

from collections.abc import Iterable, Sequence
from typing import Protocol
from weakref import WeakSet, ref

from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.application.rules.rules_snapshot import CurrentRules
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.protocols import ResettableStorage, SyncResettableStorage
from sluicegate.domain.rules.compiled_rules import CompiledRules, Keys, label_of
from sluicegate.domain.rules.rule_book import RuleBook


class _HasScopes(Protocol):
    @property
    def all_scopes(self) -> set[str]: ...


class _HasRules(Protocol):
    @property
    def held(self) -> CurrentRules: ...

    def recompile(self) -> None: ...


class Neighbours:
    """Rules whose buckets may be where those of others are. In every process the same one of them has a key.

    Args:
        followed: The rules that all of them follow, whose keys come first; None: there are none.
        beside: All that stand beside each other, as long as they are used.
        own: Those whose neighbours these are.
    """

    def __init__(
        self,
        followed: _HasRules | None = None,
        beside: "Sequence[ref[_HasRules]]" = (),
        own: "ref[_HasRules] | None" = None,
    ) -> None:
        self._followed = followed
        self._beside = beside
        self._own = own

    def taken(self, book: RuleBook, key_format: KeyFormat) -> Keys:
        """Return the keys that rules would have if they were alone, and others have, which count otherwise.

        Of rules beside each other the one whose name sorts first has the key, whichever was made first: a worker makes an
        application's middlewares in the order in which they are asked.
        """
        if self._followed is None:
            return {}
        first = self._followed.held.snapshot.rules.keys
        beside = [_alone(rules, key_format) for rules in self._others()]
        found: Keys = {}
        for key, rule in CompiledRules(book, key_format).keys.items():
            rivals = [keys[key] for keys in beside if key in keys]
            before = [first[key]] if key in first else [one for one in rivals if label_of(one, ()) < label_of(rule, ())]
            if before:
                found[key] = before[0]
        return found

    def recompile(self) -> None:
        """Let the others see that there are new rules beside them."""
        for rules in self._others():
            rules.recompile()

    def _others(self) -> list[_HasRules]:
        return [rules for one in tuple(self._beside) if one is not self._own and (rules := one()) is not None]


def _alone(rules: _HasRules, key_format: KeyFormat) -> Keys:
    held: CurrentRules | None = getattr(rules, "held", None)  # of what another thread is making there is nothing yet
    return {} if held is None else CompiledRules(held.snapshot.effective, key_format).keys


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
        own = ref(rules)
        self._apart[:] = [*[one for one in self._apart if one() is not None], own]
        return Neighbours(followed, self._apart, own)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of all their buckets begin with."""
        return tuple(sorted({prefix for relative in list(self._all) for prefix in relative.prefixes}))

    def forget_all(self, prefixes: Iterable[str]) -> None:
        """Let all of them forget buckets that were reset in the storage."""
        for relative in list(self._all):
            relative.forget_all(prefixes)
