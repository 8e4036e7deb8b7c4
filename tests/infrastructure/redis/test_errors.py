"""Every way in which a server says no, by the words that it uses."""

import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.base import BaseParser
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.errors import REASONS, ErrorReply, fault_of

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
    fault = fault_of(ErrorReply(line))
    assert (fault.kind, fault.reason) == (kind, reason)
    assert fault.reason in REASONS
    if kind in {"moved", "ask"}:
        assert fault.address == (line.split()[2].split(":", maxsplit=1)[0], 7001)


@pytest.mark.parametrize(("line", "kind", "reason"), [line for line in LINES if line[1] not in {"moved", "ask"}])
def test_redis_py_names_the_same_reason(line: str, kind: str, reason: str) -> None:
    """Of an error in answer to its own commands; older versions cut the code off the text."""
    fault = fault_of(BaseParser.parse_error(line))
    assert fault.reason in {reason, "server_error"} if kind == "try_again" else fault.reason == reason


@pytest.mark.parametrize("host", ["", "?"])
def test_a_redirection_to_an_unknown_endpoint_names_no_host(host: str) -> None:
    """The port counts; the host is the one that said so."""
    assert fault_of(ErrorReply(f"MOVED 866 {host}:7001")).address == ("", 7001)


SECRET = "rate_limit:ip:alice@example.org:POST /login"


@pytest.mark.parametrize(
    "line",
    [
        f"ERR unknown command 'EVALSHA', with args beginning with: '4f' '1' '{SECRET}'",
        f"ERR Error running script (call to f_a): @user_script:12: {SECRET}",
        f"NOPERM No permissions to access a key '{SECRET}'",
        f"WRONGTYPE {SECRET}",
        f"MOVED 1 {SECRET}:1",
        f"OOM {SECRET}",
        f"WRONGPASS {SECRET}",
        f"{SECRET}",
        *[f"{line} {SECRET}" for line, kind, _ in LINES if kind not in {"moved", "ask"}],
    ],
)
def test_no_message_repeats_what_the_server_said(line: str) -> None:
    """An error reply may quote the command; no part of it is told, nor is it left in the exception."""
    for error in (ErrorReply(line), BaseParser.parse_error(line) if not line.startswith("MOVED") else ErrorReply(line)):
        raised = fault_of(error).error()
        for text in (str(raised), repr(raised), repr(raised.args)):
            assert "alice" not in text
            assert "rate_limit:" not in text
    assert "alice" not in f"{ErrorReply(line)} {ErrorReply(line)!r} {ErrorReply(line).args}"


@given(st.text(alphabet=st.characters(exclude_characters="|", min_codepoint=33, max_codepoint=126), min_size=5))
def test_no_message_repeats_any_text(text: str) -> None:
    """Whatever stands in an error: a message is made of this package's own words."""
    for error in (
        ErrorReply(f"ERR {text}|"),
        RedisConnectionError(f"{text}|"),
        OSError(99_999, f"{text}|"),
        RedisError(f"{text}|"),
    ):
        assert f"{text}|" not in fault_of(error).message


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('hunter2', 6379)"), "Connection refused"),
        (socket.gaierror(-2, "hunter2: Name or service not known"), "the host's name was not found"),
        (ssl.SSLCertVerificationError("certificate is not valid for 'hunter2'"), "the certificate was not accepted"),
        (OSError("Multiple exceptions: ('hunter2', 6379), ('::1', 6379)"), "it was closed or refused"),
    ],
)
def test_a_failed_connection_says_why_but_not_where(error: Exception, why: str) -> None:
    """A password with an `@` or `/` in it can become the host; the reason is found in what redis-py's error was raised from."""
    try:
        try:
            raise error
        except OSError:
            raise RedisConnectionError("Error connecting to hunter2:6379.")  # noqa: B904 - as redis-py does
    except RedisConnectionError as raised:
        message = fault_of(raised).message
    assert why in message
    assert "hunter2" not in message


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


def test_no_message_is_long() -> None:
    """A hostile server does not fill the log."""
    assert len(fault_of(RedisError("x" * 10_000)).message) <= 200
    assert len(fault_of(ErrorReply("ERR " + "x" * 10_000)).message) <= 200
