"""One check: what it asks the storage, and what came of it. Shared by the async and the sync limiter."""

import math
from collections.abc import Mapping
from typing import Final

from mypy_extensions import mypyc_attr

from sluicegate.application.rules.lists_and_overrides import ListAnswer, find_listed, with_overrides
from sluicegate.domain.arguments import CERTAINLY_SHORT, read_cost, require_identifier, require_text
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms, Verdict
from sluicegate.domain.buckets.token_bucket import binding, impossible, result_at
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.result import Failure, RateLimitResult, Result
from sluicegate.domain.rules.compiled_rules import CompiledRules, EndpointRules, Limit
from sluicegate.domain.rules.identifier_index import WallClock
from sluicegate.domain.rules.rule import OnStorageError, RateLimitRule

NO_RULE: Final = RateLimitResult(allowed=True, retry_after=0.0, remaining=0, limit=0, reset_seconds=0)
"""The answer for an endpoint that no rule names."""


@mypyc_attr(acyclic=True, free_list_len=1)
class Check:
    """What to ask the storage, and what it answered.

    Args:
        rules: The endpoint's rules, as they are for this identifier; None: no rule is for the endpoint.
        requests: One for each limit of the rules; empty where the storage is not asked.
        identifier: The client: a text, or one for each scope.
        cost: Tokens to take in place of the rules' own costs; 0: the rules' own.
    """

    listed: ListAnswer | None = None
    """The answer of the allow or deny list, if it has one."""
    shadows: "tuple[Check, ...]" = ()
    """One check for each rule in shadow mode. Each is paid or not whatever becomes of the others."""
    result: RateLimitResult | None = None
    """The answer, once there is one."""
    verdict: Verdict | None = None
    """What the storage answered."""
    error: Exception | None = None
    """What kept the storage from answering."""
    degraded: OnStorageError | None = None
    """The failure policy that answered in the storage's place."""
    degraded_rule: RateLimitRule | None = None
    """The rule that this answer describes."""
    waits: bool = False
    """Whether the storage could not decide at once, this check or one of its shadows."""
    is_quiet: bool = False
    """Whether observers are not told of its result: it was a look, or passed only as a part of what was denied."""
    started_ns: int = 0
    """When it began, for its execution time; 0 without an event bus."""
    number: int = 0
    """What names the claims that it makes; 0: it makes none."""
    terms: tuple[ClaimTerms, ...] = ()
    """What claims it makes, one for each request; empty if it makes none."""

    def __init__(
        self,
        rules: EndpointRules | None,
        requests: tuple[BucketRequest, ...],
        identifier: str | dict[str, str],
        cost: int,
    ) -> None:
        self.rules = rules
        self.requests = requests
        self.identifier = identifier
        self.cost = cost

    @property
    def is_open(self) -> bool:
        """Whether there is neither an answer nor an error yet."""
        return self.result is None and self.error is None

    def conclude(self, verdict: Verdict) -> None:
        """Derive the answer from what the storage decided.

        Raises:
            Exception: If the storage returned what no storage may return.
        """
        requests = self.requests
        at = 0 if len(requests) == 1 else binding(requests, verdict)
        self.verdict = verdict
        self.result = result_at(requests, verdict, at)


class Decision:
    """What a check decided, and why.

    Args:
        result: The answer, as `is_allowed` gives it.
        rules: The rules that were asked; empty where none holds.
        binding: The one that the answer describes; None where there is none.
        degraded: The failure policy that answered in the storage's place; None: the storage decided.
        violated: Of a denial the rules that were exceeded, the one that binds among them.
    """

    __slots__ = ("binding", "degraded", "result", "rules", "violated")

    def __init__(
        self,
        result: RateLimitResult,
        rules: tuple[RateLimitRule, ...] = (),
        binding: RateLimitRule | None = None,
        degraded: OnStorageError | None = None,
        violated: tuple[RateLimitRule, ...] = (),
    ) -> None:
        self.result: Final = result
        self.rules: Final = rules
        self.binding: Final = binding
        self.degraded: Final = degraded
        self.violated: Final = violated

    @property
    def never_fits(self) -> bool:
        """Whether the cost is above the capacity of a rule, so that no wait would help."""
        return bool(self.rules) and not self.result.allowed and math.isinf(self.result.retry_after)

    def with_left(self, left: Result[RateLimitResult, RateLimitError]) -> "Decision":
        """Return the same decision about a cost that never fits, with what is left as a peek told it."""
        if isinstance(left, Failure):
            return self
        told = left.value
        result = RateLimitResult(False, math.inf, told.remaining, told.limit, told.reset_seconds)  # noqa: FBT003
        binds = [*[rule for rule in self.rules if rule.max_tokens == told.limit], self.binding]
        return Decision(result, self.rules, binds[0], self.degraded, self.violated)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and (
            self.result,
            self.rules,
            self.binding,
            self.degraded,
            self.violated,
        ) == (other.result, other.rules, other.binding, other.degraded, other.violated)

    def __hash__(self) -> int:
        return hash(self.result)

    def __reduce__(self) -> tuple[object, ...]:
        return Decision, (self.result, self.rules, self.binding, self.degraded, self.violated)

    def __repr__(self) -> str:
        return f"Decision({self.result!r}, binding={self.binding!r}, degraded={self.degraded!r})"


def result_of(check: Check) -> RateLimitResult:
    """Return the answer of a check that is done."""
    result = check.result
    assert result is not None  # noqa: S101 - the caller has seen to it
    return result


def decision_of(check: Check) -> Decision:
    """Return a check's answer with the rules that were asked, and the one that it describes."""
    answer = result_of(check)
    rules = check.rules
    if rules is None or check.listed is not None or rules.disabled is not None:
        return Decision(answer)
    if check.degraded is not None:
        rule = check.degraded_rule
        return Decision(answer, rules.rules, rule, check.degraded, () if answer.allowed or rule is None else (rule,))
    if len(rules.limits) == 1:  # not `rules.rules`: mypy would narrow it, and mypyc build a new tuple
        return Decision(answer, rules.rules, rules.rules[0], None, () if answer.allowed else rules.rules)
    if check.verdict is not None:
        binds = rules.rules[binding(check.requests, check.verdict)]
        return Decision(answer, rules.rules, binds, None, _violated(rules.rules, check.requests, check.verdict))
    exceeded = tuple([rule for rule in rules.rules if rule.max_tokens < (check.cost or rule.cost)])
    smallest = [rule for rule in exceeded if rule.max_tokens == answer.limit]
    return Decision(answer, rules.rules, smallest[0] if smallest else None, None, exceeded)


def _violated(
    rules: tuple[RateLimitRule, ...], requests: tuple[BucketRequest, ...], verdict: Verdict
) -> tuple[RateLimitRule, ...]:
    """Return the rules that had not enough tokens."""
    if verdict.allowed:
        return ()
    return tuple([rules[at] for at, request in enumerate(requests) if verdict.levels[at].level < request.cost_units])


def prepare(  # noqa: PLR0913, PLR0917 - what a check depends on
    compiled: CompiledRules,
    key_format: KeyFormat,
    endpoint: object,
    identifier: object,
    cost: object,
    now: WallClock,
    consult_lists: bool = True,
    also: tuple[str, ...] = (),
    claims: bool = False,
    beside_code: bool = False,
    claimed: bool = False,
) -> Check:
    """Work out what to ask, or the answer if there is nothing to ask.

    Args:
        compiled: The rules in force.
        key_format: How buckets are named.
        endpoint: The endpoint as the caller names it.
        identifier: The client.
        cost: Tokens; 0: the rules' own cost; or a mapping from rule to tokens.
        now: The wall clock, asked only where a list's entry or an override that matches has an end.
        consult_lists: Whether the allow and deny lists are asked; not where the buckets themselves are meant.
        also: Other endpoints, as the rules name them, whose rules hold as well. A bucket of several of them is asked once.
        claims: Whether the rules of calls in flight are asked as well.
        beside_code: Whether all rules of the endpoint are meant, those that stand beside its code as well.
        claimed: Whether these are claims of an earlier call, so that rules that have come since may count scopes that the
            identifier does not name.

    Returns:
        The check. It has a result already if no rule is for the endpoint, a list has the client, all rules are disabled or
        switched off, or the cost can never fit.

    Raises:
        InvalidInputError: If an argument is wrong: negative cost, a cost for a rule that the endpoint has not, empty or
            overlong text, a scope without identifier.
        InvalidTypeError: If an argument is of the wrong type.
    """
    named: dict[str, int] | None = None
    if type(cost) is int and cost >= 0:
        tokens = cost
    else:
        tokens, named = read_cost(cost)
    name = endpoint if type(endpoint) is str else require_text("endpoint", endpoint)
    client = (
        identifier
        if type(identifier) is str and 0 < len(identifier) <= CERTAINLY_SHORT
        else require_identifier(identifier)
    )
    if also:  # noqa: SIM108 - two questions, not one
        rules = compiled.combine((name, *also))
    else:
        rules = compiled.find_all(name) if beside_code else compiled.find(name)
    if rules is None:
        require_text("endpoint", name)
    if compiled.lists and consult_lists:
        listed = find_listed(compiled.lists, rules, name, client, now)
        if listed is not None:
            check = Check(rules, (), client, tokens)
            check.listed = listed
            check.result = listed.result
            return check
    if rules is None:
        check = Check(None, (), client, tokens)
        check.result = NO_RULE
        return check
    if claims:
        rules = rules.claimed.named_by(client) if claimed else rules.claimed
    if rules.has_overrides:
        rules = with_overrides(rules, client, now)
    check = ask_rules(rules, key_format, client, tokens, named)
    if rules.shadows:
        check.shadows = tuple(
            [ask_rules(rules.alone(shadow), key_format, client, tokens, named) for shadow in rules.shadows]
        )
    return check


def require_policies(costs: Mapping[str, int], rules: EndpointRules) -> None:
    """Refuse costs for rules that an endpoint has not. Rules that are switched off are fine.

    Raises:
        InvalidInputError: If there is one.
    """
    for name in costs:
        if name not in rules.policies:
            known = ", ".join(sorted(rules.policies))
            raise InvalidInputError(f"cost[{name!r:.80}]: {rules.endpoint} has no rule of this name, but {known}")


def ask_rules(
    rules: EndpointRules,
    key_format: KeyFormat,
    identifier: str | dict[str, str],
    cost: int,
    named: dict[str, int] | None = None,
) -> Check:
    """Return the check of some rules of an endpoint, without their shadows; arguments as in `prepare`, and costs by rule."""
    if named is not None:
        return _ask_by_rule(rules, key_format, identifier, named)
    if rules.disabled is None and cost <= rules.max_cost:
        return Check(rules, requests_for(rules.limits, key_format, identifier, cost), identifier, cost)
    check = Check(rules, (), identifier, cost)
    check.result = impossible(rules.max_cost) if rules.disabled is None else rules.disabled
    return check


def _ask_by_rule(
    rules: EndpointRules, key_format: KeyFormat, identifier: str | dict[str, str], named: dict[str, int]
) -> Check:
    """Do what `ask_rules` does where each rule has a cost of its own.

    Raises:
        InvalidInputError: If a cost is for a rule that the endpoint has not.
    """
    require_policies(named, rules)
    limits = rules.limits
    costs = [limit.rule.cost if limit.in_flight else named.get(limit.policy, limit.rule.cost) for limit in limits]
    check = Check(rules, (), identifier, costs[0] if costs else 0)
    if rules.disabled is not None:
        check.result = rules.disabled
        return check
    for at, limit in enumerate(limits):
        if costs[at] > limit.max_tokens:
            check.result = impossible(limit.max_tokens)
            return check
    check.requests = tuple(
        [
            request.with_cost(costs[at] * request.spec.units_per_token)
            for at, request in enumerate(requests_for(limits, key_format, identifier, 0))
        ]
    )
    return check


def requests_for(
    limits: tuple[Limit, ...], key_format: KeyFormat, identifier: str | dict[str, str], cost: int
) -> tuple[BucketRequest, ...]:
    """Return what to ask the buckets of some limits for; arguments as in `prepare`.

    Raises:
        InvalidInputError: If the identifier is a mapping without the scope of one of them.
    """
    if isinstance(identifier, str):
        encoded = key_format.encode(identifier)
        if len(limits) == 1:
            return (_request(limits[0], encoded, cost),)
        return tuple([_request(limit, encoded, cost) for limit in limits])
    return tuple([_request(limit, key_format.encode(limit.identifier_of(identifier)), cost) for limit in limits])


def _request(limit: Limit, encoded_identifier: str, cost: int) -> BucketRequest:
    after = limit.after
    key = limit.before if after is None else f"{limit.before}{encoded_identifier}{after}"
    spec = limit.spec
    cost_units = cost * spec.units_per_token if cost and not limit.in_flight else limit.cost_units
    return BucketRequest(key, spec, cost_units, limit.lease_units)
