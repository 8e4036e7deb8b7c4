"""The composition root: the only place that knows which concrete parts make a limiter."""

from functools import lru_cache

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import (
    EventBusProtocol,
    LoggerProtocol,
    RateLimitProtocol,
    StorageProtocol,
    SyncStorageProtocol,
)
from sluicegate.domain.rule_set import Rules
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.infrastructure.rule_file import load_rules
from sluicegate.infrastructure.settings import Settings, read_settings


def build_storage(settings: Settings) -> StorageProtocol:
    """Build the storage that `SLUICEGATE_STORAGE_URL` names.

    Raises:
        InvalidInputError: If the URL cannot be read or needs a package that is not installed.
    """
    if _is_memory(settings):
        return MemoryStorage()
    try:
        from sluicegate.infrastructure.redis_storage import RedisStorage  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise _extra_is_missing(settings, error) from None
    try:
        return RedisStorage.from_url(settings.storage_url, deadline_ms=settings.deadline_ms)
    except InvalidInputError as error:
        raise InvalidInputError(f"SLUICEGATE_STORAGE_URL: {error}") from None


def build_sync_storage(settings: Settings) -> SyncStorageProtocol:
    """Build the same storage for code without an event loop.

    Raises:
        InvalidInputError: If the URL cannot be read or needs a package that is not installed.
    """
    if _is_memory(settings):
        return MemoryStorage()
    try:
        from sluicegate.infrastructure.sync_redis_storage import SyncRedisStorage  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise _extra_is_missing(settings, error) from None
    try:
        return SyncRedisStorage.from_url(settings.storage_url, deadline_ms=settings.deadline_ms)
    except InvalidInputError as error:
        raise InvalidInputError(f"SLUICEGATE_STORAGE_URL: {error}") from None


def build_rate_limit(
    settings: Settings,
    *,
    rules: Rules | None = None,
    event_bus: EventBusProtocol | None = None,
    logger: LoggerProtocol | None = None,
) -> TokenBucketAdapter:
    """Wire a limiter.

    Args:
        settings: What the environment says.
        rules: Endpoints and their rules; None: those of the settings' rules file.
        event_bus: Who is told of every check; None: nobody.
        logger: Who is told of failures; None: the standard library's logging.

    Raises:
        InvalidInputError: If a setting or the rules file is wrong.
    """
    if rules is None:
        rules = load_rules(settings.rules_path) if settings.rules_path else {}
    return TokenBucketAdapter(
        storage=build_storage(settings),
        rules=rules,
        event_bus=event_bus,
        logger=logger,
        deadline_ms=settings.deadline_ms,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
    )


def build_sync_rate_limit(
    settings: Settings,
    *,
    rules: Rules | None = None,
    event_bus: EventBusProtocol | None = None,
    logger: LoggerProtocol | None = None,
) -> SyncTokenBucketAdapter:
    """Wire a limiter for code without an event loop; see `build_rate_limit`."""
    if rules is None:
        rules = load_rules(settings.rules_path) if settings.rules_path else {}
    return SyncTokenBucketAdapter(
        storage=build_sync_storage(settings),
        rules=rules,
        event_bus=event_bus,
        logger=logger,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
    )


@lru_cache(maxsize=1)
def get_sync_rate_limit() -> SyncTokenBucketAdapter:
    """Return the limiter of this process for code without an event loop, wired from the environment at the first call.

    Raises:
        InvalidInputError: If a setting or the rules file is wrong.
    """
    return build_sync_rate_limit(read_settings())


@lru_cache(maxsize=1)
def get_rate_limit() -> RateLimitProtocol:
    """Return the limiter of this process, wired from the environment at the first call.

    Raises:
        InvalidInputError: If a setting or the rules file is wrong.
    """
    return build_rate_limit(read_settings())


def _is_memory(settings: Settings) -> bool:
    return settings.storage_url.startswith("memory://")


def _extra_is_missing(settings: Settings, error: ModuleNotFoundError) -> InvalidInputError:
    scheme = settings.storage_url.partition("://")[0]
    return InvalidInputError(
        f"SLUICEGATE_STORAGE_URL: {scheme}:// needs the package {error.name!r}; pip install 'sluicegate[redis]'"
    )
