"""The live page of a limiter, to be mounted in an application."""

from sluicegate.runtime.extras import needs_extra

with needs_extra("sluicegate.live"):
    from sluicegate.presentation.live.mounted import live_page

__all__ = ["live_page"]
