"""The composition root: the only place that knows which concrete parts make a limiter."""

import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sluicegate.application.failure_policy import describe
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.compiled_rules import Rules
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import (
    EventBusProtocol,
    LoggerProtocol,
    RateLimitProtocol,
    StorageProtocol,
    SyncStorageProtocol,
)
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.infrastructure.settings import Settings, read_settings

if TYPE_CHECKING:
    from sluicegate.application.rule_merging import CodeRules
    from sluicegate.infrastructure.rules_file.reader import RuleFile
    from sluicegate.infrastructure.rules_file.watcher import FileWatcher

S = TypeVar("S")


def build_storage(settings: Settings) -> StorageProtocol:
    """Build the storage that `SLUICEGATE_STORAGE_URL` names.

    Raises:
        InvalidInputError: If the URL cannot be read or needs a package that is not installed.
    """
    if _is_memory(settings):
        return MemoryStorage()
    try:
        from sluicegate.infrastructure.redis.storage import RedisStorage  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise _extra_is_missing(settings, error) from None
    return _from_url(settings, RedisStorage.from_url)


def build_sync_storage(settings: Settings) -> SyncStorageProtocol:
    """Build the same storage for code without an event loop.

    Raises:
        InvalidInputError: If the URL cannot be read or needs a package that is not installed.
    """
    if _is_memory(settings):
        return MemoryStorage()
    try:
        from sluicegate.infrastructure.redis.sync_storage import SyncRedisStorage  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise _extra_is_missing(settings, error) from None
    return _from_url(settings, SyncRedisStorage.from_url)


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
    file = _read(settings.rules_path) if rules is None and settings.rules_path else None
    limiter = TokenBucketAdapter(
        storage=build_storage(settings),
        rules=file.rules if file is not None else rules or {},
        event_bus=event_bus,
        logger=logger,
        deadline_ms=settings.deadline_ms,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
    )
    _follow(limiter, file, settings)
    return limiter


def watch_rules(  # noqa: PLR0913 - settings, given by name
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter,
    path: str | Path,
    *,
    code_rules: "CodeRules | None" = None,
    notify: bool = True,
    poll_seconds: float = 2.0,
    quiet_ms: int = 50,
) -> "FileWatcher":
    """Make a watch, yet to be started, that puts a rules file into force whenever it changes.

    A file that is refused changes nothing: the last good rules stay, and a log line, an event and a counter tell why. The
    watch ends with the limiter.

    Args:
        limiter: Whose rules they are.
        path: The file.
        code_rules: Rules declared in code, merged with each version of the file.
        notify: Whether to ask the operating system; else the file is looked at every `poll_seconds`.
        poll_seconds: How often to look without being told.
        quiet_ms: How long nothing may have happened beside the file before it is read.
    """
    from sluicegate.application.rule_merging import merge_rules  # noqa: PLC0415 - a limiter without a file does without
    from sluicegate.infrastructure.rules_file.watcher import FileWatcher  # noqa: PLC0415 - the same

    rules = limiter.rules

    def reload() -> None:
        try:
            file = _read(path)
            book = file.rules if code_rules is None else merge_rules(code_rules, file.rules)
            rules.replace(book)
        except InvalidInputError as error:
            rules.refuse(error)

    watch = FileWatcher(
        path,
        reload,
        on_error=lambda error: rules.warn(describe(error)),
        notify=notify,
        poll_seconds=poll_seconds,
        quiet_ms=quiet_ms,
    )
    weakref.finalize(limiter, watch.stop)
    return watch


def _follow(limiter: TokenBucketAdapter | SyncTokenBucketAdapter, file: "RuleFile | None", settings: Settings) -> None:
    """Pass on what a rules file was warned for, and watch it if the settings say so."""
    if file is None:
        return
    for warning in file.warnings:
        limiter.rules.warn(warning)
    if settings.rules_watch != "off":
        watch_rules(limiter, settings.rules_path, notify=settings.rules_watch == "on").start()


def _read(path: str | Path) -> "RuleFile":
    from sluicegate.infrastructure.rules_file.reader import read_rule_file  # noqa: PLC0415 - a limiter without a file does without

    return read_rule_file(path)


def build_sync_rate_limit(
    settings: Settings,
    *,
    rules: Rules | None = None,
    event_bus: EventBusProtocol | None = None,
    logger: LoggerProtocol | None = None,
) -> SyncTokenBucketAdapter:
    """Wire a limiter for code without an event loop; see `build_rate_limit`."""
    file = _read(settings.rules_path) if rules is None and settings.rules_path else None
    limiter = SyncTokenBucketAdapter(
        storage=build_sync_storage(settings),
        rules=file.rules if file is not None else rules or {},
        event_bus=event_bus,
        logger=logger,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
    )
    _follow(limiter, file, settings)
    return limiter


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


def _from_url(settings: Settings, from_url: Callable[..., S]) -> S:
    try:
        return from_url(settings.storage_url, deadline_ms=settings.deadline_ms)
    except InvalidInputError as error:
        raise InvalidInputError(f"SLUICEGATE_STORAGE_URL: {error}") from None


def _is_memory(settings: Settings) -> bool:
    return settings.storage_url.startswith("memory://")


def _extra_is_missing(settings: Settings, error: ModuleNotFoundError) -> InvalidInputError:
    scheme = settings.storage_url.partition("://")[0]
    return InvalidInputError(
        f"SLUICEGATE_STORAGE_URL: {scheme}:// needs the package {error.name!r}; pip install 'sluicegate[redis]'"
    )
