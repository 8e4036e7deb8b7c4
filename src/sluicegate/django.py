"""The middleware for Django: `MIDDLEWARE = ["sluicegate.django.RateLimitMiddleware", …]`."""

from sluicegate.presentation.web.django import RateLimitMiddleware

__all__ = ["RateLimitMiddleware"]
