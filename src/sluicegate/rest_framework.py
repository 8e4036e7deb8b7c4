"""The throttle for Django REST framework."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.rest_framework"):
    from sluicegate.presentation.web.wsgi.rest_framework import RateLimitThrottle, throttle
    from sluicegate.presentation.web.wsgi.rest_framework_config import RateLimitConfig

__all__ = ["RateLimitConfig", "RateLimitThrottle", "throttle"]
