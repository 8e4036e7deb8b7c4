"""The first page of the file, and whose file it is: what makes it one that this process can share."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.shared_memory import layout as at
from sluicegate.infrastructure.shared_memory.host import clock_id
from sluicegate.infrastructure.shared_memory.layout import Layout


class Header(NamedTuple):
    """What the first page says; see `layout.HEADER`."""

    magic: bytes
    version: int
    byte_order: int
    size_bytes: int
    boot: bytes
    stripes: int
    journal_lines: int
    secret: bytes
    clock: int
    made_s: int


def require_ours(path: Path, fd: int) -> os.stat_result:
    """Return what the system says of an opened file, or raise the error that says why it is not this user's alone."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(f"{path}: is not a regular file")
    if status.st_uid != os.geteuid():
        raise InvalidInputError(f"{path}: belongs to user {status.st_uid}, and this process is user {os.geteuid()}")
    if status.st_mode & 0o077:
        raise InvalidInputError(
            f"{path}: others may read or write it (mode {status.st_mode & 0o777:03o}); expected 600"
        )
    return status


def read_header(fd: int) -> Header | None:
    """Return what the first page says; None: nothing, for whoever made the file did not come to its end."""
    page = os.pread(fd, at.HEADER_BYTES, 0)
    if not page.strip(b"\0"):
        return None
    return Header._make(at.HEADER.unpack_from(page.ljust(at.HEADER_BYTES, b"\0")))


def require_header(
    path: Path, header: Header | None, file_bytes: int, size_bytes: int | None, most_stripes: int
) -> Header:
    """Raise the error that says why a file cannot be shared."""
    if header is None or header.magic != at.MAGIC:
        raise InvalidInputError(f"{path}: this is no file of sluicegate")
    if header.byte_order != at.BYTE_ORDER_MARK:
        raise InvalidInputError(f"{path}: was made on a machine of another byte order; remove it")
    if header.version != at.VERSION:
        raise InvalidInputError(
            f"{path}: has layout {header.version}, this version of sluicegate has {at.VERSION}: stop the processes that use it,"
            " then `sluicegate storage clear` removes it"
        )
    if size_bytes is not None and header.size_bytes != size_bytes:
        raise InvalidInputError(
            f"{path}: size={size_bytes}: the file has {header.size_bytes} bytes: stop the processes that use it and remove it,"
            " or ask for its size, or for none"
        )
    if (
        header.size_bytes != file_bytes
        or header.journal_lines != at.JOURNAL_LINES
        or not 1 <= header.stripes <= most_stripes
        or Layout(header.size_bytes, header.stripes).slots < 1
    ):
        raise InvalidInputError(f"{path}: is damaged; remove it")
    if header.clock != clock_id():
        raise InvalidInputError(f"{path}: was made in another time namespace, whose clock differs from this process's")
    return header
