"""The errors: invalid input (raised), a storage that failed (handled inside), and a value that reports a failure."""

from functools import partial

import msgspec


class InvalidInputError(ValueError):
    """A rule, argument or setting is invalid. Raised where the mistake is made; the message names the field and the value."""


class InvalidTypeError(InvalidInputError, TypeError):
    """A value has the wrong type. It is a `TypeError`, and a `ValueError` like every `InvalidInputError`."""


class RuleFileError(InvalidInputError):
    """A rules file is invalid, and nothing in it is used.

    Args:
        path: The file's path as the caller gave it.
        message: What is wrong and what was expected, in one line.
        line: The line in the file, from 1; 0 if no line can be named.
        field: The field, such as `policies.login.cost`; empty for the file as a whole.
    """

    def __init__(self, path: str, message: str, *, line: int = 0, field: str = "") -> None:
        place = f"{path}:{line}" if line else path
        text = f"{place}: {field}: {message}" if field else f"{place}: {message}"
        super().__init__("".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text))
        self.path = path
        self.line = line
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        """Return how pickle makes it again: from what it was made of, not from the text."""
        return partial(type(self), line=self.line, field=self.field), (self.path, self.message)


class StorageError(Exception):
    """A storage could not decide. The failure policy turns it into an answer; the caller of a check never sees it.

    Args:
        reason: One word of a fixed set, usable as a metric's label: `timeout`, `connection`, `server_error`, ….
        message: What happened, without identifiers and passwords.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class RateLimitError(msgspec.Struct, frozen=True):
    """Why an administrative call (`reset`, `reset_all`, `refund`) was not done. It is not raised: a `Failure` holds it.

    Args:
        reason: One word of a fixed set: a storage's reason, `no_rule`, or `unsupported` where a storage has not the verb.
        message: One sentence for a person, without identifiers.
        endpoint: The endpoint of the call.
    """

    reason: str
    message: str
    endpoint: str = ""

    def __str__(self) -> str:
        return self.message
