"""The pure halves of a check: what to ask the storage, and what its answer means. Shared by the async and sync faces."""

from collections.abc import Mapping
from typing import cast

import msgspec

from sluicegate.application.lists_and_overrides import ListAnswer, identifier_for, list_answer, overridden
from sluicegate.domain.bucket_key import CERTAINLY_SHORT, KeyFormat, require_text
from sluicegate.domain.bucket_request import BucketRequest, Verdict
from sluicegate.domain.compiled_rules import CompiledRules, EndpointRules, Limit
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.identifier_index import Now
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.rule import OnStorageError, RateLimitRule
from sluicegate.domain.token_bucket import tightest, to_result

NO_RULE = RateLimitResult(allowed=True, retry_after=0.0, remaining=0, limit=0, reset_seconds=0)
"""The answer for an endpoint that no rule names."""

RULES_OWN = 0
"""The cost that stands for a rule's own. Compare by identity: 0 is one object, False and 0.0 are others, which are refused."""


class Check(msgspec.Struct, frozen=True, gc=False):
    """What to ask the storage.

    Args:
        endpoint_rules: The endpoint's rules.
        requests: One for each of the plan's meters.
        cost: Tokens to take in place of the rules' own costs; 0: the rules' own.
    """

    endpoint_rules: EndpointRules
    requests: tuple[BucketRequest, ...]
    cost: int


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What a check answered, and why.

    Args:
        result: The answer, as `is_allowed` gives it.
        rules: The rules that were asked; empty where none holds.
        binding: The one that the answer describes; None where there is none.
        degraded: The failure policy that answered in the storage's place; None: the storage decided.
    """

    result: RateLimitResult
    rules: tuple[RateLimitRule, ...] = ()
    binding: RateLimitRule | None = None
    degraded: OnStorageError | None = None


class ShadowedCheck(msgspec.Struct, frozen=True, gc=False):
    """A check with rules in shadow mode beside it.

    Each of these is a check of its own: it is paid or not whatever becomes of the others, so that it neither changes nor
    follows the answer.

    Args:
        endpoint_rules: The endpoint's rules.
        check: What decides; None if nothing does, because all rules are in shadow mode or the cost exceeds `max_cost`.
        shadows: For each rule in shadow mode what to ask; None if the cost exceeds its capacity, and it would deny.
        cost: As in `Check`.
    """

    endpoint_rules: EndpointRules
    check: Check | None
    shadows: tuple[BucketRequest | None, ...]
    cost: int


def prepare(  # noqa: PLR0913 - what a check depends on
    rules: CompiledRules,
    key_format: KeyFormat,
    endpoint: str,
    identifier: Identifier,
    cost: int,
    *,
    now: Now,
    heed_lists: bool = True,
) -> Check | ShadowedCheck | ListAnswer | EndpointRules | None:
    """Work out what to ask.

    Args:
        rules: The rules in force.
        key_format: How buckets are named.
        endpoint: The endpoint as the caller names it.
        identifier: Who asks.
        cost: Tokens; 0: the rules' own cost.
        now: The wall clock, asked only where a list's entry or an override that matches has an end.
        heed_lists: Whether the allow and deny lists are asked; not where the buckets themselves are meant.

    Returns:
        The check, with the rules in shadow mode if there are any; the answer if the allow or deny list has one; the plan if
        there is nothing to ask, because all its rules are disabled or the cost exceeds `max_cost`; None if no rule is for
        the endpoint.

    Raises:
        InvalidInputError: If an argument is wrong: negative cost, empty or overlong text, a scope without identifier.
        InvalidTypeError: If an argument is of the wrong type.
    """
    if type(cost) is not int or cost < 0:
        _require_cost(cost)
    endpoint_rules = rules.find(endpoint) if type(endpoint) is str else None
    if type(identifier) is not str or not 0 < len(identifier) <= CERTAINLY_SHORT:
        _require_identifier(identifier)
    if endpoint_rules is None:
        require_text("endpoint", endpoint)
    if rules.lists and heed_lists:
        answer = list_answer(rules.lists, endpoint_rules, endpoint, identifier, now)
        if answer is not None:
            return answer
    if endpoint_rules is None:
        return None
    if endpoint_rules.special:
        endpoint_rules = overridden(endpoint_rules, identifier, now)
        if endpoint_rules.shadows:
            return _with_shadows(endpoint_rules, key_format, identifier, cost)
    return _ask(endpoint_rules, key_format, identifier, cost)


def conclude(check: Check, verdict: Verdict) -> RateLimitResult:
    """Derive the answer that binds from what the storage told."""
    requests = check.requests
    if len(requests) == 1:
        return to_result(requests[0], verdict.levels[0], allowed=verdict.allowed)
    return tightest(requests, verdict)


def request_for(key_format: KeyFormat, limit_: Limit, identifier: Identifier, cost: int) -> BucketRequest:
    """Return what to ask one rule's bucket for; arguments as in `prepare`.

    Raises:
        InvalidInputError: If the identifier is a mapping without the rule's scope.
    """
    name = identifier_for(limit_, identifier)
    key = limit_.before if limit_.after is None else limit_.before + key_format.encode(name) + limit_.after
    cost_units = cost * limit_.spec.units_per_token if cost else limit_.cost_units
    return BucketRequest(key, limit_.spec, cost_units, limit_.lease_units)


def _ask(
    endpoint_rules: EndpointRules, key_format: KeyFormat, identifier: Identifier, cost: int
) -> Check | EndpointRules:
    limits = endpoint_rules.limits
    if not limits or cost > endpoint_rules.max_cost:
        return endpoint_rules
    if len(limits) == 1 and type(identifier) is str:
        limit_ = limits[0]
        after = limit_.after
        return Check(
            endpoint_rules,
            (
                BucketRequest(
                    limit_.before if after is None else limit_.before + key_format.encode(identifier) + after,
                    limit_.spec,
                    cost * limit_.spec.units_per_token if cost else limit_.cost_units,
                    limit_.lease_units,
                ),
            ),
            cost,
        )
    return Check(endpoint_rules, tuple([request_for(key_format, limit_, identifier, cost) for limit_ in limits]), cost)


def _with_shadows(
    endpoint_rules: EndpointRules, key_format: KeyFormat, identifier: Identifier, cost: int
) -> ShadowedCheck:
    asked = _ask(endpoint_rules, key_format, identifier, cost)
    check = asked if isinstance(asked, Check) else None
    shadows = tuple(
        [
            None if cost > limit_.rule.max_tokens else request_for(key_format, limit_, identifier, cost)
            for limit_ in endpoint_rules.shadows
        ]
    )
    return ShadowedCheck(endpoint_rules, check, shadows, cost)


def _require_cost(cost: object) -> None:
    if type(cost) is not int:
        raise InvalidTypeError(f"cost={cost!r:.80}: expected a whole number, not {type(cost).__name__}")
    if cost < 0:
        raise InvalidInputError(f"cost={cost}: expected 0 (the rule's own cost) or more")


def _require_identifier(identifier: object) -> None:
    if isinstance(identifier, Mapping):
        named = cast("Mapping[object, object]", identifier)
        if not named:
            raise InvalidInputError("identifier={}: expected an entry for each scope of the endpoint's rules")
        for scope, name in named.items():
            require_text(f"identifier[{scope!r:.80}]", name)
    else:
        require_text("identifier", identifier)
