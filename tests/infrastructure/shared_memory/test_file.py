"""Making, checking and refusing the file."""

import fcntl
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sluicegate import InvalidInputError, InvalidTypeError, RateLimitRule, StorageError
from sluicegate.infrastructure.shared_memory import file, header, host, layout
from sluicegate.infrastructure.shared_memory.file import open_file
from sluicegate.infrastructure.shared_memory.layout import parse_size
from sluicegate.infrastructure.shared_memory.location import location_of_url, path_of
from support.bucket_requests import bucket_request
from support.shared_memory import SharedMemoryStorage

SIZE = 1 << 20
VERSION_AT, MARK_AT, SIZE_AT, BOOT_AT = 8, 12, 16, 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file that is not there yet."""
    return tmp_path / "buckets"


def patch(path: Path, at: int, content: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as opened:
        opened.seek(at)
        opened.write(content)


class UselessLocks:
    """Locks that everybody gets."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def try_lock(self, _: int) -> bool:
        """Return True."""
        return True

    def unlock(self, _: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


def test_the_file_belongs_to_its_user_alone_and_has_its_size(path: Path) -> None:
    """Whatever the umask, the mode is 0600; the memory is there from the beginning."""
    before = os.umask(0o377)
    try:
        SharedMemoryStorage(path, size_bytes=SIZE)
    finally:
        os.umask(before)
    status = path.stat()
    assert (status.st_mode & 0o777, status.st_size) == (0o600, SIZE)
    assert status.st_blocks * 512 >= SIZE
    assert list(path.parent.iterdir()) == [path]


def test_it_is_made_by_name_without_files_that_have_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no nameless files, a temporary one is made, and none is left."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    SharedMemoryStorage(path, size_bytes=SIZE)
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_storage_takes_over_what_it_finds(path: Path) -> None:
    """A later storage needs no size, and has the buckets of the earlier one."""
    rule = RateLimitRule.per_day(5)
    request = bucket_request(rule, cost=5)
    assert SharedMemoryStorage(path, size_bytes=SIZE).take_blocking([request]).allowed
    later = SharedMemoryStorage(path)
    assert later.info().size_bytes == SIZE
    assert not later.take_blocking([request]).allowed


def test_many_that_come_first_make_one_file(path: Path) -> None:
    """Of 32 threads and 8 processes that begin at once, each has the same file."""
    code = f"""
from sluicegate import SharedMemoryStorage
print(SharedMemoryStorage({str(path)!r}, size_bytes={SIZE})._mapped.table().file.secret.hex())
"""
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    with ThreadPoolExecutor(32) as pool:
        secrets = set(pool.map(lambda _: open_file(path, SIZE).secret.hex(), range(32)))
    for process in processes:
        secrets.add(process.communicate()[0].strip())
        assert process.returncode == 0
    assert len(secrets) == 1


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (0, b"something", "no file of sluicegate"),
        (VERSION_AT, struct.pack("=I", 99), r"has layout 99, this version of sluicegate has 1"),
        (MARK_AT, struct.pack(">I" if sys.byteorder == "little" else "<I", 0x01020304), "another byte order"),
        (SIZE_AT, struct.pack("=Q", 2 * SIZE), "damaged"),
    ],
)
def test_a_file_of_another_kind_is_refused(path: Path, at: int, content: bytes, message: str) -> None:
    """Its contents stay as they are."""
    SharedMemoryStorage(path, size_bytes=SIZE).close()
    patch(path, at, content)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=message):
        SharedMemoryStorage(path)
    assert path.read_bytes() == before


def test_another_size_is_refused(path: Path) -> None:
    """Processes that disagree about the size would do so for ever."""
    SharedMemoryStorage(path, size_bytes=SIZE)
    with pytest.raises(InvalidInputError, match=f"size={2 * SIZE}: the file has {SIZE} bytes"):
        SharedMemoryStorage(path, size_bytes=2 * SIZE)


def test_a_file_of_another_boot_is_made_anew(path: Path) -> None:
    """Its clock was another one: the table is empty, whatever size and layout it had."""
    request = bucket_request(RateLimitRule.per_day(5), cost=5)
    storage = SharedMemoryStorage(path, size_bytes=SIZE)
    assert storage.take_blocking([request]).allowed
    storage.close()
    del storage
    patch(path, BOOT_AT, bytes(range(16)))
    patch(path, VERSION_AT, struct.pack("=I", 99))
    storage = SharedMemoryStorage(path, size_bytes=2 * SIZE)
    assert storage.info().size_bytes == 2 * SIZE == path.stat().st_size
    assert storage.take_blocking([request]).allowed


def test_a_file_that_another_host_uses_is_refused(path: Path) -> None:
    """Another boot while somebody uses the file can only be another host."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE)
    patch(path, BOOT_AT, bytes(range(16)))
    with pytest.raises(InvalidInputError, match="in use by another host"):
        SharedMemoryStorage(path)
    assert storage.info().size_bytes == SIZE


def test_a_file_that_was_not_completed_is_completed(path: Path) -> None:
    """An empty file, or one whose maker died before the header was there."""
    for size in (0, SIZE):
        path.write_bytes(bytes(size))
        path.chmod(0o600)
        assert SharedMemoryStorage(path, size_bytes=SIZE).info().buckets == 0


def test_a_symbolic_link_is_not_followed(path: Path) -> None:
    """Who can write to the folder could lead us elsewhere."""
    target = path.with_name("target")
    target.write_bytes(b"")
    path.symlink_to(target)
    with pytest.raises(InvalidInputError, match="symbolic link"):
        SharedMemoryStorage(path)
    assert target.read_bytes() == b""


def test_a_file_that_others_may_write_is_refused(path: Path) -> None:
    """Nor one that they may read: it tells how much a client has left."""
    SharedMemoryStorage(path, size_bytes=SIZE)
    path.chmod(0o640)
    with pytest.raises(InvalidInputError, match=r"others may read or write it \(mode 640\)"):
        SharedMemoryStorage(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    """Even if this process could open it."""
    path.write_bytes(b"")
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(InvalidInputError, match="belongs to user 12345"):
        SharedMemoryStorage(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe, a folder, a folder that is not there."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="not a regular file"):
        SharedMemoryStorage(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="Is a directory"):
        SharedMemoryStorage(tmp_path)
    with pytest.raises(InvalidInputError, match="No such file or directory"):
        SharedMemoryStorage(tmp_path / "away" / "buckets")


def test_too_little_room_is_told_at_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is missing only when it is written to would end the process."""

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(InvalidInputError, match=f"size={SIZE}: there is not so much room"):
        SharedMemoryStorage(path, size_bytes=SIZE)
    assert not path.exists()


def test_a_file_system_whose_locks_exclude_nobody_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network and user-space file systems."""
    monkeypatch.setattr(file, "_locks_of", lambda _, fd: UselessLocks(fd))
    with pytest.raises(InvalidInputError, match="locks do not work"):
        SharedMemoryStorage(path, size_bytes=SIZE)


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        ("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:44 / /data rw - nfs4 host:/x rw\n", "nfs4"),
        ("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:44 / /data/x/other rw - nfs4 host:/x rw\n", None),
        ("22 1 0:44 / / rw - nfs host:/x rw\n30 22 0:9 / /data/x rw shared:1 - tmpfs tmpfs rw\n", None),
        (
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:44 / /data rw - ext4 a rw\n31 30 0:5 / /data rw - cifs //a rw\n",
            "cifs",
        ),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(mounts: str, kind: str | None) -> None:
    """As /proc/self/mountinfo tells."""
    assert host.network_file_system(Path("/data/x/file"), mounts) == kind


def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts have two clocks."""
    monkeypatch.setattr(file, "network_file_system", lambda _: "nfs4")
    with pytest.raises(InvalidInputError, match="lies on nfs4"):
        SharedMemoryStorage(path, size_bytes=SIZE)


def test_another_time_namespace_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock runs from another beginning."""
    SharedMemoryStorage(path, size_bytes=SIZE)
    monkeypatch.setattr(header, "clock_id", lambda: 1)
    with pytest.raises(InvalidInputError, match="time namespace"):
        SharedMemoryStorage(path)


def test_windows_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to use there."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InvalidInputError, match="on Windows use redis://"):
        open_file(path, SIZE)


def test_a_removed_file_is_made_anew_within_a_second(path: Path) -> None:
    """All processes find the new one: none goes on to count by itself."""
    one = SharedMemoryStorage(path, size_bytes=SIZE)
    request = bucket_request(RateLimitRule.per_day(5), cost=5)
    assert one.take_blocking([request]).allowed
    path.unlink()
    other = SharedMemoryStorage(path, size_bytes=SIZE)
    one._mapped.look_at_us = 0  # the second is over
    one.peek_blocking([request])
    assert other.take_blocking([request]).allowed
    assert not one.take_blocking([request]).allowed


def test_a_file_that_was_replaced_by_one_that_cannot_be_shared_is_an_error(path: Path) -> None:
    """The failure policy answers, not a table that nobody else uses."""
    storage = SharedMemoryStorage(path, size_bytes=SIZE)
    path.unlink()
    path.write_bytes(b"x" * 100)
    path.chmod(0o600)
    storage._mapped.look_at_us = 0
    request = bucket_request(RateLimitRule.per_day(5))
    for _ in range(2):
        with pytest.raises(StorageError, match="no file of sluicegate") as raised:
            storage.take_blocking([request])
        assert raised.value.reason == "connection"


def test_a_file_that_others_are_opening_is_waited_for(path: Path) -> None:
    """And not for ever."""
    SharedMemoryStorage(path, size_bytes=SIZE)
    with path.open("r+b") as held:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 1 << 40, 1, 0)
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(InvalidInputError, match="has been opening it"):
            open_file(path, None, wait_s=0.05)
    assert open_file(path, None).layout.size_bytes == SIZE


@pytest.mark.parametrize(
    ("text", "size"),
    [("1MiB", 1 << 20), ("64MiB", 1 << 26), ("2GiB", 1 << 31), ("4096KiB", 1 << 22), ("1050000", 1048576)],
)
def test_sizes_are_parsed(text: str, size: int) -> None:
    """In whole pages."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "64MB", "64 MiB", "1.5GiB", "-1", "0", "1023KiB", "9" * 20, "1TiB", "\u0661MiB"]
)
def test_other_sizes_are_refused(text: str) -> None:
    """The message has the value."""
    with pytest.raises(InvalidInputError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("shm://app", ("app", None)),
        ("shm://App.1/?size=64MiB", ("App.1", 64 << 20)),
        ("shm:///run/my%20app/buckets?size=1MiB", ("/run/my app/buckets", 1 << 20)),
    ],
)
def test_urls_name_a_file_and_its_size(url: str, location: tuple[str, int | None]) -> None:
    """A name or a path."""
    assert location_of_url(url) == location


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shm://", "expected shm://NAME"),
        ("shm:///", "expected shm://NAME"),
        ("redis://x", "expected shm://NAME"),
        ("shm://a/b", "a name and a path"),
        ("shm://a?size=1MiB&size=2MiB", "one size"),
        ("shm://a?sice=1MiB", "sice='1MiB'"),
        ("shm://a#b", "expected shm://NAME"),
        ("shm://[", "Invalid IPv6 URL"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    """With what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        location_of_url(url)


def test_names_are_files_of_the_user() -> None:
    """Two users that take the same name do not meet."""
    assert path_of("app") == Path("/dev/shm", f"sluicegate-{os.geteuid()}-app")  # noqa: S108 - as documented
    assert path_of(Path("/x/y")) == path_of("/x/y") == Path("/x/y")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a" * 65, "é", "a\0", "/x\0y"])
def test_other_names_are_refused(name: str) -> None:
    """Nothing of a name leads elsewhere."""
    with pytest.raises(InvalidInputError, match="name_or_path="):
        path_of(name)


def test_arguments_are_checked(path: Path) -> None:
    """Each error names the field."""
    with pytest.raises(InvalidTypeError, match="name_or_path=3"):
        SharedMemoryStorage(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="size_bytes=5: expected 1048576"):
        SharedMemoryStorage(path, size_bytes=5)
    with pytest.raises(InvalidInputError, match="size_bytes=1.5: expected a whole number"):
        SharedMemoryStorage(path, size_bytes=1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="deadline_ms=0: expected 1 to 60000"):
        SharedMemoryStorage(path, deadline_ms=0)
    with pytest.raises(InvalidTypeError, match="deadline_ms=True: expected whole milliseconds"):
        SharedMemoryStorage(path, deadline_ms=True)
    assert not path.exists()


@pytest.mark.parametrize("size", [1 << 20, 1 << 24, 64 << 20, 1 << 30, 1 << 40])
def test_words_and_journals_take_little_of_the_file(size: int) -> None:
    """At most an eighth and some pages, and the claims a sixteenth; the rest are slots, but for less than a group a stripe."""
    stripes = layout.stripes_for(size, 256)
    places = layout.Layout(size, stripes)
    assert places.groups_at <= size / 8 + size / 16 + 4 * layout.HEADER_BYTES
    end = places.groups_at + places.slots // layout.GROUP_SLOTS * layout.GROUP_BYTES
    assert size - layout.GROUP_BYTES * stripes < end <= size
