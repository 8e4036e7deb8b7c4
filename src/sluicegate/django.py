"""The middleware for Django: `MIDDLEWARE = ["sluicegate.django.RateLimitMiddleware", …]`."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.django"):
    from sluicegate.presentation.web.headers import DenialResponse
    from sluicegate.presentation.web.wsgi.django import RateLimitMiddleware

__all__ = ["DenialResponse", "RateLimitMiddleware"]
