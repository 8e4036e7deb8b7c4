"""The answer to a check."""

import msgspec


class RateLimitResult(msgspec.Struct, frozen=True, gc=False):
    """Say whether a request may pass, and what its client should know.

    Args:
        allowed: The verdict.
        retry_after: Seconds until the same request would pass if nobody else asked: 0.0 when allowed, `math.inf`
            when its cost exceeds the bucket's capacity and no wait would help.
        remaining: Whole tokens left in the bucket, 0 to `limit`.
        limit: The bucket's capacity in tokens; 0 where no rule applies.
        reset_seconds: Whole seconds, rounded up, until the bucket is full again.
    """

    allowed: bool
    retry_after: float
    remaining: int
    limit: int
    reset_seconds: int
