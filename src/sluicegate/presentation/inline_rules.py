"""Rules that stand beside the code that they limit, given as rules or texts, and the limiters that apply them."""

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.rule_book import Rules

RuleOrText: TypeAlias = RateLimitRule | str
"""A rule, or a text such as `5/minute per user`."""


class _HasRules(Protocol):
    def with_rules(self, rules: Rules, /) -> Self: ...


L = TypeVar("L", bound=_HasRules)


def read_rules(rules: tuple[RuleOrText, ...]) -> tuple[RateLimitRule, ...]:
    """Return rules for what was given.

    Raises:
        InvalidInputError: If there is none, or one cannot be read.
    """
    if not rules:
        raise InvalidInputError("rules: expected at least one, such as '5/minute'")
    return tuple(_rule(rule) for rule in rules)


class InlineLimiters(Generic[L]):
    """Apply the same rules at several places in code, each with buckets of its own. All share one storage.

    Args:
        rules: The rules.
        kind: The limiter's class.
        find: Returns the limiter whose storage is shared; called for the first check.
        name: The endpoint in keys at every place; empty: made of the place and the rules.
    """

    def __init__(
        self, rules: tuple[RateLimitRule, ...], kind: type[L], find: Callable[[], object], *, name: str = ""
    ) -> None:
        self._rules = rules
        self._kind = kind
        self._find = find
        self._name = name
        self._at: dict[str, tuple[str, L]] = {}

    def at(self, place: str) -> tuple[str, L]:
        """Return the endpoint and the limiter of a place in the code.

        Args:
            place: What tells the place from others. It comes from code, not from clients: there are as many as places.

        Raises:
            InvalidTypeError: If the limiter whose storage is shared is of another class.
            InvalidInputError: If it has to be built from the settings, and one is wrong.
        """
        known = self._at.get(place)
        if known is None:
            endpoint = self._name or f"{place} {' '.join([rule.policy for rule in self._rules])}"
            base = require_kind(self._find(), self._kind)
            known = self._at[place] = endpoint, base.with_rules({endpoint: self._rules})
        return known


def require_kind(limiter: object, kind: type[L]) -> L:
    """Return a limiter that is of a class.

    Raises:
        InvalidTypeError: If it is not.
    """
    if not isinstance(limiter, kind):
        raise InvalidTypeError(f"limiter={limiter!r:.80}: expected a {kind.__name__}, which can take rules of its own")
    return limiter


def _rule(rule: object) -> RateLimitRule:
    if isinstance(rule, RateLimitRule):
        return rule
    if isinstance(rule, str):
        return RateLimitRule.parse(rule)
    raise InvalidTypeError(f"rules: {rule!r:.80}: expected a RateLimitRule or a text such as '5/minute'")
