"""The composition root: the only place that knows which concrete parts make a limiter."""

from functools import lru_cache

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import EventBusProtocol, LoggerProtocol, RateLimitProtocol, StorageProtocol
from sluicegate.domain.rule_set import Rules
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.infrastructure.rule_file import load_rules
from sluicegate.infrastructure.settings import Settings, read_settings


def build_storage(settings: Settings) -> StorageProtocol:
    """Build the storage that `SLUICEGATE_STORAGE_URL` names.

    Raises:
        InvalidInputError: If the URL cannot be read or needs a package that is not installed.
    """
    scheme = settings.storage_url.partition("://")[0]
    if scheme == "memory":
        return MemoryStorage()
    try:
        from sluicegate.infrastructure.redis_storage import RedisStorage  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"SLUICEGATE_STORAGE_URL: {scheme}:// needs the package {error.name!r}; pip install 'sluicegate[redis]'"
        ) from None
    try:
        return RedisStorage.from_url(settings.storage_url, deadline_ms=settings.deadline_ms)
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


@lru_cache(maxsize=1)
def get_rate_limit() -> RateLimitProtocol:
    """Return the limiter of this process, wired from the environment at the first call.

    Raises:
        InvalidInputError: If a setting or the rules file is wrong.
    """
    return build_rate_limit(read_settings())
