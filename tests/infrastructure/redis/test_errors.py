"""Every way in which a server says no, by the words that it uses."""

import ssl

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.errors import REASONS, fault_of

LINES = [
    ("NOSCRIPT No matching script. Please use EVAL.", "no_script", "server_error"),
    ("MOVED 866 127.0.0.1:7001", "moved", "cluster_down"),
    ("ASK 866 10.0.0.7:7001", "ask", "cluster_down"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "try_again", "try_again"),
    ("CLUSTERDOWN Hash slot not served", "reply", "cluster_down"),
    ("LOADING Redis is loading the dataset in memory", "lost", "loading"),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "reply", "busy"),
    ("OOM command not allowed when used memory > 'maxmemory'. script: abc, on @user_script:1.", "reply", "oom"),
    ("ERR Error running script (call to f_a): @user_script:12: -OOM command not allowed when", "reply", "oom"),
    ("READONLY You can't write against a read only replica. script: ab, on @user_script:1.", "lost", "readonly"),
    ("ERR Error running script (call to f_a): @user_script: 9: -READONLY You can't write", "lost", "readonly"),
    ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable", "reply", "misconf"),
    ("NOREPLICAS Not enough good replicas to write.", "reply", "noreplicas"),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "reply", "masterdown"),
    ("NOPERM this user has no permissions to run the 'evalsha' command", "reply", "no_permission"),
    ("ERR The user executing the script can't run this command or subcommand script: a, on", "reply", "no_permission"),
    ("ERR ACL failure in script: User limits has no permissions to run the 'set' command", "reply", "no_permission"),
    ("NOAUTH Authentication required.", "lost", "auth"),
    ("WRONGPASS invalid username-password pair or user is disabled.", "lost", "auth"),
    ("ERR max number of clients reached", "lost", "connection"),
    ("ERR unknown command 'EVALSHA'", "reply", "server_error"),
]


@pytest.mark.parametrize(("line", "kind", "reason"), LINES)
def test_an_error_reply_has_a_kind_and_a_reason(line: str, kind: str, reason: str) -> None:
    """What the server says decides whether it was executed, whether the connection is kept, and how it is counted."""
    fault = fault_of(BaseParser.parse_error(line))
    assert (fault.kind, fault.reason) == (kind, reason)
    assert fault.reason in REASONS
    if kind in {"moved", "ask"}:
        assert fault.address == (line.split()[2].split(":", maxsplit=1)[0], 7001)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RedisConnectionError("Error 111 connecting to 127.0.0.1:1."), "connection"),
        (ConnectionResetError(104, "reset"), "connection"),
        (ssl.SSLCertVerificationError("self-signed"), "connection"),
        (AuthenticationError("invalid password"), "auth"),
        (RedisTimeoutError("Timeout connecting to server"), "timeout"),
        (TimeoutError(), "timeout"),
        (InvalidResponse("Protocol Error"), "wrong_reply"),
        (RedisError("odd"), "wrong_reply"),
        (StorageError("wrong_reply", "not ours"), "wrong_reply"),
        (RuntimeError("bug"), "connection"),
    ],
)
def test_any_other_exception_ends_the_connection(error: Exception, reason: str) -> None:
    """Whatever went wrong in between, the connection is not used again."""
    fault = fault_of(error)
    assert (fault.kind, fault.reason) == ("lost", reason)


def test_an_error_is_made_anew_for_each_caller() -> None:
    """Raising one exception in many tasks would give each the others' traceback."""
    fault = fault_of(TimeoutError())
    assert fault.error() is not fault.error()


def test_a_long_message_is_cut() -> None:
    """A hostile server does not fill the log."""
    assert len(fault_of(RedisError("x" * 10_000)).message) <= 200
