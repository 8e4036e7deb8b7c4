"""What went wrong with Redis, in one word of a closed set, and what it means for the connection.

Nothing that a server or a library says is passed on: an error reply may quote the command, and with it a key; an error of a
connection may quote the host of a URL whose password was not percent-encoded. Every message is one of this module's sentences.
"""

import errno
import os
import re
import socket
import ssl
from typing import Final, Literal

import msgspec
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
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

_REASON_OF: Final = {
    "READONLY": "readonly", "LOADING": "loading", "BUSY": "busy", "OOM": "oom", "MISCONF": "misconf",
    "NOREPLICAS": "noreplicas", "MASTERDOWN": "masterdown", "CLUSTERDOWN": "cluster_down", "TRYAGAIN": "try_again",
    "NOPERM": "no_permission", "NOAUTH": "auth", "WRONGPASS": "auth",
}  # fmt: skip
# Redis 6.2 wraps what a script's command raised: "Error running script (…): @user_script:12: -OOM command not …".
_CODE: Final = re.compile(rf"(?:^|[\s-])({'|'.join(_REASON_OF)})\b")
# Redis 6.2 and 7.0, and later versions, about a command that the script's user may not run.
_NO_PERMISSION: Final = ("The user executing the script can't", "ACL failure in script")
_COMMAND: Final = re.compile(
    r"'(evalsha|eval|time|mget|set|del|scan|select|auth|asking|hello|cluster\|slots|sentinel\|masters)'"
)

# Versions of redis-py before 8 cut the code off, and leave the class.
_CODE_OF_CLASS: Final[tuple[tuple[type[RedisError], str], ...]] = (
    (NoScriptError, "NOSCRIPT"), (NoPermissionError, "NOPERM"), (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"), (BusyLoadingError, "LOADING"), (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"), (TryAgainError, "TRYAGAIN"),
)  # fmt: skip

_SENTENCE: Final = {
    "auth": "The server refused the login.",
    "busy": "The server is busy with another script (BUSY).",
    "cluster_down": "The cluster is down (CLUSTERDOWN).",
    "connection": "The connection to the server failed",
    "loading": "The server is loading its data (LOADING).",
    "masterdown": "The server is a replica without its master (MASTERDOWN).",
    "misconf": "The server cannot save its data, and refuses to write (MISCONF).",
    "no_permission": "The server's access list does not let this user do what a check needs (NOPERM)",
    "noreplicas": "The server has too few replicas, and refuses to write (NOREPLICAS).",
    "oom": "The server's memory is full (OOM).",
    "readonly": "The server is a replica (READONLY).",
    "timeout": "The server did not answer in time.",
    "try_again": "The cluster is moving some of the buckets (TRYAGAIN).",
    "wrong_reply": "The server sent what is no reply to a check.",
}
# Of errors without a code of their own, what they are about.
_ABOUT: Final = {
    "unknown command": "it does not know the command",
    "Unknown Redis command": "it does not know the command",
    "max number of clients": "it has the most clients that it may have",
    "DB index": "it has no such database",
    "CROSSSLOT": "the keys lie in several slots",
    "Error running script": "the script failed",
    "user_script": "the script failed",
    "cluster support disabled": "it is no Cluster",
}

FaultKind = Literal["no_script", "moved", "ask", "try_again", "reply", "lost"]


class ErrorReply(Exception):  # noqa: N818 - it is no error of this program, but what a server said
    """An error reply, as it came. Its text is shown to nobody.

    Args:
        text: The reply.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, and what follows from it.

    Args:
        kind: `no_script`, `moved`, `ask` and `try_again` prove that nothing was executed; `reply` is any other error reply;
            `lost` means that the connection has ended, or must be given up.
        reason: One of `REASONS`.
        message: What happened, in this module's words.
        address: Where `moved` and `ask` point to; an empty host is the one that said so.
    """

    kind: FaultKind
    reason: str
    message: str
    address: tuple[str, int] | None = None

    def error(self) -> StorageError:
        """Return a new error for one caller: raising an exception changes it."""
        return StorageError(self.reason, self.message)


CLOSED: Final = Fault("lost", "connection", "The storage was closed.")
SILENT: Final = Fault("lost", "timeout", _SENTENCE["timeout"])
BUSY: Final = Fault("lost", "loop_busy", "The event loop was too busy to ask the server in time.")


def fault_of(error: BaseException) -> Fault:  # noqa: PLR0911 - a table, one line for each kind
    """Return what an exception of redis-py, asyncio or this package means."""
    match error:
        case ErrorReply():
            return _fault_of_reply(error.text)
        case ResponseError():
            return _fault_of_reply(_text_of(error))
        case StorageError():
            return Fault("lost", error.reason, f"{error}")
        case AuthenticationError() | AuthorizationError():
            return Fault("lost", "auth", _SENTENCE["auth"])
        case RedisTimeoutError() | TimeoutError():
            return SILENT
        case BusyLoadingError():
            return Fault("lost", "loading", _SENTENCE["loading"])
        case RedisConnectionError() | OSError():
            return Fault("lost", "connection", f"{_SENTENCE['connection']}: {_why(error)}.")
        case RedisError():
            return Fault("lost", "wrong_reply", _SENTENCE["wrong_reply"])  # redis-py's other errors are about replies
        case _:  # a fault of this package or of the event loop
            return Fault("lost", "connection", f"{_SENTENCE['connection']}: {type(error).__name__}.")


def _text_of(error: ResponseError) -> str:
    code = getattr(error, "status_code", None)  # of redis-py 8
    if code is None:
        code = next((code for kind, code in _CODE_OF_CLASS if isinstance(error, kind)), "")
    return f"{code or ''} {error}".lstrip()


def _fault_of_reply(text: str) -> Fault:
    code, _, rest = text.partition(" ")
    if code == "NOSCRIPT":
        return Fault("no_script", "server_error", "The server does not know the script (NOSCRIPT).")
    if code in {"MOVED", "ASK"}:
        host, _, port = rest.rpartition(" ")[2].rpartition(":")
        kind: FaultKind = "moved" if code == "MOVED" else "ask"
        address = ("" if host == "?" else host, int(port))
        return Fault(kind, "cluster_down", "The cluster keeps redirecting this check.", address)
    found = _CODE.search(text)
    reason = _REASON_OF[found[1]] if found else "server_error"
    if any(phrase in text for phrase in _NO_PERMISSION):
        reason = "no_permission"
    if reason == "server_error":
        about = next((about for phrase, about in _ABOUT.items() if phrase in text), "")
        lost = "max number of clients" in text
        message = f"The server answered with an error{': ' if about else ''}{about}."
        return Fault("lost", "connection", message) if lost else Fault("reply", reason, message)
    message = _SENTENCE[reason]
    if reason == "no_permission":
        command = _COMMAND.search(text)
        message += f": +{command[1]} is missing." if command else "."
    if reason == "try_again":
        return Fault("try_again", reason, message)
    # On this connection a replica stays a replica, and a lost login stays lost; loading takes a while.
    return Fault("lost" if reason in {"readonly", "auth", "loading"} else "reply", reason, message)


def _why(error: BaseException | None) -> str:
    """Return why a connection failed, in the operating system's words."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate was not accepted (X509_V_ERR {getattr(error, 'verify_code', 0)})"
        if isinstance(error, ssl.SSLError):
            return "TLS failed"
        if isinstance(error, socket.gaierror):
            return "the host's name was not found"
        number = error.errno if isinstance(error, OSError) else None
        if number is not None and number in errno.errorcode:
            return os.strerror(number)
        if "max number of clients" in f"{error}":
            return _ABOUT["max number of clients"]
        error = error.__cause__ or error.__context__
    return "it was closed or refused"
