"""The short way of a check: one rule, a storage that answers at once, and nobody who listens.

It asks the same functions as the long way (`CheckFlow`), with no objects in between. Whatever is not plain, a
wrong argument and a failure included, it leaves to the long way.
"""

from collections.abc import Callable
from typing import TypeAlias

from sluicegate.application.exemptions import listed_scopes
from sluicegate.domain.bucket_key import CERTAINLY_SHORT, KeyFormat
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.result import Success
from sluicegate.domain.rule_set import Plan, RuleSet
from sluicegate.domain.token_bucket import BucketShape, result_at

TakeOne: TypeAlias = Callable[[str, BucketShape, int], tuple[bool, int, int]]
"""A storage's `take_one_now`: key, shape, cost in units; verdict, level in units, lead in microseconds."""

QuickCheck: TypeAlias = Callable[[str, Identifier, int], Success[RateLimitResult] | None]
"""Endpoint, identifier and cost in; the answer, or None where the long way must be gone."""


def build_quick_check(rules: RuleSet, key_format: KeyFormat, take_one: TakeOne) -> QuickCheck:
    """Build the short way for the endpoints that have one rule, not in shadow mode.

    Where there are lists or overrides, it is for identifiers that the long way found to be in none of them.

    Args:
        rules: The rules in force.
        key_format: How buckets are named.
        take_one: Pays for one bucket at once.
    """
    # A closure: its variables are found faster than a method's attributes, and this is run for every check.
    single = [plan for plan in rules.plans if len(plan.meters) == 1 and not plan.shadows]
    guards = {plan.endpoint: (plan.meters[0], _unknown(rules, plan)) for plan in single}
    find = {endpoint: meter for endpoint, (meter, unknown) in guards.items() if not unknown}.get
    find_guarded = guards.get
    encode = key_format.encode
    no_cost = 0

    def quick_check(endpoint: str, identifier: Identifier, cost: int) -> Success[RateLimitResult] | None:
        # By identity: 0 is one object, and False and 0.0 are others, which the long way refuses.
        if cost is not no_cost or type(identifier) is not str or not 0 < len(identifier) <= CERTAINLY_SHORT:
            return None
        try:
            meter = find(endpoint)
        except TypeError:  # not hashable, and so no text
            return None
        if meter is None:
            watched = find_guarded(endpoint)
            if watched is None:
                return None
            meter, unknown = watched
            if not all([identifier in known for known in unknown]):  # noqa: C419 - a generator costs more than the lookups
                return None
        after = meter.after
        key = meter.before if after is None else meter.before + encode(identifier) + after
        shape, cost_units = meter.shape, meter.cost_units
        allowed, level, lead_us = take_one(key, shape, cost_units)
        return Success(result_at(shape, cost_units, level, lead_us, allowed))

    return quick_check


def _unknown(rules: RuleSet, plan: Plan) -> tuple[set[str], ...]:
    """Return the sets that an identifier must be in to be known to be in no list and no override; they grow meanwhile."""
    scopes = listed_scopes(rules.lists, plan) if rules.lists else ()
    indexes = [rules.lists.get(scope) for scope in scopes] + [meter.overrides for meter in plan.meters]
    return tuple(index.unknown for index in indexes if index is not None)
