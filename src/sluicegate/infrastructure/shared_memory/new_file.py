"""A new file: complete before it has a name, so that nobody ever finds half of one."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.shared_memory import layout as at
from sluicegate.infrastructure.shared_memory.host import boot_id, clock_id
from sluicegate.infrastructure.shared_memory.layout import Layout
from sluicegate.runtime.system_clock import utc_now


def make_file(path: Path, layout: Layout) -> None:
    """Make a file and give it its name when it is complete; if another process was faster, leave it at that."""
    folder, fd, temporary = -1, -1, ""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fd, temporary = _new_file(path, folder)
        os.fchmod(fd, 0o600)  # whatever the umask takes away
        fill(path, fd, layout)
        # With a folder given, Python calls `linkat`, which follows the link in /proc to a file that has no name yet.
        with suppress(FileExistsError):
            os.link(temporary or f"/proc/self/fd/{fd}", path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be made: {error.strerror}") from None
    finally:
        if temporary:
            os.unlink(temporary, dir_fd=folder)
        for each in (fd, folder):
            if each >= 0:
                os.close(each)


def _new_file(path: Path, folder: int) -> tuple[int, str]:
    """Return the descriptor of a new file in a folder, and its name, which is empty where files need none."""
    nameless: int | None = getattr(os, "O_TMPFILE", None)
    if nameless is not None:
        try:
            return os.open(".", nameless | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder), ""
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:  # a file system without them
                raise
    name = f".{path.name}.{secrets.token_hex(8)}"
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder), name


def fill(path: Path, fd: int, layout: Layout) -> None:
    """Give a file all its memory, then its header. Memory that is missing later would be a signal that ends the process."""
    size_bytes = layout.size_bytes
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size_bytes)
        else:
            zeros = bytes(1 << 20)
            for start in range(0, size_bytes, len(zeros)):
                os.pwrite(fd, zeros[: size_bytes - start], start)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise InvalidInputError(f"{path}: size={size_bytes}: there is not so much room: {error.strerror}") from None
    header = at.HEADER.pack(
        at.MAGIC,
        at.VERSION,
        at.BYTE_ORDER_MARK,
        layout.size_bytes,
        boot_id(),
        layout.stripes,
        at.JOURNAL_LINES,
        secrets.token_bytes(16),
        clock_id(),
        int(utc_now().timestamp()),
    )
    os.pwrite(fd, header, 0)
