"""The middleware for WSGI applications of any framework."""

from sluicegate.presentation.web.headers import DenialResponse
from sluicegate.presentation.web.wsgi.middleware import WSGIRateLimitMiddleware

__all__ = ["DenialResponse", "WSGIRateLimitMiddleware"]
