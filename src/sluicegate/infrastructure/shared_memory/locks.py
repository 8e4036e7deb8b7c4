"""Locks between processes that the kernel frees when their holder dies, whatever it dies of.

On Linux they are open file description locks on bytes far behind the file's end (`fcntl(2)`, `F_OFD_SETLK`). Unlike the older
POSIX locks they are not lost when some other part of the process opens and closes the file. On macOS they are `flock(2)`s on a
small file each. A lock of either kind belongs to what `open` returned: threads do not exclude each other by it, which is what the
tokens in `table.py` are for, and a forked child would share it, which is why `SharedFile` opens the file anew in the child.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Any, Final

from mypy_extensions import mypyc_attr

# Numbers of locks.
OPENING: Final = 0
"""Held while a file is checked, or made anew after a reboot."""
USING: Final = 1
"""Held, together with others, for as long as a process uses the file."""
PROBE: Final = 2
"""For finding out whether locks work here."""
FIRST_STRIPE: Final = 16

_FAR: Final = 1 << 40  # behind the end of any file: the file's own bytes stay free for whoever copies it
_FLOCK: Final = struct.Struct(
    "@hhqqi4x"
)  # struct flock of 64-bit Linux: type, whence, start, length, pid, which must be 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Locks:
    """The locks of one opened file."""

    def try_lock(self, number: int) -> bool:
        """Take a lock for this file description alone; return at once whether it was free.

        Raises:
            OSError: If the kernel cannot lock.
        """
        raise NotImplementedError

    def try_share(self, number: int) -> bool:
        """Take a lock together with others; return at once whether nobody had it for themselves.

        Raises:
            OSError: If the kernel cannot lock.
        """
        raise NotImplementedError

    def unlock(self, number: int) -> None:
        """Release a lock; one that is not held stays as it is."""
        raise NotImplementedError

    def close(self) -> None:
        """Release all locks. Calling it twice is harmless."""
        raise NotImplementedError


class OfdLocks(Locks):
    """Locks on bytes of a file, on Linux.

    Args:
        fd: A file descriptor of its own, which `close` closes.
        count: How many locks there are.
    """

    def __init__(self, fd: int, count: int) -> None:
        self.fd = fd
        self._set: Final[int] = getattr(fcntl, "F_OFD_SETLK")  # noqa: B009 - macOS has none
        # `fcntl.fcntl` lets go of the interpreter. Coming back with the lock it could wait for a busy thread of this process,
        # while all other processes wait for the lock. This call keeps it, for a microsecond.
        self._fcntl: Callable[[int, int, bytes], Any] = ctypes.PyDLL(None).fcntl
        self._take = [_FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FAR + n, 1, 0) for n in range(count)]
        self._free = [_FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, _FAR + n, 1, 0) for n in range(count)]

    def try_lock(self, number: int) -> bool:
        """Take a lock for this file description alone; return at once whether it was free."""
        return self._fcntl(self.fd, self._set, self._take[number]) == 0 or self._call(self._take[number])

    def try_share(self, number: int) -> bool:
        """Take a lock together with others; return at once whether nobody had it for themselves."""
        return self._call(_FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _FAR + number, 1, 0))

    def unlock(self, number: int) -> None:
        """Release a lock."""
        self._fcntl(self.fd, self._set, self._free[number])

    def close(self) -> None:
        """Release all locks."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _call(self, what: bytes) -> bool:
        """Do it once more where an error is told from a lock that is not free."""
        if self.fd < 0:
            raise OSError(errno.EBADF, "the locks are closed")
        try:
            fcntl.fcntl(self.fd, self._set, what)
        except (BlockingIOError, PermissionError):
            return False
        return True


class FileLocks(Locks):
    """A small file for each lock, beside the file that they protect: for systems without `F_OFD_SETLK`.

    Args:
        path: The file that the locks protect.
        fd: A file descriptor of it, which `close` closes.
        count: How many locks there are.
    """

    def __init__(self, path: str, fd: int, count: int) -> None:
        self._path = path
        self._fds = [-1] * count
        self._fds.append(fd)  # no lock has this number

    def try_lock(self, number: int) -> bool:
        """Take a lock for this file description alone; return at once whether it was free."""
        return self._call(number, fcntl.LOCK_EX)

    def try_share(self, number: int) -> bool:
        """Take a lock together with others; return at once whether nobody had it for themselves."""
        return self._call(number, fcntl.LOCK_SH)

    def unlock(self, number: int) -> None:
        """Release a lock."""
        if self._fds[number] >= 0:
            fcntl.flock(self._fds[number], fcntl.LOCK_UN)

    def close(self) -> None:
        """Release all locks."""
        for number, fd in enumerate(self._fds):
            self._fds[number] = -1
            if fd >= 0:
                os.close(fd)

    def _call(self, number: int, how: int) -> bool:
        fd = self._fds[number]
        if fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = self._fds[number] = os.open(f"{self._path}.lock{number}", flags, 0o600)
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
