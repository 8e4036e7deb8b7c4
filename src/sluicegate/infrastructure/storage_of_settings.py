"""Build the storage that the settings name."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import StorageProtocol, SyncStorageProtocol
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.infrastructure.settings import Settings, is_memory

if TYPE_CHECKING:
    from sluicegate.infrastructure.redis.storage import RedisStorage
    from sluicegate.infrastructure.redis.sync_storage import SyncRedisStorage
    from sluicegate.infrastructure.shared_memory.storage import SharedMemoryStorage

S = TypeVar("S")


def build_storage(settings: Settings) -> StorageProtocol:
    """Build the storage that the settings name.

    Raises:
        InvalidInputError: If its URL is invalid, or needs a package that is not installed.
    """
    local = _local_storage(settings)
    return _on_redis(settings, _load_redis) if local is None else local


def build_sync_storage(settings: Settings) -> SyncStorageProtocol:
    """Build the storage that the settings name, for code without an event loop.

    Raises:
        InvalidInputError: If its URL is invalid, or needs a package that is not installed.
    """
    local = _local_storage(settings)
    return _on_redis(settings, _load_sync_redis) if local is None else local


def _load_redis() -> "Callable[..., RedisStorage]":
    from sluicegate.infrastructure.redis.storage import RedisStorage  # noqa: PLC0415 - needs an extra

    return RedisStorage.from_url


def _load_sync_redis() -> "Callable[..., SyncRedisStorage]":
    from sluicegate.infrastructure.redis.sync_storage import SyncRedisStorage  # noqa: PLC0415 - needs an extra

    return SyncRedisStorage.from_url


def _on_redis(settings: Settings, load: Callable[[], Callable[..., S]]) -> S:
    try:
        from_url = load()
    except ModuleNotFoundError as error:
        scheme = settings.storage_url.partition("://")[0]
        raise InvalidInputError(
            f"SLUICEGATE_STORAGE_URL: {scheme}:// needs the package {error.name!r}; pip install 'sluicegate[redis]'"
        ) from None
    return _from_url(settings, from_url)


def _from_url(settings: Settings, from_url: Callable[..., S]) -> S:
    try:
        return from_url(settings.storage_url, deadline_ms=settings.deadline_ms)
    except InvalidInputError as error:
        raise InvalidInputError(f"SLUICEGATE_STORAGE_URL: {error}") from None


def _local_storage(settings: Settings) -> "MemoryStorage | SharedMemoryStorage | None":
    """Return the storage that is on this host and serves both kinds of limiter; None: the settings name another."""
    if is_memory(settings):
        return MemoryStorage()
    if not settings.storage_url.startswith("shm://"):
        return None
    if sys.platform == "win32":
        raise InvalidInputError(
            "SLUICEGATE_STORAGE_URL: shm:// works on Linux and macOS; on Windows use redis://, or memory:// in one process"
        )
    from sluicegate.infrastructure.shared_memory.storage import SharedMemoryStorage  # noqa: PLC0415 - not on every system

    return _from_url(settings, SharedMemoryStorage.from_url)
