"""The middleware for ASGI applications of any framework."""

from sluicegate.presentation.web.asgi.middleware import RateLimitMiddleware
from sluicegate.presentation.web.headers import DenialResponse

__all__ = ["DenialResponse", "RateLimitMiddleware"]
