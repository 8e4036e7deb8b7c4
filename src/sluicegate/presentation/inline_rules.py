"""Rules that stand beside the code they limit: given as rules or texts, and kept under a name of their own."""

from collections.abc import Callable
from typing import Protocol, Self, TypeAlias, TypeVar

from sluicegate.domain.compiled_rules import Rules
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rule import RateLimitRule

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


def policies(rules: tuple[RateLimitRule, ...]) -> str:
    """Return what tells these rules from others of the same place in keys."""
    return " ".join(rule.policy for rule in rules)


class LimiterByName:
    """Limiters with the same rules for several names, which share one storage.

    Args:
        rules: The rules of each.
    """

    def __init__(self, rules: tuple[RateLimitRule, ...]) -> None:
        self._rules = rules
        self._limiters: dict[tuple[type, str], object] = {}

    def get(self, kind: type[L], name: str, find: Callable[[], object]) -> L:
        """Return the limiter for a name.

        Args:
            kind: The limiter's class.
            name: What stands for the endpoint. Names come from code, not from clients: there are as many as places.
            find: Returns the limiter whose storage is shared; called the first time.

        Raises:
            InvalidTypeError: If that is a limiter of another class, which cannot take rules.
        """
        known = self._limiters.get((kind, name))
        if isinstance(known, kind):
            return known
        base = find()
        if not isinstance(base, kind):
            raise InvalidTypeError(f"limiter={base!r:.80}: expected a {kind.__name__}, which can take rules of its own")
        made = self._limiters[kind, name] = base.with_rules({name: self._rules})
        return made


def _rule(rule: object) -> RateLimitRule:
    if isinstance(rule, RateLimitRule):
        return rule
    if isinstance(rule, str):
        return RateLimitRule.parse(rule)
    raise InvalidTypeError(f"rules: {rule!r:.80}: expected a RateLimitRule or a text such as '5/minute'")
