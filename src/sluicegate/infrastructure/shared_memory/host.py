"""What tells one host, and one boot of it, from others, and whether a file may be on another host's disk."""

import ctypes
import os
import sys
import uuid
from pathlib import Path
from typing import Final

from sluicegate.domain.errors import InvalidInputError

# The kernel of each host has locks and clocks of its own; what a server shares cannot be relied on.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "9p",
        "afs",
        "afpfs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "gpfs",
        "lustre",
    }
    | {"ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs", "webdav"}
)


def boot_id() -> bytes:
    """Return 16 bytes that are others after each boot, and on each host.

    Raises:
        InvalidInputError: If this system does not tell.
    """
    try:
        if sys.platform == "darwin":
            return uuid.UUID(_sysctl(b"kern.bootsessionuuid")).bytes
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"shm:// needs to know when this machine was booted, and cannot: {error}") from None


def clock_id() -> int:
    """Return a number that is the same in processes whose clocks agree: that of the time namespace; 0 where there are none."""
    try:
        return Path("/proc/self/ns/time").stat().st_ino
    except OSError:
        return 0


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Return the type of the network file system that a path is on; None: it is not on one, or nothing tells.

    Args:
        path: A path that exists.
        mounts: What /proc/self/mountinfo says; None: read it.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    real = os.path.realpath(path)
    nearest, kind = "", ""
    for line in mounts.splitlines():
        # 36 35 98:0 /root /mount\040point options - type source options
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ") if fields.count(" ") > 3 else ""  # noqa: PLR2004 - the fifth field
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and point and len(point) >= len(nearest):  # of several mounts on one point the last one is on top
            nearest, kind = point, rest.split(" ")[0]
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def _sysctl(name: bytes) -> str:
    library = ctypes.CDLL(None, use_errno=True)
    value = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    if library.sysctlbyname(name, value, ctypes.byref(size), None, ctypes.c_size_t(0)):
        raise OSError(ctypes.get_errno(), name.decode())
    return value.value.decode("ascii")
