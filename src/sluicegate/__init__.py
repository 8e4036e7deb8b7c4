"""Sluicegate: an exact, fast, fail-open token-bucket rate limiter for Python services."""

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError, RateLimitError, StorageError
from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitCheckDenied,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
)
from sluicegate.domain.protocols import (
    Clock,
    EventBusProtocol,
    LoggerProtocol,
    RateLimitProtocol,
    StorageProtocol,
    SyncStorageProtocol,
)
from sluicegate.domain.result import Failure, Result, Success
from sluicegate.domain.rule import RateLimitRule, RateLimitScope
from sluicegate.infrastructure.event_bus import BufferedEventBus, InlineEventBus
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.runtime.stdlib_logger import StdlibLogger

__all__ = [
    "BufferedEventBus",
    "Clock",
    "EventBusProtocol",
    "Failure",
    "InlineEventBus",
    "InvalidInputError",
    "InvalidTypeError",
    "LoggerProtocol",
    "MemoryStorage",
    "RateLimitCheckAllowed",
    "RateLimitCheckAttempted",
    "RateLimitCheckDenied",
    "RateLimitError",
    "RateLimitEvent",
    "RateLimitFailedClosed",
    "RateLimitFailedOpen",
    "RateLimitProtocol",
    "RateLimitResult",
    "RateLimitRule",
    "RateLimitScope",
    "Result",
    "StdlibLogger",
    "StorageError",
    "StorageProtocol",
    "Success",
    "SyncStorageProtocol",
    "SyncTokenBucketAdapter",
    "TokenBucketAdapter",
    "get_rate_limit",
]
