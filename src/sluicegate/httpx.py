"""The transports for httpx."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.httpx"):
    from sluicegate.presentation.httpx_transport import (
        RateLimitTimeout,
        RateLimitTransport,
        SyncRateLimitTransport,
    )

__all__ = ["RateLimitTimeout", "RateLimitTransport", "SyncRateLimitTransport"]
