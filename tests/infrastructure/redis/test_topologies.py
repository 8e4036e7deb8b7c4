"""Sentinel and Cluster: a failover is survived, slots move under load, and no bucket goes above its bound."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import RedisCluster, Sentinel
from redis.crc import key_slot

from sluicegate import RateLimitRule, RedisStorage, StorageError, SyncRedisStorage, TokenBucketAdapter
from sluicegate.domain.buckets.bucket_request import BucketRequest
from support.bucket_requests import bucket_request
from support.redis_servers import ClusterSet, RedisServer, SentinelSet, redis_6
from support.server_fixtures import run_or_skip

DAILY = RateLimitRule.per_day(5)
ROOMY = RateLimitRule.per_day(1_000_000)

FIVE = [True] * 5 + [False] * 2


async def five_of(storage: RedisStorage) -> list[bool]:
    """Take seven tokens of a bucket of five."""
    one = bucket_request(DAILY)
    return [(await storage.take([one])).allowed for _ in range(7)]


async def until_it_decides(storage: RedisStorage, requests: list[BucketRequest], *, timeout_s: float = 40.0) -> None:
    """Wait until the storage decides again; every answer meanwhile is a storage error within a generous time."""
    end = time.monotonic() + timeout_s
    while True:
        started = time.monotonic()
        try:
            await storage.take(requests)
        except StorageError:
            assert time.monotonic() - started < 2.0
            assert time.monotonic() < end, "the storage never decided again"
            await asyncio.sleep(0.05)
        else:
            return


# Sentinel


@pytest.fixture
def sentinels() -> Iterator[SentinelSet]:
    """Run a set that a test may wreck."""
    yield from run_or_skip(SentinelSet)


async def test_sentinel_a_new_master_is_found_after_a_planned_and_an_unplanned_failover(sentinels: SentinelSet) -> None:
    """The storage goes on with whichever server is the master, from a URL and from a client."""
    client = Sentinel([("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels]).master_for("limits")  # type: ignore[no-untyped-call]
    storages = [
        RedisStorage.from_url(sentinels.url, deadline_ms=200),
        RedisStorage(redis_client=client, deadline_ms=200),
    ]
    for storage in storages:
        await until_it_decides(storage, [bucket_request(ROOMY)])
    await asyncio.to_thread(sentinels.fail_over)
    for storage in storages:
        await until_it_decides(storage, [bucket_request(ROOMY)])
    sentinels.master().kill()
    sentinels.sentinels[0].pause()  # one of those to ask hangs as well
    for storage in storages:
        await until_it_decides(storage, [bucket_request(ROOMY)])
        await storage.aclose()
    sentinels.sentinels[0].resume()
    await client.aclose()


# Cluster


def _tag_of(node: RedisServer, cluster: ClusterSet) -> str:
    """Return an identifier whose slot a certain node keeps."""
    client: Any = node.client()
    my_id = client.execute_command("CLUSTER", "MYID")
    ranges = [
        (low, high)
        for low, high, master, *_ in cluster.nodes[0].client().execute_command("CLUSTER", "SLOTS")
        if master[2] == my_id
    ]
    tags = (f"moving-{number}" for number in itertools.count(time.monotonic_ns()))
    return next(tag for tag in tags if any(low <= key_slot(tag.encode()) <= high for low, high in ranges))


def _tagged(tag: str, rest: object, rule: RateLimitRule = DAILY) -> BucketRequest:
    return bucket_request(rule, key=f"rate_limit:ip:{{{tag}}}:{rest}")


def _in_three_slots(rule: RateLimitRule = DAILY) -> list[BucketRequest]:
    return [bucket_request(rule) for _ in range(3)]


async def test_cluster_a_check_on_several_slots_is_all_or_nothing(cluster_set: ClusterSet) -> None:
    """If one bucket of three denies, the other two are given back, wherever they are."""
    async with RedisStorage.from_url(cluster_set.url, deadline_ms=10_000) as storage:
        requests = _in_three_slots()
        units = DAILY.spec.units_per_token
        for _ in range(3):
            assert (await storage.take(requests)).allowed
        assert (await storage.take([requests[1]])).allowed
        assert (await storage.take([requests[1]])).allowed
        denied = await storage.take(requests)
        assert not denied.allowed
        assert [bucket_level.level // units for bucket_level in denied.levels] == [2, 0, 2]
        for _ in range(100):
            levels = [bucket_level.level // units for bucket_level in await storage.peek(requests)]
            if levels == [2, 0, 2]:
                break
            await asyncio.sleep(0.02)
        assert levels == [2, 0, 2]
        assert [bucket_level.level // units for bucket_level in await storage.refund(requests)] == [3, 1, 3]
        await storage.reset(requests)
        assert [bucket_level.level for bucket_level in await storage.peek(requests)] == [DAILY.spec.capacity] * 3


async def test_cluster_many_checks_on_several_slots_never_admit_more_than_the_tightest(cluster_set: ClusterSet) -> None:
    """Concurrent checks that share one bucket of five and have roomy ones of their own: five pass at most."""
    async with RedisStorage.from_url(cluster_set.url, deadline_ms=10_000) as storage:
        shared = bucket_request(DAILY)
        verdicts = await asyncio.gather(*[storage.take([bucket_request(ROOMY), shared]) for _ in range(200)])
        assert sum(verdict.allowed for verdict in verdicts) == 5


async def test_cluster_rules_of_one_identifier_share_a_slot(cluster_set: ClusterSet) -> None:
    """The limiter puts identifiers in braces, so that several rules are one atomic call."""
    async with RedisStorage.from_url(cluster_set.url, deadline_ms=10_000) as storage:
        rules = (RateLimitRule.per_day(5), RateLimitRule.per_hour(3, scope="user"))
        limiter = TokenBucketAdapter(storage=storage, rules={"GET /": rules}, deadline_ms=10_000)
        results = [await limiter.is_allowed(endpoint="GET /", identifier="203.0.113.9") for _ in range(5)]
        assert [result.value.allowed for result in results] == [True] * 3 + [False] * 2  # type: ignore[union-attr]
        keys = [key for node in cluster_set.masters() for key in node.client().keys("rate_limit:*203.0.113.9*")]  # type: ignore[union-attr]
        assert sorted(keys) == ["rate_limit:ip:{203.0.113.9}:GET /", "rate_limit:user:{203.0.113.9}:GET /"]
        assert len({key_slot(key.encode()) for key in keys}) == 1


async def test_cluster_a_client_and_the_plain_face(cluster_set: ClusterSet) -> None:
    """A `RedisCluster` of the user's is read, and threads may ask too."""
    client = RedisCluster(host="127.0.0.1", port=cluster_set.nodes[0].port)
    async with RedisStorage(redis_client=client, deadline_ms=10_000) as storage:
        assert storage.traits.hash_tags
        assert await five_of(storage) == FIVE
    await client.aclose()

    def plain() -> list[bool]:
        with SyncRedisStorage.from_url(cluster_set.url, deadline_ms=10_000) as storage:
            one = bucket_request(DAILY)
            return [storage.take_blocking([one]).allowed for _ in range(7)]

    assert await asyncio.to_thread(plain) == FIVE


@pytest.fixture(scope="module")
def cluster_of_6(redis_6_server: RedisServer) -> Iterator[ClusterSet]:
    """Run three masters of Redis 6.2, whose rules for a slot on the move are others."""
    assert redis_6_server
    with ClusterSet(binary=redis_6(), replicas=0) as nodes:
        yield nodes


@pytest.mark.parametrize("version", ["cluster_set", "cluster_of_6"])
async def test_cluster_a_slot_on_the_move_keeps_its_limits(request: pytest.FixtureRequest, version: str) -> None:
    """At every step of a migration, checks of buckets here, there and nowhere yet are decided, and the bound holds."""
    cluster_set: ClusterSet = request.getfixturevalue(version)
    source, target, *_ = cluster_set.masters()
    async with RedisStorage.from_url(cluster_set.url, deadline_ms=10_000) as storage:
        tag = _tag_of(source, cluster_set)
        slot = key_slot(tag.encode())
        buckets = [_tagged(tag, number) for number in range(4)]
        allowed = [0] * 6
        for index in (0, 1):
            allowed[index] += (await storage.take([buckets[index]])).allowed
        for there, back in ((source, target), (target, source)):
            for _ in cluster_set.move_slot(slot, there, back):
                assert (await storage.take([_tagged(tag, time.monotonic_ns())])).allowed
                for index in (0, 1, 2):
                    allowed[index] += (await storage.take([buckets[index]])).allowed
                # Several buckets of one slot, of which some have moved: the server may ask to try again.
                both = await storage.take([buckets[3], _tagged(tag, "roomy", ROOMY)])
                allowed[3] += both.allowed
                together = await asyncio.gather(*[storage.take([bucket]) for bucket in buckets[:3]])
                for index, verdict in enumerate(together):
                    allowed[index] += verdict.allowed
        assert allowed[:4] == [5, 5, 5, 5]


@pytest.fixture
def shy_cluster() -> Iterator[ClusterSet]:
    """Run three masters that tell by which host they are reached."""
    yield from run_or_skip(lambda: ClusterSet(replicas=0))


@pytest.mark.parametrize("endpoint", ["unknown-endpoint", "hostname"])
async def test_cluster_nodes_that_do_not_name_their_host_are_found(shy_cluster: ClusterSet, endpoint: str) -> None:
    """As managed servers do: redirections have a port and no host, or `?`; the first checks of each storage are decided."""
    for node in shy_cluster.nodes:
        node.client().config_set("cluster-preferred-endpoint-type", endpoint)
    moved: Any = shy_cluster.nodes[0].client()
    tag = _tag_of(shy_cluster.nodes[1], shy_cluster)
    with pytest.raises(redis.ResponseError, match=f"[0-9]+ {'' if endpoint == 'unknown-endpoint' else '[?]'}:"):
        moved.execute_command("GET", f"{{{tag}}}")
    for number in range(20):
        async with RedisStorage.from_url(shy_cluster.url, deadline_ms=10_000) as storage:
            verdicts = await asyncio.gather(*[storage.take([_tagged(f"{number}-{i}", 1)]) for i in range(9)])
            assert all(verdict.allowed for verdict in verdicts)
            router = storage.connections.router(asyncio.get_running_loop()).router
            assert {host for host, _ in router._nodes} == {"127.0.0.1"}  # type: ignore[attr-defined]
    source, target, *_ = shy_cluster.masters()
    async with RedisStorage.from_url(shy_cluster.url, deadline_ms=10_000) as storage:
        tag = _tag_of(source, shy_cluster)
        allowed = 0
        for _ in shy_cluster.move_slot(key_slot(tag.encode()), source, target):
            allowed += sum([(await storage.take([_tagged(tag, 1)])).allowed for _ in range(3)])
            assert (await storage.take([_tagged(tag, time.monotonic_ns())])).allowed
        assert allowed == 5


@pytest.fixture
def wreckable_cluster() -> Iterator[ClusterSet]:
    """Run a cluster that a test may wreck."""
    yield from run_or_skip(lambda: ClusterSet(node_timeout_ms=1000))


async def test_cluster_a_master_that_dies_is_replaced(wreckable_cluster: ClusterSet) -> None:
    """Only its own slots fail meanwhile; its replica takes over, and the storage finds it."""
    cluster = wreckable_cluster
    victim, other, *_ = cluster.masters()
    async with RedisStorage.from_url(cluster.url, deadline_ms=200) as storage:
        hit, spared = _tagged(_tag_of(victim, cluster), 1, ROOMY), _tagged(_tag_of(other, cluster), 1)
        await until_it_decides(storage, [hit])
        await until_it_decides(storage, [spared])
        victim.kill()
        await asyncio.sleep(0.05)
        with pytest.raises(StorageError):
            await storage.take([hit])
        await until_it_decides(storage, [spared])
        await until_it_decides(storage, [hit])
