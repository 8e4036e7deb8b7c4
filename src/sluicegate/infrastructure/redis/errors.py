"""What went wrong with Redis, in one word of a closed set, and what it means for the connection."""

import re
from typing import Any, Final, Literal, cast

import msgspec
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from sluicegate.domain.errors import StorageError

REASONS = frozenset({
    "timeout", "connection", "auth", "no_permission", "readonly", "loading", "busy", "oom", "misconf", "noreplicas",
    "masterdown", "cluster_down", "try_again", "wrong_reply", "server_error", "breaker_open", "overload", "loop_busy",
})  # fmt: skip
"""Every reason that a `StorageError` of `RedisStorage` may have."""

_REASON_OF = {
    "READONLY": "readonly", "LOADING": "loading", "BUSY": "busy", "OOM": "oom", "MISCONF": "misconf",
    "NOREPLICAS": "noreplicas", "MASTERDOWN": "masterdown", "CLUSTERDOWN": "cluster_down", "TRYAGAIN": "try_again",
    "NOPERM": "no_permission", "NOAUTH": "auth", "WRONGPASS": "auth",
}  # fmt: skip
# Redis 6.2 wraps what a script's command raised: "Error running script (…): @user_script:12: -OOM command not …".
_CODE = re.compile(rf"(?:^|[\s-])({'|'.join(_REASON_OF)})\b")
# Redis 6.2 and 7.0, and later versions, about a command that the script's user may not run.
_NO_PERMISSION = ("The user executing the script can't", "ACL failure in script")
_MAX_MESSAGE = 200

FaultKind = Literal["no_script", "moved", "ask", "try_again", "reply", "lost"]


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, and what follows from it.

    Args:
        kind: `no_script`, `moved`, `ask` and `try_again` prove that nothing was executed; `reply` is any other error reply;
            `lost` means that the connection has ended, or must be given up.
        reason: One of `REASONS`.
        message: What the server or the client library said, without identifiers or passwords.
        address: Where `moved` and `ask` point to.
    """

    kind: FaultKind
    reason: str
    message: str
    address: tuple[str, int] | None = None

    def error(self) -> StorageError:
        """Return a new error for one caller: raising an exception changes it."""
        return StorageError(self.reason, self.message)


SILENT: Final = Fault("lost", "timeout", "The server did not answer in time.")
BUSY: Final = Fault("lost", "loop_busy", "The event loop was too busy to ask the server in time.")


def fault_of(error: BaseException) -> Fault:
    """Return what an exception of redis-py, asyncio or this package means."""
    message = f"{error}"[:_MAX_MESSAGE] or type(error).__name__
    if isinstance(error, ResponseError):
        return _fault_of_reply(error, message)
    code = str(error.status_code or "") if isinstance(error, RedisError) else ""
    match error:
        case StorageError():
            return Fault("lost", error.reason, message)
        case AuthenticationError() | AuthorizationError():
            return Fault("lost", "auth", message)
        case RedisTimeoutError() | TimeoutError():
            return Fault("lost", "timeout", "The server did not answer in time.")
        case RedisConnectionError() | OSError():
            return Fault("lost", _REASON_OF.get(code, "connection"), message)
        case _:
            # The other errors of redis-py are about replies; anything else is a fault of this package or of the event loop.
            reason = "wrong_reply" if isinstance(error, RedisError) else "connection"
            return Fault("lost", reason, f"{type(error).__name__} while talking to the server")


def _fault_of_reply(error: ResponseError, message: str) -> Fault:
    if isinstance(error, NoScriptError):
        return Fault("no_script", "server_error", message)
    if isinstance(error, AskError):  # or MovedError, its subclass
        kind: FaultKind = "moved" if isinstance(error, MovedError) else "ask"
        address = (str(cast("Any", error).host), int(error.port))
        return Fault(kind, "cluster_down", "The cluster keeps redirecting this check.", address)
    if isinstance(error, TryAgainError):
        return Fault("try_again", "try_again", message)
    found = _CODE.search(f"{error.status_code or ''} {message}")
    reason = _REASON_OF[found[1]] if found else "server_error"
    if any(phrase in message for phrase in _NO_PERMISSION):
        reason = "no_permission"
    # On this connection a replica stays a replica, and a lost login stays lost.
    return Fault("lost" if reason in {"readonly", "auth"} else "reply", reason, message)
