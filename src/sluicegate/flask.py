"""The extension for Flask."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.flask"):
    from sluicegate.presentation.web.flask import FlaskRateLimit
    from sluicegate.presentation.web.headers import DenialResponse

__all__ = ["DenialResponse", "FlaskRateLimit"]
