"""The dependency for FastAPI, and the middleware."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.fastapi"):
    from sluicegate.presentation.web.asgi.fastapi import (
        TOO_MANY_REQUESTS,
        RateLimitExceededError,
        install_rate_limits,
        rate_limit,
    )
    from sluicegate.presentation.web.asgi.middleware import RateLimitMiddleware
    from sluicegate.presentation.web.headers import DenialResponse

__all__ = [
    "TOO_MANY_REQUESTS",
    "DenialResponse",
    "RateLimitExceededError",
    "RateLimitMiddleware",
    "install_rate_limits",
    "rate_limit",
]
