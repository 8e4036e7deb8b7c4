"""Overrides that operators add while the limiter runs. Those of the rules file stay as they are beneath them."""

from collections.abc import Iterable
from datetime import datetime

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.identifier_index import read_network
from sluicegate.domain.rules.rule import RateLimitScope
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.domain.rules.rule_book_entries import Override


class AddedOverrides:
    """Hold overrides, one for each rule and identifier."""

    def __init__(self) -> None:
        self._added: dict[tuple[str, str], Override] = {}

    def add(self, override: Override) -> None:
        """Add an override; it takes the place of one that was added for the same rule and identifier."""
        self._added[override.policy, _canonical(override)] = override

    def remove(self, policy: str, identifier: str) -> bool:
        """Remove an override that was added, and return whether there was one."""
        for key, override in self._added.items():
            if key == (policy, identifier) or (override.policy, override.identifier) == (policy, identifier):
                del self._added[key]
                return True
        return False

    def in_force(self, now: datetime) -> tuple[Override, ...]:
        """Forget those that have ended, and return the others."""
        self._added = {
            key: override for key, override in self._added.items() if override.until is None or override.until > now
        }
        return tuple(self._added.values())

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
