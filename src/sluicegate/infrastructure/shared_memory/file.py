"""The file: made by whoever comes first, checked by everybody, mapped into memory."""

import errno
import mmap
import os
import sys
import weakref
from pathlib import Path
from time import sleep
from typing import Final

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.shared_memory import layout as at
from sluicegate.infrastructure.shared_memory.header import Header, read_header, require_header, require_ours
from sluicegate.infrastructure.shared_memory.host import boot_id, network_file_system
from sluicegate.infrastructure.shared_memory.layout import Layout, stripes_for
from sluicegate.infrastructure.shared_memory.locks import (
    FIRST_STRIPE,
    OPENING,
    PROBE,
    USING,
    FileLocks,
    Locks,
    OfdLocks,
)
from sluicegate.infrastructure.shared_memory.new_file import fill, make_file
from sluicegate.runtime.mutex import new_mutex

_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_HAS_OFD_LOCKS: Final = sys.platform == "linux"
_MOST_STRIPES: Final = 256 if _HAS_OFD_LOCKS else 32  # each costs a file descriptor where it is a file
_OPENING_PAUSE_S: Final = 0.01

_open_files: "weakref.WeakSet[SharedFile]" = weakref.WeakSet()
_opening = new_mutex()  # a fork waits for it: the child would inherit locks of which nobody knows


class SharedFile:
    """A file that is mapped into memory, with its locks. Threads share it; a forked child gets locks of its own.

    Args:
        path: The file.
        header: What its first page says.
        memory: The mapped file.
        locks: The locks, of which `USING` is held together with others.
        inode: What `stat` says of the file: its device and its number there.
    """

    def __init__(self, path: Path, header: Header, memory: mmap.mmap, locks: Locks, inode: tuple[int, int]) -> None:
        self.path = path
        self.secret = header.secret
        self.made_s = header.made_s
        self.layout = Layout(header.size_bytes, header.stripes)
        self.memory = memory
        self.locks = locks
        self._inode = inode
        _open_files.add(self)
        weakref.finalize(self, locks.close)

    def is_current(self) -> bool:
        """Return whether the path still leads to this file: somebody may have removed or replaced it."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def have_own_locks(self) -> None:
        """In a forked child, replace the locks that it shares with its parent.

        They are let go of at once: as long as a child keeps what it inherited, the kernel would not free a lock of its parent
        that is killed.
        """
        try:
            _own_locks(self.locks)
            self.locks.try_share(USING)
        except OSError:
            self.locks.close()  # every call raises from now on, rather than decide without a lock


def _own_locks(locks: Locks) -> None:
    if not isinstance(locks, OfdLocks):
        locks.close()
        return
    inherited = locks.fd
    own = os.open(f"/proc/self/fd/{inherited}", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(own, inherited, inheritable=False)
    os.close(own)


def _after_fork_in_child() -> None:
    for file in list(_open_files):
        file.have_own_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def open_file(path: Path, size_bytes: int | None, *, make: bool = True, wait_s: float = 5.0) -> SharedFile:
    """Open and map a file; make it if it is not there.

    Args:
        path: The file.
        size_bytes: Its size; None: whatever it has, and the default if it is to be made.
        make: Whether to make it if it is not there.
        wait_s: How long to wait for another process that is opening it.

    Raises:
        InvalidInputError: If the file is not one that this process can share; the message says why.
    """
    _require_platform()
    for _ in range(max(2, int(wait_s / _OPENING_PAUSE_S))):
        with _opening:
            file = _try_open(path, size_bytes, make=make)
        if file is not None:
            return file
        sleep(_OPENING_PAUSE_S)
    raise InvalidInputError(f"{path}: another process has been opening it for {wait_s:g} s")


def _try_open(path: Path, size_bytes: int | None, *, make: bool) -> SharedFile | None:
    """Open a file; None: another process is at it."""
    fd = _open(path)
    if fd is None:
        if not make:
            raise InvalidInputError(f"{path}: there is no such file; the first process that uses it makes it")
        make_file(path, _new_layout(size_bytes))
        fd = _open(path)
        if fd is None:
            return None
    locks = _locks_of(path, fd)
    try:
        file = _opened(path, fd, locks, size_bytes) if locks.try_lock(OPENING) else None
        if file is None:
            locks.close()
        else:
            locks.unlock(OPENING)
    except BaseException:
        locks.close()
        raise
    return file


def remove_unused(path: Path) -> bool:
    """Remove a file of sluicegate, of whatever version, unless a process uses it; return whether it is removed.

    Raises:
        InvalidInputError: If it is not such a file, or not there.
    """
    _require_platform()
    fd = _open(path)
    if fd is None:
        raise InvalidInputError(f"{path}: there is no such file")
    locks = _locks_of(path, fd)
    try:
        require_ours(path, fd)
        if os.pread(fd, len(at.MAGIC), 0) != at.MAGIC:
            raise InvalidInputError(f"{path}: this is no file of sluicegate")
        if not (locks.try_lock(OPENING) and locks.try_lock(USING)):
            return False
        path.unlink()
        return True
    finally:
        locks.close()


def _new_layout(size_bytes: int | None) -> Layout:
    size_bytes = size_bytes or at.DEFAULT_SIZE_BYTES
    return Layout(size_bytes, stripes_for(size_bytes, _MOST_STRIPES))


def _require_platform() -> None:
    if sys.platform == "win32":
        raise InvalidInputError("shm:// works on Linux and macOS; on Windows use redis://, or memory:// in one process")
    if sys.maxsize <= 2**32:
        raise InvalidInputError("shm:// needs a 64-bit Python")


def _open(path: Path) -> int | None:
    """Return a descriptor of an existing file; None: there is none."""
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise InvalidInputError(f"{path}: cannot be opened: {reason}") from None


def _locks_of(path: Path, fd: int) -> Locks:
    count = FIRST_STRIPE + _MOST_STRIPES + 1  # the last one is that of the cells of claims
    return OfdLocks(fd, count) if _HAS_OFD_LOCKS else FileLocks(str(path), fd, count)


def _opened(path: Path, fd: int, locks: Locks, size_bytes: int | None) -> SharedFile | None:
    """Check a file whose lock `OPENING` is held, and map it. None: it has been replaced meanwhile."""
    status = require_ours(path, fd)
    try:
        now_there = path.stat()
    except FileNotFoundError:
        return None
    if (now_there.st_dev, now_there.st_ino) != (status.st_dev, status.st_ino):
        return None
    kind = network_file_system(path)
    if kind is not None:
        raise InvalidInputError(
            f"{path}: lies on {kind}, which other hosts may use; shm:// is for the processes of one host"
        )
    _require_locks(path, locks)
    header = read_header(fd)
    if header is None or (header.magic == at.MAGIC and header.boot != boot_id()):
        if not locks.try_lock(USING):
            raise InvalidInputError(f"{path}: is in use by another host: its boot differs from that of this one")
        os.ftruncate(fd, 0)
        fill(path, fd, _new_layout(size_bytes))
        header = read_header(fd)
    header = require_header(path, header, os.fstat(fd).st_size, size_bytes, _MOST_STRIPES)
    if not locks.try_share(USING):
        raise InvalidInputError(f"{path}: is being removed")
    # The mapping keeps a descriptor. It must not be the one of the locks: in a forked child it would keep them alive.
    mapped = os.open(path, _FLAGS)
    try:
        memory = mmap.mmap(mapped, header.size_bytes)
    finally:
        os.close(mapped)
    return SharedFile(path, header, memory, locks, (status.st_dev, status.st_ino))


def _require_locks(path: Path, locks: Locks) -> None:
    """Refuse a file system whose locks exclude nobody."""
    other_fd = os.open(path, _FLAGS)
    other = _locks_of(path, other_fd)
    try:
        if locks.try_lock(PROBE) and other.try_lock(PROBE):
            raise InvalidInputError(f"{path}: locks do not work on its file system")
    except OSError as error:
        raise InvalidInputError(f"{path}: locks do not work on its file system: {error.strerror}") from None
    finally:
        other.close()
        locks.unlock(PROBE)
