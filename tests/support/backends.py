"""The same buckets in memory, in shared memory and on a real Redis, as several processes reach them, on one clock that is set."""

from pathlib import Path
from typing import Any

from sluicegate import MemoryStorage, RedisStorage, SyncTokenBucketAdapter, TokenBucketAdapter
from sluicegate.infrastructure.redis.connections import Connections
from sluicegate.infrastructure.redis.denial_cache import DenialCache
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.sync_storage import SyncRedisStorage
from sluicegate.infrastructure.redis.target import target_of_url
from sluicegate.testing import FakeClock, RecordingLogger
from support.clocked_script import clocked_script
from support.redis_servers import RedisServer
from support.worker_storages import PATIENT_MS


def on_clock(storage: RedisStorage, url: str, clock: FakeClock) -> RedisStorage:
    """Let all parts of a storage go by a fake clock, the script included; leases find every bucket hot."""
    leases = LeaseTable(clock=clock, hot=1)
    storage.denials = DenialCache(clock=clock)
    storage.connections = Connections(
        target_of_url(url), PATIENT_MS / 1000, script=clocked_script(clock), leases=leases
    )
    return storage


class Backend:
    """Make limiters whose buckets are the same ones, as if each were in a process of its own.

    Args:
        path: Where buckets in shared memory are; None: not there.
        server: The Redis that they are on; None: on none. Without either they are in memory.
        memory: The class of storages in memory, with nothing in common if `apart`.
        limiter: The class of limiters.
        apart: Whether each limiter has buckets of its own, as it must not be.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        server: RedisServer | None = None,
        memory: type[MemoryStorage] = MemoryStorage,
        limiter: type[TokenBucketAdapter] = TokenBucketAdapter,
        apart: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.server = server
        self._path = path
        self._memory = memory
        self._limiter = limiter
        self._apart = apart
        self._in_memory = memory(clock=self.clock)
        self._open: list[Any] = []

    def storage(self) -> Any:
        """Return a storage as one more process has it."""
        if self.server is not None:
            made: Any = on_clock(self._of_redis(), self.server.url, self.clock)
        elif self._path is not None:
            from support.shared_memory import SharedMemoryStorage  # noqa: PLC0415 - not on every system

            made = SharedMemoryStorage(self._path, size_bytes=1 << 20, clock=self.clock, deadline_ms=PATIENT_MS)
        else:
            made = self._memory(clock=self.clock) if self._apart else self._in_memory
        self._open.append(made)
        return made

    def limiter(self, rules: Any, **settings: Any) -> TokenBucketAdapter:
        """Return a limiter as one more process has it."""
        settings = {"storage": None, "logger": RecordingLogger(), "deadline_ms": PATIENT_MS, **settings}
        settings["storage"] = settings["storage"] or self.storage()
        return self._limiter(rules={"POST /chat": rules}, clock=self.clock, **settings)

    def sync_limiter(self, rules: Any) -> SyncTokenBucketAdapter:
        """Return a limiter without an event loop, as one more process has it."""
        if self.server is None:
            storage = self.storage()
        else:
            storage = SyncRedisStorage.from_url(self.server.url, deadline_ms=PATIENT_MS)
            on_clock(storage._storage, self.server.url, self.clock)
            self._open.append(storage)
        return SyncTokenBucketAdapter(
            storage=storage, rules={"POST /chat": rules}, clock=self.clock, logger=RecordingLogger()
        )

    async def aclose(self) -> None:
        """Close what was opened."""
        for storage in self._open:
            if isinstance(storage, SyncRedisStorage):
                storage.close()
            else:
                await storage.aclose()

    def _of_redis(self) -> RedisStorage:
        assert self.server is not None
        return RedisStorage.from_url(self.server.url, deadline_ms=PATIENT_MS)
