"""Who asks most, and who is denied most."""

from sluicegate.application.hot_keys import HotKeys
from sluicegate.domain.heavy_hitters import HeavyHitter

__all__ = ["HeavyHitter", "HotKeys"]
