"""Demands on a bucket, for tests that talk to a storage itself."""

import itertools

from sluicegate.domain.bucket_request import BucketRequest
from sluicegate.domain.rule import RateLimitRule

_keys = itertools.count()


def bucket_request(rule: RateLimitRule, key: str = "", cost: int = 1) -> BucketRequest:
    """Return a demand of `cost` tokens on a key; a new one if none is given."""
    return BucketRequest(key or f"rate_limit:ip:test-{next(_keys)}:GET /", rule.spec, cost * rule.spec.units_per_token)
