"""Assemble what the async and the sync limiter share."""

from collections.abc import Callable
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Final

from sluicegate.application.administration import Administration
from sluicegate.application.budgets.reservations import Reservations
from sluicegate.application.checker import Checker
from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.collaborators import require_clock, require_observers, require_wall_clock
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError, StorageError
from sluicegate.domain.protocols import (
    Clock,
    DeadlineStorage,
    EventBusProtocol,
    LoggerProtocol,
    NamelessStorage,
    ReservationStorage,
    ResettableStorage,
    StorageTraits,
    SyncReservationStorage,
    SyncResettableStorage,
)
from sluicegate.domain.rules.rule import OnStorageError
from sluicegate.domain.rules.rule_book import Rules
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import (
    LastingClock,
    LastingWallClock,
    SuspendAwareClock,
    SystemClock,
    reader_ns,
    utc_now,
)


def assemble(  # noqa: PLR0913 - the arguments of both limiters
    *,
    rules: Rules | LiveRules,
    event_bus: EventBusProtocol | None,
    logger: LoggerProtocol | None,
    on_storage_error: OnStorageError,
    key_prefix: str,
    identifier_secret: bytes | None,
    log_identifiers: bool,
    clock: Clock | None,
    wall_clock: Callable[[], datetime] | None,
    enabled: bool,
    storage: object,
    hash_tags: bool,
) -> tuple[Checker, Administration, Reservations]:
    """Return what prepares and finishes checks, and what does the same for administrative calls and for reservations.

    Args:
        rules: Endpoints and their rules.
        event_bus: See `TokenBucketAdapter`, as for all arguments but the last.
        logger: See there.
        on_storage_error: See there.
        key_prefix: See there.
        identifier_secret: See there.
        log_identifiers: See there.
        clock: See there.
        wall_clock: See there.
        enabled: See there.
        storage: Where the buckets are.
        hash_tags: Whether the storage wants hash tags in its keys.

    Raises:
        InvalidInputError: If an argument or a rule is wrong.
    """
    require_observers(event_bus, logger)
    if clock is not None:
        require_clock(clock)
    for field, value in (("log_identifiers", log_identifiers), ("enabled", enabled)):
        if not isinstance(value, bool):
            raise InvalidTypeError(f"{field}={value!r:.80}: expected True or False")
    given = None if clock is None else LastingClock(clock)
    wall_clock = utc_now if wall_clock is None else LastingWallClock(require_wall_clock(wall_clock))
    key_format = KeyFormat(key_prefix, identifier_secret=identifier_secret, hash_tag=hash_tags)
    notifier = Notifier(
        event_bus,
        logger or StdlibLogger(),
        given or SystemClock(),
        log_identifiers=log_identifiers,
        secret=identifier_secret,
    )
    name = "" if isinstance(storage, ReservationStorage | SyncReservationStorage) else type(storage).__name__
    live_rules = rules
    if not isinstance(live_rules, LiveRules):
        live_rules = LiveRules(live_rules, key_format, notifier, wall_clock, name, enabled=enabled)
    failure_policy = FailurePolicy(on_storage_error, given or SuspendAwareClock())
    checker = Checker(
        live_rules=live_rules,
        key_format=key_format,
        failure_policy=failure_policy,
        notifier=notifier,
        now_ns=reader_ns(given),
        utc_now=wall_clock,
        observed=event_bus is not None,
        storage=storage,
    )
    if isinstance(storage, NamelessStorage):
        storage.note_prefix(key_format.prefix)
    administration = Administration(live_rules, key_format, failure_policy, notifier, wall_clock, storage)
    return checker, administration, Reservations(checker, administration, failure_policy, notifier, name)


_VERBS: Final = ("take", "peek", "refund", "reset")


def require_traits(storage: object, *, blocking: bool) -> StorageTraits:
    """Return a storage's traits, or raise the error that says what is missing.

    Args:
        storage: What the caller gave.
        blocking: Whether its verbs are to be plain calls, `take_blocking` and so on.

    Raises:
        InvalidTypeError: If it lacks a verb or traits, if a plain verb is a coroutine function, or if it has a deadline of its
            own that cannot be shortened.
    """
    name = storage.__name__ if isinstance(storage, type) else type(storage).__name__
    verbs = [f"{verb}_blocking" for verb in _VERBS] if blocking else [*_VERBS, "aclose"]
    traits = getattr(storage, "traits", None)
    verb_functions = {verb: getattr(storage, verb, None) for verb in verbs}
    missing = [verb for verb, function in verb_functions.items() if not callable(function)]
    if isinstance(storage, type) or not isinstance(traits, StorageTraits) or missing:
        lacks = f"`{missing[0]}`" if missing else "an instance" if isinstance(storage, type) else "`traits`"
        if blocking:
            hint = "; a RedisStorage is for TokenBucketAdapter" if hasattr(storage, "take") else ""
            kind = f"SyncStorageProtocol (MemoryStorage, SyncRedisStorage) with `traits` and `take_blocking`{hint}"
        else:
            hint = "; a SyncRedisStorage is for SyncTokenBucketAdapter" if hasattr(storage, "take_blocking") else ""
            kind = f"StorageProtocol (MemoryStorage, RedisStorage) with `traits` and `take`{hint}"
        raise InvalidTypeError(f"storage={name}: expected a {kind}; it lacks {lacks}")
    awaited = [verb for verb, function in verb_functions.items() if blocking and iscoroutinefunction(function)]
    if awaited:
        raise InvalidTypeError(f"storage={name}: `{awaited[0]}` is a coroutine function; expected one that blocks")
    if traits.deadline_s is not None and not isinstance(storage, DeadlineStorage):
        raise InvalidTypeError(f"storage={name}: has `traits.deadline_s`, but no `with_deadline`")
    return traits


def require_resettable(storage: object) -> ResettableStorage:
    """Return a storage that can reset all buckets.

    Raises:
        StorageError: If it cannot.
    """
    if not isinstance(storage, ResettableStorage):
        raise _not_resettable(storage)
    return storage


def require_sync_resettable(storage: object) -> SyncResettableStorage:
    """Return a storage that can reset all buckets in a plain call.

    Raises:
        StorageError: If it cannot.
    """
    if not isinstance(storage, SyncResettableStorage):
        raise _not_resettable(storage)
    return storage


def _not_resettable(storage: object) -> StorageError:
    message = f"{type(storage).__name__} has not the verbs of ResettableStorage; reset each client by `reset`."
    return StorageError("unsupported", message)


def require_deadline(deadline_ms: object) -> int:
    """Return a deadline in milliseconds, or raise the error that names the field.

    Raises:
        InvalidInputError: If it is not a whole number of 1 to 60,000.
    """
    if type(deadline_ms) is not int:
        raise InvalidTypeError(f"deadline_ms={deadline_ms!r}: expected whole milliseconds")
    if not 1 <= deadline_ms <= 60_000:  # noqa: PLR2004 - the bound is stated in the message
        raise InvalidInputError(f"deadline_ms={deadline_ms}: expected 1 to 60000")
    return deadline_ms
