"""Sluicegate: an exact, fast, fail-open token-bucket rate limiter for Python services."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from sluicegate.application.budgets.estimator import Estimator
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.application.wait_queue import SlotTimeoutError
from sluicegate.container import get_rate_limit, get_sync_rate_limit
from sluicegate.domain.buckets import bucket_spec as _compiled_module
from sluicegate.domain.claims.reservation import Hold, Reservation, Settlement
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError, RateLimitError, RuleFileError, StorageError
from sluicegate.domain.events import (
    RateLimitAdministered,
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitCheckDenied,
    RateLimitCheckSkipped,
    RateLimitClaimed,
    RateLimitClaimExtended,
    RateLimitClaimSettled,
    RateLimitDebtCapped,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
    RateLimitRulesChanged,
    RateLimitRulesRefused,
    RateLimitShadowDenied,
    RateLimitStorageRecovered,
    RateLimitSwitched,
)
from sluicegate.domain.protocols import (
    Clock,
    EventBusProtocol,
    LoggerProtocol,
    RateLimitProtocol,
    StorageProtocol,
    SyncStorageProtocol,
)
from sluicegate.domain.result import Failure, RateLimitResult, Result, Success
from sluicegate.domain.rules.rule import RateLimitRule, RateLimitScope
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.domain.rules.rule_book_entries import KillSwitch, Listing, Override, RuleGroup
from sluicegate.infrastructure.event_bus import BufferedEventBus, InlineEventBus
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.runtime.extras import is_installed, needs_extra
from sluicegate.runtime.stdlib_logger import StdlibLogger

if TYPE_CHECKING:
    from sluicegate.application.rate_limited_error import RateLimitedError
    from sluicegate.application.rules.rule_merging import RuleRegistry, merge_rules
    from sluicegate.container import watch_rules
    from sluicegate.infrastructure.redis.storage import RedisStorage
    from sluicegate.infrastructure.redis.sync_storage import SyncRedisStorage
    from sluicegate.infrastructure.rules_file.reader import load_rules
    from sluicegate.infrastructure.shared_memory.inspection import SharedMemoryInfo
    from sluicegate.infrastructure.shared_memory.storage import SharedMemoryStorage
    from sluicegate.infrastructure.structlog_logger import StructlogLogger
    from sluicegate.presentation.decorator import rate_limited
    from sluicegate.presentation.httpx_transport import RateLimitTransport, SyncRateLimitTransport
    from sluicegate.presentation.paced import paced
    from sluicegate.presentation.web.answer import Answer
    from sluicegate.presentation.web.asgi.fastapi import install_rate_limits, rate_limit
    from sluicegate.presentation.web.asgi.middleware import RateLimitMiddleware
    from sluicegate.presentation.web.identity.client_address import ClientAddresses
    from sluicegate.presentation.web.incoming_request import exempt
    from sluicegate.presentation.web.wsgi.flask import FlaskRateLimit
    from sluicegate.presentation.web.wsgi.middleware import WSGIRateLimitMiddleware

# Names that need an extra, or that few need, are imported when they are asked for: `import sluicegate` needs none of them.
_LAZY = {
    "Answer": "sluicegate.presentation.web.answer",
    "ClientAddresses": "sluicegate.presentation.web.identity.client_address",
    "FlaskRateLimit": "sluicegate.presentation.web.wsgi.flask",
    "RateLimitMiddleware": "sluicegate.presentation.web.asgi.middleware",
    "RateLimitTransport": "sluicegate.presentation.httpx_transport",
    "RateLimitedError": "sluicegate.application.rate_limited_error",
    "RedisStorage": "sluicegate.infrastructure.redis.storage",
    "RuleRegistry": "sluicegate.application.rules.rule_merging",
    "SharedMemoryInfo": "sluicegate.infrastructure.shared_memory.inspection",
    "SharedMemoryStorage": "sluicegate.infrastructure.shared_memory.storage",
    "StructlogLogger": "sluicegate.infrastructure.structlog_logger",
    "SyncRateLimitTransport": "sluicegate.presentation.httpx_transport",
    "SyncRedisStorage": "sluicegate.infrastructure.redis.sync_storage",
    "WSGIRateLimitMiddleware": "sluicegate.presentation.web.wsgi.middleware",
    "exempt": "sluicegate.presentation.web.incoming_request",
    "install_rate_limits": "sluicegate.presentation.web.asgi.fastapi",
    "load_rules": "sluicegate.infrastructure.rules_file.reader",
    "merge_rules": "sluicegate.application.rules.rule_merging",
    "paced": "sluicegate.presentation.paced",
    "rate_limit": "sluicegate.presentation.web.asgi.fastapi",
    "rate_limited": "sluicegate.presentation.decorator",
    "watch_rules": "sluicegate.container",
}

COMPILED: bool = not (_compiled_module.__file__ or "").endswith((".py", ".pyc"))
"""Whether the modules that can be compiled are: False in a pure wheel and in an editable installation."""

_LIBRARIES = {
    "FlaskRateLimit": ("flask",),
    "RateLimitTransport": ("httpx",),
    "RedisStorage": ("redis", "hiredis"),
    "SyncRateLimitTransport": ("httpx",),
    "SyncRedisStorage": ("redis", "hiredis"),
    "install_rate_limits": ("fastapi",),
    "rate_limit": ("fastapi",),
}
"""What lazy names need beside the package itself."""

__all__ = [
    "COMPILED",
    "Answer",
    "BufferedEventBus",
    "ClientAddresses",
    "Clock",
    "Estimator",
    "EventBusProtocol",
    "Failure",
    "FlaskRateLimit",
    "Hold",
    "InlineEventBus",
    "InvalidInputError",
    "InvalidTypeError",
    "KillSwitch",
    "Listing",
    "LoggerProtocol",
    "MemoryStorage",
    "Override",
    "RateLimitAdministered",
    "RateLimitCheckAllowed",
    "RateLimitCheckAttempted",
    "RateLimitCheckDenied",
    "RateLimitCheckSkipped",
    "RateLimitClaimExtended",
    "RateLimitClaimSettled",
    "RateLimitClaimed",
    "RateLimitDebtCapped",
    "RateLimitError",
    "RateLimitEvent",
    "RateLimitFailedClosed",
    "RateLimitFailedOpen",
    "RateLimitListed",
    "RateLimitMiddleware",
    "RateLimitProtocol",
    "RateLimitResult",
    "RateLimitRule",
    "RateLimitRulesChanged",
    "RateLimitRulesRefused",
    "RateLimitScope",
    "RateLimitShadowDenied",
    "RateLimitStorageRecovered",
    "RateLimitSwitched",
    "RateLimitTransport",
    "RateLimitedError",
    "RedisStorage",
    "Reservation",
    "Result",
    "RuleBook",
    "RuleFileError",
    "RuleGroup",
    "RuleRegistry",
    "Settlement",
    "SharedMemoryInfo",
    "SharedMemoryStorage",
    "SlotTimeoutError",
    "StdlibLogger",
    "StorageError",
    "StorageProtocol",
    "StructlogLogger",
    "Success",
    "SyncRateLimitTransport",
    "SyncRedisStorage",
    "SyncStorageProtocol",
    "SyncTokenBucketAdapter",
    "TokenBucketAdapter",
    "WSGIRateLimitMiddleware",
    "exempt",
    "get_rate_limit",
    "get_sync_rate_limit",
    "install_rate_limits",
    "load_rules",
    "merge_rules",
    "paced",
    "rate_limit",
    "rate_limited",
    "watch_rules",
]
# `from sluicegate import *` takes what is here; type checkers read the list above.
globals()["__all__"] = [name for name in __all__ if is_installed(*_LIBRARIES.get(name, ()))]


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        with needs_extra(f"sluicegate.{name}"):
            value: object = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        # `from sluicegate import …` asks `hasattr` first, and of an AttributeError would only say that there is no such name.
        if sys._getframe(1).f_globals.get("__name__") in {"_frozen_importlib", "importlib._bootstrap"}:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            raise
        raise AttributeError(str(error), name=name) from error
    globals()[name] = value
    return value
