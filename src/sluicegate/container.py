"""The composition root: the only module that chooses the concrete parts of a limiter."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sluicegate.application.notifier import describe
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.protocols import EventBusProtocol, LoggerProtocol
from sluicegate.domain.rules.rule_book import RuleBook, Rules
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.infrastructure.settings import Settings, doubtful_names, identifier_secret, is_memory, read_settings
from sluicegate.infrastructure.storage_of_settings import build_storage, build_sync_storage
from sluicegate.infrastructure.traces_of_settings import bus_for_traces, trace_checks
from sluicegate.infrastructure.worker_count import worker_count
from sluicegate.runtime.built_once import BuiltOnce

if TYPE_CHECKING:
    from sluicegate.application.rules.rule_merging import CodeRules
    from sluicegate.infrastructure.rules_file.reader import RuleFile
    from sluicegate.infrastructure.rules_file.watcher import FileWatcher

_settings_of: "weakref.WeakKeyDictionary[LiveRules, Settings]" = weakref.WeakKeyDictionary()
"""The settings that the rules of the process's limiter came from."""


def build_rate_limit(
    settings: Settings,
    *,
    rules: Rules | LiveRules | None = None,
    event_bus: EventBusProtocol | None = None,
    logger: LoggerProtocol | None = None,
) -> TokenBucketAdapter:
    """Build an asynchronous limiter. Unless `rules` is given, it follows changes of the settings' rules file.

    Args:
        settings: The settings, as `read_settings` returns them.
        rules: Endpoints and their rules; None: those of the settings' rules file.
        event_bus: Gets the limiter's events; None: no events.
        logger: Gets the log lines; None: the standard library's logging.

    Raises:
        InvalidInputError: If a setting or the rules file is invalid.
    """
    file = _read_file(settings.rules_path) if rules is None and settings.rules_path else None
    event_bus = bus_for_traces(settings, event_bus)
    limiter = TokenBucketAdapter(
        storage=build_storage(settings),
        rules=file.rules if file is not None else rules or {},
        event_bus=event_bus,
        logger=logger,
        deadline_ms=settings.deadline_ms,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
        identifier_secret=identifier_secret(settings),
        enabled=settings.enabled,
    )
    trace_checks(settings, limiter, event_bus)
    _watch_file(limiter, file, settings)
    _warn_of_several_workers(limiter, settings)
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
    """Build a watcher that replaces a limiter's rules whenever a rules file changes. The caller starts it.

    An invalid file changes nothing: the last valid rules stay, and a log line, an event and a counter report the error. The
    watcher stops when the limiter is garbage-collected or the process ends.

    Args:
        limiter: The limiter.
        path: The rules file.
        code_rules: Rules declared in code, merged with each version of the file.
        notify: Whether to use the operating system's reports of changes; if not, the file is only polled.
        poll_seconds: Seconds between two polls, above 0.
        quiet_ms: How long the file's directory must be quiet before the file is read: milliseconds, at least 1.

    Raises:
        InvalidInputError: If a number is out of range.
    """
    from sluicegate.application.rules.rule_merging import merge_rules  # noqa: PLC0415 - only needed with a rules file

    def read() -> RuleBook:
        file = _read_file(path)
        return file.rules if code_rules is None else merge_rules(code_rules, file.rules)

    return _watch(limiter, path, read, notify=notify, poll_seconds=poll_seconds, quiet_ms=quiet_ms)


def read_service_rules(rules_path: str, config_path: str) -> tuple[RuleBook, list[str]]:
    """Read the rules of a service: those of a rules file and those of configurations of `envoyproxy/ratelimit`.

    Args:
        rules_path: The rules file; empty: none.
        config_path: A configuration, or a directory of them; empty: none.

    Returns:
        The rules, and warnings about the files.

    Raises:
        InvalidInputError: If a file cannot be read, or something in it is invalid.
    """
    book, warnings = RuleBook({}), list[str]()
    if rules_path:
        file = _read_file(rules_path)
        book, warnings = file.rules, list(file.warnings)
    if config_path:
        from sluicegate.infrastructure.ratelimit_config.reader import read_configs  # noqa: PLC0415 - only needed with one

        book, doubts = read_configs(config_path, book)
        warnings += doubts
    return book, warnings


def watch_service_rules(limiter: TokenBucketAdapter, rules_path: str, config_path: str, *, notify: bool = True) -> None:
    """Replace a limiter's rules whenever one of the files of `read_service_rules` changes; see `watch_rules`."""
    for path in filter(None, (rules_path, config_path)):
        _watch(limiter, path, lambda: read_service_rules(rules_path, config_path)[0], notify=notify).start()


def _watch(  # noqa: PLR0913 - settings, given by name
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter,
    path: str | Path,
    read: Callable[[], RuleBook],
    *,
    notify: bool = True,
    poll_seconds: float = 2.0,
    quiet_ms: int = 50,
) -> "FileWatcher":
    from sluicegate.infrastructure.rules_file.watcher import FileWatcher  # noqa: PLC0415 - only needed with a rules file

    rules = limiter.rules

    def reload() -> None:
        try:
            rules.replace(read())
        except InvalidInputError as error:
            rules.refuse(error)

    watcher = FileWatcher(
        path,
        reload,
        on_error=lambda error: rules.warn(describe(error)),
        notify=notify,
        poll_seconds=poll_seconds,
        quiet_ms=quiet_ms,
    )
    weakref.finalize(limiter, watcher.stop)
    return watcher


def _watch_file(
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter, file: "RuleFile | None", settings: Settings
) -> None:
    """Log the warnings about a rules file, and watch it if the settings say so."""
    if file is None:
        return
    for warning in file.warnings:
        limiter.rules.warn(warning)
    if settings.rules_watch != "off":
        watch_rules(limiter, settings.rules_path, notify=settings.rules_watch == "on").start()


def _warn_of_several_workers(limiter: TokenBucketAdapter | SyncTokenBucketAdapter, settings: Settings) -> None:
    """Log that the workers of this server do not share the limit, where that is so."""
    workers = worker_count() if is_memory(settings) else 1
    if workers > 1:
        limiter.rules.warn(
            f"{workers} workers count for themselves: with memory:// each of them admits the whole limit."
            " SLUICEGATE_STORAGE_URL=shm://NAME makes those of one host share it"
        )


def _read_file(path: str | Path) -> "RuleFile":
    from sluicegate.infrastructure.rules_file.reader import read_rule_file  # noqa: PLC0415 - only needed with a rules file

    return read_rule_file(path)


def build_sync_rate_limit(
    settings: Settings,
    *,
    rules: Rules | None = None,
    event_bus: EventBusProtocol | None = None,
    logger: LoggerProtocol | None = None,
) -> SyncTokenBucketAdapter:
    """Build a limiter for code without an event loop. Unless `rules` is given, it follows changes of the rules file.

    Args:
        settings: The settings, as `read_settings` returns them.
        rules: Endpoints and their rules; None: those of the settings' rules file.
        event_bus: Gets the limiter's events; None: no events.
        logger: Gets the log lines; None: the standard library's logging.

    Raises:
        InvalidInputError: If a setting or the rules file is invalid.
    """
    file = _read_file(settings.rules_path) if rules is None and settings.rules_path else None
    event_bus = bus_for_traces(settings, event_bus)
    limiter = SyncTokenBucketAdapter(
        storage=build_sync_storage(settings),
        rules=file.rules if file is not None else rules or {},
        event_bus=event_bus,
        logger=logger,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
        identifier_secret=identifier_secret(settings),
        enabled=settings.enabled,
    )
    trace_checks(settings, limiter, event_bus)
    _watch_file(limiter, file, settings)
    _warn_of_several_workers(limiter, settings)
    return limiter


@BuiltOnce
def get_rate_limit() -> TokenBucketAdapter:
    """Return this process's limiter; the first call builds it from the environment.

    Raises:
        InvalidInputError: If a setting or the rules file is invalid.
    """
    settings = read_settings()
    limiter = build_rate_limit(settings)
    _settings_of[limiter.rules] = settings
    for warning in doubtful_names():
        limiter.rules.warn(warning)
    return limiter


@BuiltOnce
def get_sync_rate_limit() -> SyncTokenBucketAdapter:
    """Return this process's limiter for code without an event loop. Its rules, and in memory its buckets, are `get_rate_limit`'s.

    Raises:
        InvalidInputError: If a setting or the rules file is invalid.
    """
    limiter = get_rate_limit()
    return sync_limiter_like(limiter, _settings_of[limiter.rules])


def sync_limiter_like(limiter: TokenBucketAdapter, settings: Settings) -> SyncTokenBucketAdapter:
    """Return a limiter without an event loop that has another one's rules in force, and in memory its buckets."""
    storage = limiter.storage
    event_bus = bus_for_traces(settings, None)
    sync_limiter = SyncTokenBucketAdapter(
        storage=storage if isinstance(storage, MemoryStorage) else build_sync_storage(settings),
        rules=limiter.rules,
        event_bus=event_bus,
        on_storage_error=settings.on_storage_error,
        key_prefix=settings.key_prefix,
        identifier_secret=identifier_secret(settings),
    )
    trace_checks(settings, sync_limiter, event_bus)
    return sync_limiter


def build_for_application(
    *, rules: Rules | None, logger: LoggerProtocol | None
) -> tuple[TokenBucketAdapter, SyncTokenBucketAdapter]:
    """Build the limiters of a middleware that was given none, with and without an event loop, from the environment.

    Args:
        rules: The middleware's rules. The process's lists, overrides and kill switches hold for them too. None: the rules of
            the process themselves.
        logger: Gets the log lines; None: the standard library's logging.

    Raises:
        InvalidInputError: If a setting, a rule or the rules file is invalid.
    """
    settings = read_settings()
    ours = get_rate_limit().rules
    if _settings_of.get(ours) != settings:  # the environment has changed since: as good as another process
        limiter = build_rate_limit(settings, rules=rules, logger=logger)
        return limiter, sync_limiter_like(limiter, settings)
    limiter = build_rate_limit(settings, rules=ours if rules is None else ours.derive(rules, apart=True), logger=logger)
    return limiter, sync_limiter_like(limiter, settings)
