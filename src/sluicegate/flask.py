"""The extension for Flask."""

from sluicegate.presentation.web.flask import FlaskRateLimit

__all__ = ["FlaskRateLimit"]
