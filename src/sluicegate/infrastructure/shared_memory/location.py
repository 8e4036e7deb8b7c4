"""Which file a name, a path or a URL means."""

import os
import re
import sys
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.infrastructure.shared_memory.layout import parse_size

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
# On macOS every user has a temporary folder of their own, but a job of cron and a shell may differ in it.
_FOLDER: Final = Path("/dev/shm" if sys.platform == "linux" else "/tmp")  # noqa: S108 - the file's owner and mode are checked


def path_of(name_or_path: object) -> Path:
    """Return the file of a name (`myapp`: a file in memory that belongs to the user) or of an absolute path.

    Raises:
        InvalidInputError: If it is neither, or there is no folder for names on this system.
    """
    if not isinstance(name_or_path, str | Path):
        raise InvalidTypeError(f"name_or_path={name_or_path!r}: expected a name or a path")
    text = str(name_or_path)
    if text.startswith("/") and "\0" not in text:
        return Path(text)
    if not _NAME.fullmatch(text):
        raise InvalidInputError(
            f"name_or_path={text!r}: expected a name of 1 to 64 letters, digits and ._- , or a path that begins with /"
        )
    if not _FOLDER.is_dir():
        raise InvalidInputError(f"name_or_path={text!r}: there is no {_FOLDER} on this system; give a path")
    return _FOLDER / f"sluicegate-{os.geteuid()}-{text}"


def location_of_url(url: str) -> tuple[str, int | None]:
    """Return the name or path and the size that a URL names; None: no size.

    Args:
        url: `shm://NAME`, `shm:///path`, either with `?size=64MiB`.

    Raises:
        InvalidInputError: If it is not such a URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInputError(f"{url[:80]!r}: {error}") from None
    if parts.scheme != "shm":
        raise InvalidInputError(f"{url[:80]!r}: expected shm://NAME or shm:///path")
    if parts.netloc and parts.path not in {"", "/"}:
        raise InvalidInputError(f"{url[:80]!r}: has a name and a path; expected shm://NAME or shm:///path")
    name_or_path = parts.netloc or unquote(parts.path)
    if name_or_path in {"", "/"} or parts.fragment:
        raise InvalidInputError(f"{url[:80]!r}: expected shm://NAME or shm:///path")
    size_bytes: int | None = None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "size" or size_bytes is not None:
            raise InvalidInputError(
                f"{url[:80]!r}: {name}={value!r}: the only argument is one size, such as ?size=64MiB"
            )
        size_bytes = parse_size(value)
    return name_or_path, size_bytes
