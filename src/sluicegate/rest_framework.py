"""The throttle for Django REST framework."""

from sluicegate.presentation.web.rest_framework import RateLimitThrottle, throttle

__all__ = ["RateLimitThrottle", "throttle"]
