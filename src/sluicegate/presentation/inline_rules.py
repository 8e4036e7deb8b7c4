"""Rules that stand beside the code that they limit, given as rules or texts, and the limiters that apply them."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final, Generic, Protocol, Self, TypeAlias, TypeVar

from sluicegate.domain.arguments import MAX_TEXT_BYTES, require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rate import exact_rate
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.rule_book import Rules

RuleOrText: TypeAlias = RateLimitRule | str
"""A rule, or a text such as `5/minute per user`."""


class _HasRules(Protocol):
    def with_rules(self, rules: Rules, /) -> Self: ...


L = TypeVar("L", bound=_HasRules)

_LONGEST_PLAIN: Final = MAX_TEXT_BYTES - 33  # room for a digest


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
        name: What keys name in the place's stead; empty: the place.

    Raises:
        InvalidInputError: If the name is longer than 1024 bytes.
        InvalidTypeError: If it is not a text.
    """

    def __init__(
        self, rules: tuple[RateLimitRule, ...], kind: type[L], find: Callable[[], object], *, name: str = ""
    ) -> None:
        self._rules = rules
        self._kind = kind
        self._find = find
        self._name = "" if name == "" else require_text("name", name)
        self._label = " ".join([_label(rule) for rule in rules])
        self._at: dict[str, tuple[str, L]] = {}

    def at(self, place: str) -> tuple[str, L]:
        """Return the endpoint and the limiter of a place in the code. The endpoint names the rules: others have other buckets.

        Args:
            place: What tells the place from others. It comes from code, not from clients: there are as many as places.

        Raises:
            InvalidTypeError: If the limiter whose storage is shared is of another class.
            InvalidInputError: If it has to be built from the settings, and one is wrong.
        """
        known = self._at.get(place)
        if known is None:
            endpoint = _endpoint(f"{self._name or place} {self._label}")
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


def _label(rule: RateLimitRule) -> str:
    """Return what tells a rule from every other one that counts differently: scope, capacity, time to full, own name."""
    if exact_rate(rule.refill_rate) * rule.full_seconds == 60 * rule.max_tokens:
        time_to_full = f"{rule.full_seconds}s"
    else:  # rounded up it would be that of other rules as well
        time_to_full = f"{rule.refill_rate!r}pm"
    label = f"{rule.scope}-{rule.max_tokens}-{time_to_full}"
    return f"{rule.name} {label}" if rule.name else label


def _endpoint(text: str) -> str:
    """Return a text as an endpoint: one that is too long ends in a digest of the whole."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= MAX_TEXT_BYTES:
        return text
    return f"{data[:_LONGEST_PLAIN].decode('utf-8', 'ignore')} {blake2b(data, digest_size=16).hexdigest()}"


def _rule(rule: object) -> RateLimitRule:
    if isinstance(rule, RateLimitRule):
        return rule
    if isinstance(rule, str):
        return RateLimitRule.parse(rule)
    raise InvalidTypeError(f"rules: {rule!r:.80}: expected a RateLimitRule or a text such as '5/minute'")
