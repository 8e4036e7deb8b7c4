"""Demands on a bucket, for tests that talk to a storage itself."""

import itertools

from sluicegate.domain.bucket_request import Demand
from sluicegate.domain.rule import RateLimitRule

_keys = itertools.count()


def demand(rule: RateLimitRule, key: str = "", cost: int = 1) -> Demand:
    """Return a demand of `cost` tokens on a key; a new one if none is given."""
    return Demand(key or f"rate_limit:ip:test-{next(_keys)}:GET /", rule.shape, cost * rule.shape.units_per_token)
