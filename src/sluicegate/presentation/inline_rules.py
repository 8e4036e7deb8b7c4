"""Rules that stand beside the code that they limit: given as rules, texts, names of policies, or functions that return them."""

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.domain.arguments import MAX_TEXT_BYTES, require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import reads_as_name, rules_of
from sluicegate.presentation.start_check import require_settings
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.request_reader import require_functions

RuleOrText: TypeAlias = RateLimitRule | str
"""A rule, a text such as `5/minute per user` or `5/minute; 100/hour`, or the name of a policy of the rules file."""

RuleFunction: TypeAlias = Callable[..., RuleOrText | Sequence[RuleOrText]]
"""Return the rules of one request, such as those of the client's plan; a plain function."""

InlineRule: TypeAlias = RuleOrText | RuleFunction

_LONGEST_PLAIN: Final = MAX_TEXT_BYTES - 33  # room for a digest
_MAX_ANSWERS: Final = 1024
"""How many different rules the function of one place may return: more is a mistake, which would fill the memory."""


class _HasRules(Protocol):
    @property
    def rules(self) -> LiveRules: ...


L = TypeVar("L", bound=_HasRules)


def read_rules(rules: Sequence[object]) -> tuple[RuleOrText, ...]:
    """Return rules for what was given: texts that are rates are parsed, and names of policies stay as they are.

    Raises:
        InvalidInputError: If there is none, or one cannot be read.
    """
    if not rules:
        raise InvalidInputError("rules: expected at least one, such as '5/minute'")
    read: list[RuleOrText] = []
    for rule in rules:
        if isinstance(rule, RateLimitRule):
            read.append(rule)
        elif not isinstance(rule, str):
            raise InvalidTypeError(f"rules: {rule!r:.80}: expected a RateLimitRule or a text such as '5/minute'")
        elif reads_as_name(rule):
            read.append(rule)
        else:
            read += RateLimitRule.parse_all(rule)
    return tuple(dict.fromkeys(read))


class InlineRules(Generic[L]):
    """Apply the same rules at several places in code, each with buckets of its own. They are part of a limiter's rules in force.

    Args:
        rules: The rules, or functions that return them.
        kind: The limiter's class.
        limiter: The limiter; None: the process's one.
        find: Returns the process's one; called for the first check.
        name: The endpoint in keys at every place; empty: the place.
        requests: Asks the limiter, and knows for which scopes the application names clients; None: it has no functions.
        at_start: Whether the settings of the process's limiter are checked now; if not, the application does when it starts.

    Raises:
        InvalidInputError: If a rule cannot be read, names a policy that the limiter does not have, or counts a scope for which
            the application names no client; or if a setting is wrong.
        InvalidTypeError: If the limiter is of another class, or a function would have to be awaited.
    """

    def __init__(  # noqa: PLR0913 - what a place has
        self,
        rules: Sequence[InlineRule],
        kind: type[L],
        limiter: object,
        find: Callable[[], object],
        *,
        name: str = "",
        requests: RequestLimiter | None = None,
        at_start: bool = True,
    ) -> None:
        self._functions = tuple(rule for rule in rules if callable(rule))
        require_functions({f"rules[{at}]": function for at, function in enumerate(self._functions)}, awaits=False)
        fixed = [rule for rule in rules if not callable(rule)]
        self._fixed = read_rules(fixed) if fixed or not self._functions else ()
        self._kind = kind
        self._limiter = None if limiter is None else require_kind(limiter, kind)
        self._find = find
        self._name = "" if name == "" else require_text("name", name)
        self._requests = requests
        self._known: dict[tuple[str, tuple[RuleOrText, ...]], str] = {}
        self._asked: L | None = None
        self._strictest: dict[str, tuple[RuleOrText, ...]] = {}
        self._require_scopes([rule for rule in self._fixed if isinstance(rule, RateLimitRule)])
        if self._limiter is not None and self._fixed:
            self._require_scopes(rules_of("rules", self._fixed, self._limiter.rules.book.policies))
        elif self._limiter is None and at_start:
            self._require_scopes(require_settings(self._fixed))

    def note(self, place: str) -> None:
        """Note a place in code, for commands that show which rules code declares."""
        declared_places.setdefault(self, set()).add(place)

    @property
    def limiter(self) -> L:
        """The limiter.

        Raises:
            InvalidInputError: If it has to be built from the settings, and one is wrong.
        """
        if self._limiter is None:
            return require_kind(self._find(), self._kind)
        return self._limiter

    @property
    def asks_functions(self) -> bool:
        """Whether the rules depend on the request."""
        return bool(self._functions)

    def shown_at(self, place: str) -> str:
        """Return what users call a place."""
        return self._name or place

    def at(self, place: str, *arguments: object, **keywords: object) -> tuple[str, L]:
        """Return the endpoint that a check at a place in the code names, and the limiter that is asked.

        Args:
            place: What users call the place. It comes from code, not from clients: there are as many as places.
            arguments: What functions that return rules get.
            keywords: The same, by name.

        Raises:
            InvalidInputError: If a name is no policy's, or the limiter has to be built and a setting is wrong.
        """
        endpoint = _short(self._name or place)
        limiter = self.limiter
        if self._asked is not limiter:  # another process's limiter, in tests
            self._asked, self._known = limiter, {}
        rules = self._fixed
        if self._functions:
            rules = (*rules, *self._returned(endpoint, arguments, keywords))
        return self._declared(limiter, endpoint, rules), limiter

    def _returned(
        self, endpoint: str, arguments: tuple[object, ...], keywords: dict[str, object]
    ) -> tuple[RuleOrText, ...]:
        """Return what the functions return; if one fails, the strictest rules that they have returned so far at this place.

        A client that can make them fail gains nothing by it.
        """
        strictest = self._strictest.get(endpoint)
        returned: list[object] = []
        try:
            for function in self._functions:
                answer = function(*arguments, **keywords)
                returned += [answer] if isinstance(answer, RateLimitRule | str) else answer
            rules = read_rules(returned)
            if (endpoint, (*self._fixed, *rules)) not in self._known:
                if len(self._known) >= _MAX_ANSWERS:
                    raise InvalidInputError(f"more than {_MAX_ANSWERS} different rules at {endpoint!r}")  # noqa: TRY301
                if strictest is None or _rate(rules) < _rate(strictest):
                    self._strictest[endpoint] = rules
        except Exception as error:
            if self._requests is None or strictest is None:
                raise
            self._requests.warn("rules", "A function that returns rules failed; took the strictest ones so far.", error)
            return strictest
        return rules

    def _declared(self, limiter: L, endpoint: str, rules: tuple[RuleOrText, ...]) -> str:
        name = self._known.get((endpoint, rules))
        if name is None:
            name = limiter.rules.add_beside_code(endpoint, rules)
            self._require_scopes(rules_of(endpoint, rules, limiter.rules.book.policies))
            self._known[endpoint, rules] = name
        return name

    def _require_scopes(self, rules: Sequence[RateLimitRule]) -> None:
        if self._requests is not None:
            self._requests.require_scopes([str(rule.scope) for rule in rules])


declared_places: "WeakKeyDictionary[InlineRules[Any], set[str]]" = WeakKeyDictionary()
"""Where in the code there are rules, as far as that is noted."""


def _rate(rules: tuple[RuleOrText, ...]) -> float:
    """Return the tokens a minute of the slowest of some rules; policies, whose rate is not known here, count as fast."""
    return min([rule.refill_rate for rule in rules if isinstance(rule, RateLimitRule)], default=math.inf)


def _short(text: str) -> str:
    """Return a text as an endpoint: one that is too long ends in a digest of the whole."""
    if len(text) * 4 <= MAX_TEXT_BYTES:
        return text
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= MAX_TEXT_BYTES:
        return text
    return f"{data[:_LONGEST_PLAIN].decode('utf-8', 'ignore')} {blake2b(data, digest_size=16).hexdigest()}"


def require_kind(limiter: object, kind: type[L]) -> L:
    """Return a limiter that is of a class.

    Raises:
        InvalidTypeError: If it is not.
    """
    if not isinstance(limiter, kind):
        raise InvalidTypeError(f"limiter={limiter!r:.80}: expected a {kind.__name__}, which can take rules of its own")
    return limiter
