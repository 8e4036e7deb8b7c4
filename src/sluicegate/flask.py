"""The extension for Flask."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.flask"):
    from sluicegate.presentation.web.flask import FlaskRateLimit

__all__ = ["FlaskRateLimit"]
