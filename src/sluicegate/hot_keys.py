"""Who asks most, and who is denied most."""

from sluicegate.application.hot_keys import HotKey, HotKeys

__all__ = ["HotKey", "HotKeys"]
