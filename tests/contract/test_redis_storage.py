"""The conformance suite on real servers: Redis 7.0 and 6.2, Sentinel, Cluster, and 7.0 on a clock that is set or with loans."""

import asyncio
from collections.abc import Sequence

import pytest

from sluicegate import RateLimitRule, RedisStorage, StorageProtocol
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.infrastructure.redis.connections import Connections
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.target import target_of_url
from sluicegate.testing import FakeClock, StorageContract
from support.backends import on_clock
from support.bucket_requests import bucket_request
from support.redis_servers import ClusterSet, RedisServer, SentinelSet
from support.worker_storages import PATIENT_MS


class TestRedis7(StorageContract):
    """Debian's Redis."""

    @pytest.fixture(autouse=True)
    def server(self, redis_7_server: RedisServer) -> None:
        """Set the URL."""
        self._url = redis_7_server.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)


class TestRedis7OnAFakeClock(TestRedis7):
    """Exact answers."""

    exact_clock = True

    async def make_storage(self) -> StorageProtocol:
        """Return a storage whose script goes by a fake clock."""
        self._clock = FakeClock()
        return on_clock(RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS), self._url, self._clock)

    async def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._clock.advance(seconds)


class Borrowing(RedisStorage):
    """A storage that borrows from every bucket, from the second check on."""

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Take as if the rules had a lease."""
        return await super().take(_lent(requests))

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Peek as if the rules had a lease."""
        return await super().peek(_lent(requests))


def _lent(requests: Sequence[BucketRequest]) -> list[BucketRequest]:
    return [BucketRequest(request.key, request.spec, request.cost_units, request.spec.capacity) for request in requests]


class TestRedis7WithLoans(TestRedis7):
    """What one process sees is the same whether it borrows or not."""

    async def make_storage(self) -> StorageProtocol:
        """Return a storage that borrows, and finds every bucket hot."""
        storage = Borrowing.from_url(self._url, deadline_ms=PATIENT_MS)
        storage.connections = Connections(target_of_url(self._url), PATIENT_MS / 1000, leases=LeaseTable(hot=1))
        return storage

    def test_a_lower_capacity_takes_the_surplus_and_a_higher_one_adds_nothing(self) -> None:
        """What was lent under the old rule goes back with the first check under the new one; a peek may see less until then."""

        async def scenario() -> None:
            storage = await self.make_storage()
            key = "rate_limit:ip:{changed}:GET /"
            daily, smaller, larger = (bucket_request(RateLimitRule.per_day(n), key) for n in (5, 2, 50))
            await storage.reset([daily])
            await storage.take([daily])
            await storage.take([daily])
            verdict = await storage.take([smaller])
            assert verdict.allowed
            assert verdict.levels[0].level // smaller.spec.units_per_token == 1
            assert (await storage.take([larger])).allowed
            assert not (await storage.take([larger])).allowed
            await storage.aclose()

        asyncio.run(scenario())


class TestRedis7WithLoansOnAFakeClock(TestRedis7WithLoans):
    """Exact answers."""

    exact_clock = True

    async def make_storage(self) -> StorageProtocol:
        """Return a storage that borrows, and whose script goes by a fake clock."""
        self._clock = FakeClock()
        return on_clock(Borrowing.from_url(self._url, deadline_ms=PATIENT_MS), self._url, self._clock)

    async def advance(self, seconds: float) -> None:
        """Set the clock forward."""
        self._clock.advance(seconds)


class TestRedis6(StorageContract):
    """The oldest version that is supported."""

    @pytest.fixture(autouse=True)
    def server(self, redis_6_server: RedisServer) -> None:
        """Set the URL."""
        self._url = redis_6_server.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)


class TestSentinel(StorageContract):
    """A master that is found through sentinels."""

    @pytest.fixture(autouse=True)
    def servers(self, sentinel_set: SentinelSet) -> None:
        """Set the URL."""
        self._url = sentinel_set.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)


class TestCluster(StorageContract):
    """Three masters; the suite's buckets of one check lie in several slots."""

    @pytest.fixture(autouse=True)
    def nodes(self, cluster_set: ClusterSet) -> None:
        """Set the URL."""
        self._url = cluster_set.url

    async def make_storage(self) -> StorageProtocol:
        """Return a storage as applications make it."""
        return RedisStorage.from_url(self._url, deadline_ms=PATIENT_MS)
