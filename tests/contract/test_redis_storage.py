"""The conformance suite on real servers: Redis 7.0 and 6.2, Sentinel, Cluster, and 7.0 on a clock that is set."""

import pytest

from sluicegate import RedisStorage, StorageProtocol
from sluicegate.infrastructure.denial_memo import DenialMemo
from sluicegate.testing import FakeClock, StorageContract
from support.clocked_script import ClockedScript
from support.redis_servers import ClusterSet, RedisServer, SentinelSet

PATIENT_MS = 10_000
"""No test here is about deadlines, and the machine may be busy."""


class TestRedis7(StorageContract):
    """Debian's Redis."""

    @pytest.fixture(autouse=True)
    def server(self, redis_7_server: RedisServer) -> None:
        """Say where it is."""
        self._url = redis_7_server.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)


class TestRedis7OnAFakeClock(TestRedis7):
    """Exact answers."""

    exact_clock = True

    async def make_storage(self) -> StorageProtocol:
        """Return a storage whose script goes by a clock of ours."""
        self._clock = FakeClock()
        storage = RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)
        storage.denials = DenialMemo(clock=self._clock)
        storage._script = ClockedScript(self._clock)
        return storage

    async def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._clock.advance(seconds)


class TestRedis6(StorageContract):
    """The oldest version that is supported."""

    @pytest.fixture(autouse=True)
    def server(self, redis_6_server: RedisServer) -> None:
        """Say where it is."""
        self._url = redis_6_server.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)


class TestSentinel(StorageContract):
    """A master that is found through sentinels."""

    @pytest.fixture(autouse=True)
    def servers(self, sentinel_set: SentinelSet) -> None:
        """Say where they are."""
        self._url = sentinel_set.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)


class TestCluster(StorageContract):
    """Three masters; the suite's buckets of one check lie in several slots."""

    @pytest.fixture(autouse=True)
    def nodes(self, cluster_set: ClusterSet) -> None:
        """Say where they are."""
        self._url = cluster_set.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)
