"""The work of `sluicegate storage …`: what is in shared memory, and emptying it."""

from datetime import UTC, datetime

from sluicegate.domain.errors import InvalidInputError, StorageError
from sluicegate.infrastructure.shared_memory.file import remove_unused
from sluicegate.infrastructure.shared_memory.location import location_of_url, path_of
from sluicegate.infrastructure.shared_memory.storage import SharedMemoryStorage
from sluicegate.presentation.cli.environment import settings_of_environment
from sluicegate.presentation.cli.limiter_commands import DONE, NOT_DONE
from sluicegate.presentation.cli.terminal import write_error, write_json, write_line

_PATIENT_MS = 2000


def info(url: str, *, as_json: bool) -> int:
    """Print what is in a file of shared memory.

    Args:
        url: `shm://NAME` or `shm:///path`; empty: that of the environment.
        as_json: Whether to print JSON.

    Raises:
        InvalidInputError: If the URL is wrong, or there is no such file.
    """
    facts = _open(url or settings_of_environment().storage_url).info()
    if as_json:
        write_json(facts)
        return DONE
    made = datetime.fromtimestamp(facts.made_s, UTC)
    write_line(f"file      {facts.path}, made {made:%Y-%m-%d %H:%M:%S} UTC")
    write_line(f"size      {facts.size_bytes / (1 << 20):g} MiB, room for {facts.slots:,} buckets")
    write_line(f"buckets   {facts.buckets:,}, of which {facts.unfull:,} are not full")
    write_line(f"claims    {facts.claims:,} reservations and holds, room for {facts.claim_cells:,}")
    write_line(f"evicted   {facts.evicted_unfull:,} before they were full, for want of room")
    write_line(f"repaired  {facts.repairs:,} times after a process died in the middle of its work")
    return DONE


def clear(url: str) -> int:
    """Make every bucket full. A file of another version that no process uses is removed.

    Args:
        url: `shm://NAME` or `shm:///path`; empty: that of the environment.

    Raises:
        InvalidInputError: If the URL is wrong, or there is no such file, or it is not one of sluicegate.
    """
    url = url or settings_of_environment().storage_url
    try:
        _open(url).clear()
    except InvalidInputError as error:
        if not remove_unused(path_of(location_of_url(url)[0])):
            write_error(f"not cleared: {error}")
            return NOT_DONE
        write_line("removed: no process uses the file, and this version cannot read it")
    except StorageError as error:
        write_error(f"not cleared: {error}")
        return NOT_DONE
    else:
        write_line("cleared: all buckets are full")
    return DONE


def _open(url: str) -> SharedMemoryStorage:
    return SharedMemoryStorage.from_url(url, deadline_ms=_PATIENT_MS, create=False)
