"""The transport for httpx."""

from sluicegate.presentation.httpx_transport import RateLimitTimeout, RateLimitTransport

__all__ = ["RateLimitTimeout", "RateLimitTransport"]
