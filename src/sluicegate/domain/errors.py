"""What can go wrong, as three different things: bad input, a broken storage, and an answer that says so."""

from functools import partial

import msgspec


class InvalidInputError(ValueError):
    """A rule, argument or setting is wrong. Raised where the mistake is made; the message names field and value."""


class InvalidTypeError(InvalidInputError, TypeError):
    """A value is of the wrong type: a `TypeError` for those who look for one, a `ValueError` like its siblings."""


class RuleFileError(InvalidInputError):
    """A rules file is refused, and nothing of it is used.

    Args:
        path: The file, as the caller named it.
        message: What is wrong and what was expected, one line.
        line: The line in the file, from 1; 0 where no line can be named.
        field: Where in the file's structure, such as `policies.login.cost`; empty for the file as a whole.
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
    """A storage could not decide. The failure policy turns it into an answer; no caller of a check ever sees it.

    Args:
        reason: A word of a closed set, fit for a metric's label: `timeout`, `connection`, `server_error`, ….
        message: What happened, free of identifiers and passwords.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class RateLimitError(msgspec.Struct, frozen=True):
    """Say why an administrative call (`reset`, `refund`) did not happen. A value, carried by `Failure`.

    Args:
        reason: A word of a closed set: a storage's reason, or `no_rule`.
        message: One sentence for a person, free of identifiers.
        endpoint: The endpoint that was asked about.
    """

    reason: str
    message: str
    endpoint: str = ""

    def __str__(self) -> str:
        return self.message
