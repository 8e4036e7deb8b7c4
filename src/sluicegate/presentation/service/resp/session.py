"""The commands that a client of the Redis protocol may give, and what each is answered."""

import hmac
from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from sluicegate.application.joint_check import JointCheck
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.resp.throttle import throttle_part, throttle_reply

OK: Final = b"+OK\r\n"
_NO_LOGIN: Final = b"-NOAUTH Authentication required.\r\n"
_WITHOUT_LOGIN: Final = frozenset({b"AUTH", b"HELLO", b"QUIT"})
_MAX_SHOWN: Final = 64


class Session:
    """What one client has said so far.

    Args:
        limiter: Decides.
        password: What the client must say; empty: nothing.
        storage_errors: Whether a check that the storage did not decide is an error.
    """

    def __init__(self, limiter: TokenBucketAdapter, password: bytes, *, storage_errors: bool) -> None:
        self._limiter = limiter
        self._password = password
        self._storage_errors = storage_errors
        self.protocol = 2
        """The version of the protocol that it speaks."""
        self.is_logged_in = not password
        """Whether it has said the password."""
        self.is_ending = False
        """Whether it has taken its leave."""

    def answer(self, command: list[bytes]) -> bytes | JointCheck:
        """Return the reply to a command, or the check that must be completed before there is one.

        Args:
            command: The command's name and its arguments, at least the name.
        """
        name = command[0].upper()
        if not self.is_logged_in and name not in _WITHOUT_LOGIN:
            return _NO_LOGIN
        try:
            if name == b"CL.THROTTLE":
                joint = self._limiter.begin_together((throttle_part(command[1:]),))
                return joint if joint.waits else self.throttle_reply(joint)
            handler = _HANDLERS.get(name)
            if handler is None:
                return error(f"unknown command '{_shown(command[0])}'")
            return handler(self, command[1:])
        except InvalidInputError as invalid:
            return error(str(invalid))

    def throttle_reply(self, joint: JointCheck) -> bytes:
        """Return the reply to a check that is done."""
        if self._storage_errors and joint.checks[0].degraded is not None:
            return error("the storage did not decide")
        return throttle_reply(joint)

    def log_in(self, arguments: list[bytes]) -> bool:
        """Check a password, with a user's name before it or not; the only user is `default`."""
        known = len(arguments) == 1 or arguments[0] == b"default"
        self.is_logged_in = (hmac.compare_digest(arguments[-1], self._password) or not self._password) and known
        return self.is_logged_in


def _ping(_: Session, arguments: list[bytes]) -> bytes:
    return _bulk(arguments[0]) if arguments else b"+PONG\r\n"


def _echo(_: Session, arguments: list[bytes]) -> bytes:
    _require(arguments, 1, "echo")
    return _bulk(arguments[0])


def _auth(session: Session, arguments: list[bytes]) -> bytes:
    if len(arguments) not in {1, 2}:
        raise InvalidInputError("wrong number of arguments for 'auth' command")
    return OK if session.log_in(arguments) else b"-WRONGPASS invalid username-password pair\r\n"


def _hello(session: Session, arguments: list[bytes]) -> bytes:
    options = list(arguments)
    if options:
        if options[0] not in {b"2", b"3"}:
            return b"-NOPROTO unsupported protocol version\r\n"
        protocol = int(options.pop(0))
    else:
        protocol = session.protocol
    while options:
        option = options.pop(0).upper()
        if option == b"AUTH" and len(options) > 1:
            if not session.log_in(options[:2]):
                return b"-WRONGPASS invalid username-password pair\r\n"
            options = options[2:]
        elif option == b"SETNAME" and options:
            options.pop(0)
        else:
            raise InvalidInputError("syntax error in HELLO")
    if not session.is_logged_in:
        return _NO_LOGIN
    session.protocol = protocol
    fields = {b"server": _bulk(b"sluicegate"), b"version": _bulk(version("sluicegate").encode())}
    fields |= {b"proto": b":%d\r\n" % protocol, b"id": b":0\r\n", b"mode": _bulk(b"standalone")}
    fields |= {b"role": _bulk(b"master"), b"modules": b"*0\r\n"}
    head = b"%%%d\r\n" % len(fields) if protocol > 2 else b"*%d\r\n" % (2 * len(fields))  # noqa: PLR2004 - RESP3 has maps
    return head + b"".join([_bulk(name) + value for name, value in fields.items()])


def _quit(session: Session, __: list[bytes]) -> bytes:
    session.is_ending = True
    return OK


def _select(_: Session, arguments: list[bytes]) -> bytes:
    _require(arguments, 1, "select")
    return OK if arguments[0] == b"0" else error("DB index is out of range")


def _client(session: Session, arguments: list[bytes]) -> bytes:
    what = arguments[0].upper() if arguments else b""
    if what in {b"SETINFO", b"SETNAME"}:
        return OK
    if what == b"ID":
        return b":0\r\n"
    if what == b"GETNAME":
        return b"_\r\n" if session.protocol > 2 else b"$-1\r\n"  # noqa: PLR2004 - RESP3 has a null of its own
    raise InvalidInputError(f"unknown subcommand '{_shown(what)}' of 'client'")


def _command(session: Session, arguments: list[bytes]) -> bytes:
    if arguments and arguments[0].upper() == b"COUNT":
        return b":%d\r\n" % (len(_HANDLERS) + 1)
    if arguments and arguments[0].upper() == b"DOCS" and session.protocol > 2:  # noqa: PLR2004 - RESP3 has maps
        return b"%0\r\n"
    return b"*0\r\n"


_HANDLERS: Final[dict[bytes, Callable[[Session, list[bytes]], bytes]]] = {
    b"AUTH": _auth,
    b"CLIENT": _client,
    b"COMMAND": _command,
    b"ECHO": _echo,
    b"HELLO": _hello,
    b"PING": _ping,
    b"QUIT": _quit,
    b"SELECT": _select,
}


def error(message: str) -> bytes:
    """Return an error reply, on one line whatever the message holds."""
    line = "".join([char if char.isprintable() else "?" for char in message])
    return b"-ERR %s\r\n" % line.encode("utf-8", "replace")


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def _shown(data: bytes) -> str:
    return data[:_MAX_SHOWN].decode("utf-8", "replace")


def _require(arguments: list[bytes], count: int, name: str) -> None:
    if len(arguments) != count:
        raise InvalidInputError(f"wrong number of arguments for '{name}' command")
