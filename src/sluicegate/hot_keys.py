"""The keys with the most requests and the most denials."""

from sluicegate.application.hot_keys import HotKey, HotKeys

__all__ = ["HotKey", "HotKeys"]
