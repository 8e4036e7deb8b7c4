"""Requests to buckets, for tests that talk to a storage itself."""

import itertools

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.buckets.token_bucket import result
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.rule import RateLimitRule

_numbers = itertools.count()


def bucket_request(rule: RateLimitRule, key: str | None = None, *, cost: int = 1, lease: int = 0) -> BucketRequest:
    """Return a request for tokens.

    Args:
        rule: The bucket's rule.
        key: The bucket's key; a new one if None.
        cost: Tokens that are asked for.
        lease: The most tokens that a process may borrow at a time.
    """
    token = rule.spec.units_per_token
    return BucketRequest(key or f"rate_limit:ip:test-{next(_numbers)}:GET /", rule.spec, cost * token, lease * token)


def client_answer(request: BucketRequest, level: BucketLevel, *, allowed: bool) -> RateLimitResult:
    """Return what a client is told of a bucket's level after a request."""
    return result(request.spec, request.cost_units, level.level, level.effective_in_us, allowed)
