"""The names that rules in force have: the only ones that metrics and traces show, because callers may make up others."""

from collections.abc import Mapping, Sequence, Sized
from typing import Final, Protocol

from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook

OTHER: Final = "other"
"""The name of what no rule in force names."""


class NamedRules(Protocol):
    """Rules in force, as far as their names are read."""

    @property
    def book(self) -> RuleBook:
        """The rules that were given, by endpoint; another object once they are replaced."""
        ...

    @property
    def rules_beside_code(self) -> Sized:
        """What stands beside code; it only grows."""
        ...

    @property
    def beside_code(self) -> Mapping[str, Sequence[RateLimitRule]]:
        """The rules that stand beside code, by endpoint."""
        ...


class RuleNames:
    """Know the names of the rules in force, so that what callers name themselves creates no series.

    Args:
        rules: The rules.
    """

    def __init__(self, rules: NamedRules) -> None:
        self._rules = rules
        self._read: tuple[RuleBook | None, int] = (None, 0)
        self._endpoints: frozenset[str] = frozenset()
        self._policies: frozenset[str] = frozenset()

    def labels(self, endpoint: str, policy: str) -> tuple[str, str]:
        """Return an endpoint and the name of a rule, which may be empty; `other` in place of what no rule in force has."""
        book, count = self._rules.book, len(self._rules.rules_beside_code)
        if self._read[0] is not book or self._read[1] != count:
            self._read_names(book)
            self._read = book, count
        if endpoint not in self._endpoints:
            return OTHER, OTHER if policy else ""
        return endpoint, policy if policy in self._policies else OTHER

    def _read_names(self, book: RuleBook) -> None:
        beside_code = self._rules.beside_code
        self._endpoints = frozenset((*book, *beside_code))
        self._policies = frozenset(
            ["", *[rule.policy for rules_of in (book, beside_code) for rules in rules_of.values() for rule in rules]]
        )
