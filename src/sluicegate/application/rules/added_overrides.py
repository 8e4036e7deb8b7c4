"""Overrides that operators add while the limiter runs. Those of the rules file stay as they are beneath them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.identifier_index import read_network
from sluicegate.domain.rules.rule import RateLimitScope
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.domain.rules.rule_book_entries import Override

_Key = tuple[str, str]


class AddedOverrides:
    """Hold overrides, one for each rule and identifier. A change returns another value.

    Args:
        added: The overrides, by rule and identifier.
    """

    def __init__(self, added: Mapping[_Key, Override] | None = None) -> None:
        self._added: Final[Mapping[_Key, Override]] = {} if added is None else added

    def with_one(self, override: Override, now: datetime) -> "AddedOverrides":
        """Return these and another one, which takes the place of one for the same rule and identifier.

        Args:
            override: The other one.
            now: The wall clock's instant: those that have ended are left out.
        """
        in_force = {key: one for key, one in self._added.items() if not _is_over(one, now)}
        return AddedOverrides({**in_force, (override.policy, _canonical(override)): override})

    def without(self, policy: str, identifier: str) -> "AddedOverrides":
        """Return these without one; the same value if there is none for the rule and identifier."""
        for key, override in self._added.items():
            if key == (policy, identifier) or (override.policy, override.identifier) == (policy, identifier):
                return AddedOverrides({other: one for other, one in self._added.items() if other != key})
        return self

    def in_force(self, now: datetime) -> tuple[Override, ...]:
        """Return those that have not ended."""
        return tuple([override for override in self._added.values() if not _is_over(override, now)])

    def merged(self, book: RuleBook, now: datetime) -> RuleBook:
        """Return a book with these overrides as well, which win over its own. Those of rules that it lacks wait.

        Args:
            book: The rules.
            now: The wall clock's instant.
        """
        added = [override for override in self.in_force(now) if override.policy in book.policies]
        if not added:
            return book
        keys = {(override.policy, _canonical(override)) for override in added}
        own: Iterable[Override] = (one for one in book.overrides if (one.policy, _canonical(one)) not in keys)
        return book.with_overrides([*own, *added])

    def __repr__(self) -> str:
        return f"AddedOverrides({len(self._added)})"


def _is_over(override: Override, now: datetime) -> bool:
    return override.until is not None and override.until <= now


def _canonical(override: Override) -> str:
    """Return the identifier so that two texts for one network are equal.

    Raises:
        InvalidInputError: If the rule counts addresses and it is none.
    """
    if override.rule.scope == RateLimitScope.IP:
        return str(read_network(override.identifier))
    if override.rule.scope == RateLimitScope.GLOBAL:
        raise InvalidInputError("identifier: the scope global has no identifiers to override")
    return override.identifier
