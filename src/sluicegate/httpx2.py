"""The transports for httpx2."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.httpx2"):
    from sluicegate.presentation.httpx2_transport import (
        RateLimitTimeout,
        RateLimitTransport,
        SyncRateLimitTransport,
    )

__all__ = ["RateLimitTimeout", "RateLimitTransport", "SyncRateLimitTransport"]
