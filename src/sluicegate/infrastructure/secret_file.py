"""Read secrets from files, where neither `ps` nor the environment of a process shows them."""

import os
from pathlib import Path
from typing import Final

from sluicegate.domain.errors import InvalidInputError

_MIN_SECRET: Final = 16


def read_secret(option: str, path: str) -> str:
    """Return the secret in a file, without the white space round it.

    Raises:
        InvalidInputError: If the file cannot be read, others may read it, or the secret has less than 16 characters.
    """
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{option}: {path} cannot be read: {error}") from None
    if os.name == "posix" and mode & 0o007:
        raise InvalidInputError(f"{option}: anybody may read {path} (mode {mode & 0o777:04o}); chmod o-rwx")
    if len(text) < _MIN_SECRET:
        raise InvalidInputError(f"{option}: the secret in {path} has less than {_MIN_SECRET} characters")
    return text
