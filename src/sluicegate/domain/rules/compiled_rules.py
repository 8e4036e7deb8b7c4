"""Which rules hold for an endpoint, worked out once when the rules are put into force."""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, TypeAlias

from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import A_MESSAGE, MESSAGE, parse_endpoint
from sluicegate.domain.rules.endpoint_rules import EndpointRules, Limit, Substitute, joined, untouched
from sluicegate.domain.rules.identifier_index import IdentifierIndex
from sluicegate.domain.rules.rate import exact_rate
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import UNMATCHED, RuleBook, Rules
from sluicegate.domain.rules.rule_book_entries import Bound, Listed, Override

__all__ = ["UNMATCHED", "CompiledRules", "EndpointRules", "Limit", "Rules", "Substitute"]

Keys: TypeAlias = dict[tuple[str, str | None], RateLimitRule]
"""The parts of keys before and after the identifier, and the rules that count there."""

_MAX_COMBINED: Final = 1_000  # sets of endpoints whose rules are kept combined; clients choose among those that overlap


class CompiledRules:
    """Look up the rules of an endpoint.

    Args:
        rules: An endpoint (`POST /api/v1/sessions`) and its rule or rules, or a `RuleBook`.
        key_format: How buckets are named.
        switched_off: Which rules do not count, whatever they say of themselves; None: none. If `everything` is, the lists
            do not count either.
        taken: Keys that rules of others have, whose buckets may be in the same place: a rule that counts otherwise gets keys of
            its own. None: there are none.

    Raises:
        InvalidInputError: If an endpoint is not a text of 1 to 1024 bytes, is a route that cannot be read or has no rule, or
            two rules of an endpoint have the same name.
        InvalidTypeError: If something is not a rule.
    """

    __slots__ = (
        "_beside_code",
        "_by_endpoint",
        "_combined",
        "_compiler",
        "_scopes_of",
        "fallback",
        "lists",
        "routes",
        "unmatched",
    )

    def __init__(
        self,
        rules: Rules,
        key_format: KeyFormat,
        *,
        switched_off: Callable[[RateLimitRule], bool] | None = None,
        everything: bool = False,
        taken: Keys | None = None,
    ) -> None:
        book = rules if isinstance(rules, RuleBook) else RuleBook(rules)
        compiler = self._compiler = _Compiler(book, key_format, switched_off, everything, taken or {})
        self._by_endpoint: dict[str, EndpointRules] = {
            endpoint: compiler.endpoint_rules(endpoint, book.bound(endpoint)) for endpoint in book
        }
        self._beside_code: dict[str, EndpointRules] = {}
        self.routes: RouteTable = RouteTable([t for t in map(parse_endpoint, self._by_endpoint) if t is not None])
        """The endpoints that are templates."""
        self.unmatched: EndpointRules | None = self._by_endpoint.get(UNMATCHED)
        """The rules of endpoints that no other rule names; None: these pass."""
        self.lists: dict[str, IdentifierIndex[Listed]] = {} if everything else book.index_lists()
        """The allow and deny lists, by scope."""
        self.fallback: str | None = UNMATCHED if self.unmatched is not None or self.lists else None
        """The endpoint of a request that fits no template; None if there is nothing to ask for it."""
        self._combined: dict[tuple[str, ...], EndpointRules] = {}
        self._scopes_of: dict[str, tuple[str, ...]] = {
            endpoint: tuple(dict.fromkeys([*one.scopes, *self.lists])) for endpoint, one in self._by_endpoint.items()
        }

    def find(self, endpoint: str) -> EndpointRules | None:
        """Return the rules of an endpoint; None if it has none.

        Args:
            endpoint: A name that the rules have, or a method and a path that one of their templates fits; else the rules of
                unmatched endpoints are for it.
        """
        rules = self._by_endpoint.get(endpoint)
        if rules is None:
            rules = self._beside_code.get(endpoint)
        if rules is not None:
            return rules
        method, space, path = endpoint.partition(" ")
        name: str | None = None
        if method == MESSAGE:
            name = self.match(A_MESSAGE, path)
        if name is None:
            name = self.match(method, path) if space else self.match("*", endpoint)
        return self.unmatched if name is None else self._by_endpoint.get(name)

    def add_beside_code(
        self, name: str, endpoint: str, rules: Sequence[RateLimitRule], policies: Container[str]
    ) -> None:
        """Add rules that stand beside the code that they limit. No request matches them: the code names them.

        Args:
            name: What checks call them.
            endpoint: What users call them, and keys: there may be others of the same endpoint.
            rules: The rules.
            policies: The names of those that are an operator's policies, whose buckets outlive a change of the limit.
        """
        one = self._compiler.rules_beside_code(endpoint, rules, policies)
        self._scopes_of[name] = tuple(dict.fromkeys([*one.scopes, *self.lists]))
        self._beside_code[name] = one

    def has_beside_code(self, name: str) -> bool:
        """Return whether rules of a name were added by `add_beside_code`."""
        return name in self._beside_code

    def find_all(self, endpoint: str) -> EndpointRules | None:
        """Return all rules of an endpoint, those beside code as well, as `reset` and `peek` mean them.

        Args:
            endpoint: As for `find`.
        """
        rules = self.find(endpoint)
        if not self._beside_code or endpoint in self._beside_code:
            return rules
        every = tuple(self._beside_code.values())  # in one step: another thread may be adding some
        shown = tuple(dict.fromkeys([one.endpoint for one in every]))
        name: str | None = endpoint
        if endpoint not in shown:
            method, space, path = endpoint.partition(" ")
            templates = RouteTable([t for t in map(parse_endpoint, shown) if t is not None])
            name = templates.match(A_MESSAGE if method == MESSAGE else method, path) if space else None
        beside = [one for one in every if one.endpoint == name]
        if not beside:
            return rules
        if rules is None or rules is self.unmatched:
            return joined(beside)
        return joined([rules, *beside])

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint that a request belongs to; None if there is nothing to ask.

        If no template fits, that is `*` if it has a rule, or if there are lists, which may know the client all the same.
        Unlike in `find`, a path that reads like a template's text is a path like any other. Of a message there is nothing to ask
        if no template is for it.

        Args:
            method: The request's method in capitals, `WEBSOCKET`, or `A_MESSAGE`.
            path: The path, decoded, without the query.
        """
        endpoint = self.routes.match(method, path)
        return self.fallback if endpoint is None and method != A_MESSAGE else endpoint

    def match_every(self, method: str, path: str, ignoring_case: bool, empty_parameters: bool) -> list[str]:
        """Return the endpoints that a request may belong to where the router is not known; empty if no template fits.

        Args:
            method: As in `match`.
            path: As in `match`: one of its readings.
            ignoring_case: Whether letters match in either case.
            empty_parameters: Whether a parameter may take an empty segment.
        """
        return self.routes.match_every(method, path, ignoring_case, empty_parameters)

    def match_served(self, method: str, path: str, route: frozenset[str], routes: frozenset[str]) -> str | None:
        """Return the endpoint of a request whose route is known; the unmatched one's if no template is for it.

        Args:
            method: As in `match`.
            path: As in `match`, as the router reads it.
            route: The shapes of the route that serves it; empty: none does.
            routes: The shapes of all routes of the application.
        """
        endpoint = self.routes.match_served(method, path, route, routes)
        return self.fallback if endpoint is None and method != A_MESSAGE else endpoint

    def combine(self, endpoints: tuple[str, ...]) -> EndpointRules | None:
        """Return the rules of several endpoints as if they were one endpoint's, each bucket once; None if there are none.

        Args:
            endpoints: The endpoints as the rules name them; the result has the first one's name.
        """
        combined = self._combined.get(endpoints)
        if combined is None:
            known = [rules for rules in map(self._by_endpoint.get, endpoints) if rules is not None]
            if len(known) < 2:  # noqa: PLR2004 - there is nothing to combine
                return known[0] if known else None
            combined = joined(known)
            if len(self._combined) >= _MAX_COMBINED:
                self._combined.clear()
            self._combined[endpoints] = combined
        return combined

    @property
    def keys(self) -> Keys:
        """The frames of the keys of all endpoints' rules; those beside code have others."""
        return {frame: rule for one in self._by_endpoint.values() for frame, rule in one.keys.items()}

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that the rules and the lists count, all together."""
        return frozenset([*[scope for one in self._by_endpoint.values() for scope in one.scopes], *self.lists])

    def scopes_of(self, endpoint: str) -> tuple[str, ...]:
        """Return the scopes whose identifiers a check of an endpoint needs, each once: its rules' and the lists'."""
        scopes = self._scopes_of.get(endpoint)
        if scopes is not None:
            return scopes
        rules = self.find(endpoint)
        return tuple(self.lists) if rules is None else self._scopes_of[rules.endpoint]

    @property
    def all_rules(self) -> Iterable[EndpointRules]:
        """The rules of all endpoints, in the order of the book."""
        return self._by_endpoint.values()

    def __len__(self) -> int:
        return len(self._by_endpoint)

    def __repr__(self) -> str:
        return f"CompiledRules(endpoints={len(self._by_endpoint)})"


class _Compiler:
    """Compile the rules of one endpoint after the other."""

    def __init__(
        self,
        book: RuleBook,
        key_format: KeyFormat,
        switched_off: Callable[[RateLimitRule], bool] | None,
        everything: bool,
        taken: Keys,
    ) -> None:
        self._taken = taken
        self._key_format = key_format
        self._switched_off = switched_off
        self._everything = everything
        self._overrides: dict[str, list[Override]] = {}
        for override in book.overrides:
            self._overrides.setdefault(override.policy, []).append(override)

    def endpoint_rules(self, endpoint: str, bound: tuple[Bound, ...]) -> EndpointRules:
        variants: list[str] = []
        seen: dict[tuple[str, str], int] = {}
        for one in bound:
            # The first rule of a scope has the plain key; the others carry their name, or their number among the scope's.
            seen[one.bucket, one.rule.scope] = nth = seen.get((one.bucket, one.rule.scope), 0) + 1
            variants.append("" if nth == 1 else one.rule.name or f"#{nth}")
        return self._compile(endpoint, bound, variants)

    def rules_beside_code(
        self, endpoint: str, rules: Sequence[RateLimitRule], policies: Container[str]
    ) -> EndpointRules:
        # Which other rules the endpoint has depends on what code ran before, so the keys have names and no numbers.
        return self._compile(
            endpoint, [Bound(rule, endpoint) for rule in rules], [f"@{label_of(rule, policies)}" for rule in rules]
        )

    def _compile(self, endpoint: str, bound: Sequence[Bound], variants: Sequence[str]) -> EndpointRules:
        limits: list[Limit] = []
        in_flight: list[Limit] = []
        shadows: list[Limit] = []
        frames: set[tuple[str, str | None]] = set()
        for at, one in enumerate(bound):
            rule, bucket = one.rule, one.bucket
            frame = self._key_format.frame(rule.scope, bucket, variants[at])
            other = self._taken.get(frame)
            if other is not None and label_of(other, ()) != label_of(rule, ()):
                frame = self._key_format.frame(rule.scope, bucket, f"&{label_of(rule, ())}")
            if frame in frames:
                raise InvalidInputError(f"rules[{endpoint!r}]: two rules of {bucket!r} would count in the same bucket")
            frames.add(frame)
            if self._counts(rule):
                limit = Limit(rule, bucket, frame, self._index_overrides(rule, bucket, frame))
                (shadows if rule.shadow else in_flight if limit.in_flight else limits).append(limit)
        return EndpointRules(
            endpoint,
            tuple(limits),
            tuple(shadows),
            None if limits else untouched([one.rule for one in bound]),
            tuple(dict.fromkeys([limit.scope for limit in (*limits, *in_flight, *shadows)])),
            frozenset([one.rule.policy for one in bound]),
            tuple(in_flight),
        )

    def _counts(self, rule: RateLimitRule) -> bool:
        if not rule.enabled or self._everything:
            return False
        return self._switched_off is None or not self._switched_off(rule)

    def _index_overrides(
        self, rule: RateLimitRule, bucket: str, frame: tuple[str, str | None]
    ) -> "IdentifierIndex[Substitute] | None":
        overrides: Sequence[Override] = self._overrides.get(rule.name, ()) if rule.name else ()
        if not overrides:
            return None
        return IdentifierIndex(rule.scope, [_substitute(rule, override, bucket, frame) for override in overrides])


def label_of(rule: RateLimitRule, policies: Container[str]) -> str:
    """Return a policy's name, or what tells a rule from every other one that counts differently: limit, and own name."""
    if rule.name in policies:
        return rule.name
    if exact_rate(rule.refill_rate) * rule.full_seconds == 60 * rule.max_tokens:
        label = f"{rule.max_tokens}-{rule.full_seconds}s"
    else:  # the rounded time would be that of other rules as well
        label = f"{rule.max_tokens}-{rule.refill_rate!r}pm"
    return f"{rule.name} {label}" if rule.name else label


def _substitute(rule: RateLimitRule, override: Override, bucket: str, frame: tuple[str, str | None]) -> Substitute:
    instead: RateLimitRule = override.rule
    if not instead.enabled:
        return Substitute(override, None)
    return Substitute(override, Limit(rule.with_limit_of(instead), bucket, frame))
