"""The extension for Flask."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.flask"):
    from sluicegate.presentation.web.headers import DenialResponse
    from sluicegate.presentation.web.wsgi.flask import FlaskRateLimit

__all__ = ["DenialResponse", "FlaskRateLimit"]
