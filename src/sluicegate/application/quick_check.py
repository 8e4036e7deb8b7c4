"""The short way of a check: one plain rule, a storage that answers at once, and nobody who listens.

It asks the same functions as the long way (`CheckFlow`), with no objects in between. Whatever is not plain, a
wrong argument and a failure included, it leaves to the long way.
"""

from collections.abc import Callable
from typing import TypeAlias

from sluicegate.domain.bucket_key import CERTAINLY_SHORT, KeyFormat
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.result import Success
from sluicegate.domain.rule_set import RuleSet
from sluicegate.domain.token_bucket import BucketShape, result_at

TakeOne: TypeAlias = Callable[[str, BucketShape, int], tuple[bool, int, int]]
"""A storage's `take_one_now`: key, shape, cost in units; verdict, level in units, lead in microseconds."""

QuickCheck: TypeAlias = Callable[[str, Identifier, int], Success[RateLimitResult] | None]
"""Endpoint, identifier and cost in; the answer, or None where the long way must be gone."""


def build_quick_check(rules: RuleSet, key_format: KeyFormat, take_one: TakeOne) -> QuickCheck:
    """Build the short way for the endpoints that have one plain rule.

    Args:
        rules: The rules in force.
        key_format: How buckets are named.
        take_one: Pays for one bucket at once.
    """
    # A closure: its variables are found faster than a method's attributes, and this is run for every check.
    find = {plan.endpoint: plan.meters[0] for plan in rules.plans if len(plan.meters) == 1}.get
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
            return None
        after = meter.after
        key = meter.before if after is None else meter.before + encode(identifier) + after
        shape, cost_units = meter.shape, meter.cost_units
        allowed, level, lead_us = take_one(key, shape, cost_units)
        return Success(result_at(shape, cost_units, level, lead_us, allowed))

    return quick_check
