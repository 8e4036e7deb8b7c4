"""All buckets of a limiter, of everybody, full again: in the storage, and in whatever this process remembers of them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from sluicegate import (
    Failure,
    MemoryStorage,
    RateLimitRule,
    RedisStorage,
    Success,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.domain.errors import StorageError
from sluicegate.domain.rules.rule import RateLimitScope
from sluicegate.testing import FailingStorage, FakeClock, RecordingLogger
from support.awaited_storage import AwaitedStorage
from support.redis_servers import RedisServer

DAILY = RateLimitRule.per_day(2)
RULES: dict[str, Any] = {
    "POST /login": (DAILY, RateLimitRule.per_day(9, scope=RateLimitScope.GLOBAL)),
    "GET /me": RateLimitRule.per_day(2, scope="user"),
    "GET /trial": RateLimitRule(1, 1 / 1440, "tenant", shadow=True),
    "GET /off": RateLimitRule(1, 1, "other", enabled=False),
}
JOB = {"job": (RateLimitRule.per_day(100, scope="user"), RateLimitRule.in_flight(1, scope="user"))}
PATIENT_MS = 10_000


async def spend(limiter: TokenBucketAdapter, *clients: str) -> list[int]:
    """Ask three times for each client, and return how many were let pass."""
    return [sum([await ask(limiter, endpoint, client) for _ in range(3)]) for endpoint, client in asked(*clients)]


async def ask(limiter: TokenBucketAdapter, endpoint: str, client: str) -> bool:
    """Return whether a client may pass."""
    return (await limiter.is_allowed(endpoint=endpoint, identifier=client)).value.allowed


def asked(*clients: str) -> list[tuple[str, str]]:
    """Return what each client asks for."""
    return [(endpoint, client) for client in clients for endpoint in ("POST /login", "GET /me")]


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_everybody_starts_afresh(face: str) -> None:
    """All clients of all endpoints, also while a kill switch is thrown; limiters with another prefix keep their buckets."""
    storage, logger = MemoryStorage(clock=FakeClock()), RecordingLogger()
    limiter = TokenBucketAdapter(storage=storage, rules=RULES, logger=logger)
    other = TokenBucketAdapter(storage=storage, rules=RULES, key_prefix="rate_limit2")
    within = TokenBucketAdapter(storage=storage, rules=RULES, key_prefix="rate_limit:tests")
    assert await spend(limiter, "a", "b") == await spend(other, "a", "b") == await spend(within, "a", "b") == [2] * 4
    for _ in range(2):
        await ask(limiter, "GET /trial", "a")
    assert limiter.shadow_denials == {"tenant-1-86400s": 1}
    limiter.rules.switch_off()
    if face == "sync":
        sync = SyncTokenBucketAdapter(storage=storage, rules=limiter.rules, logger=logger)
        assert sync.reset_all() == Success(None)
    else:
        assert await limiter.reset_all() == Success(None)
    limiter.rules.switch_on()
    assert await spend(limiter, "a", "b") == [2] * 4
    await ask(limiter, "GET /trial", "a")
    assert limiter.shadow_denials == {"tenant-1-86400s": 1}
    assert await spend(other, "a", "b") == await spend(within, "a", "b") == [0] * 4
    lines = [(level, message) for level, message, _ in logger.records if "reset" in message]
    assert lines == [("info", "Rate limit reset of all buckets done.")]


async def test_reservations_and_holds() -> None:
    """Holds end. A reservation that is out is not charged again: its commit charges what exceeds the estimate."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=JOB)
    reservation = (await limiter.reserve(endpoint="job", identifier="ann", cost=80)).value  # type: ignore[union-attr]
    assert await limiter.reset_all() == Success(None)
    hold = (await limiter.acquire(endpoint="job", identifier="ann", cost=1)).value  # type: ignore[union-attr]
    assert hold.allowed
    await limiter.release(hold)
    settled = (await limiter.commit(reservation, cost=90)).value  # type: ignore[union-attr]
    assert settled.applied
    assert (settled.charged, settled.returned) == (90, 0)


async def test_rules_that_share_a_storage_by_with_rules() -> None:
    """Limiters that follow another one's rules are reset with it, and it with them."""
    one = TokenBucketAdapter(storage=MemoryStorage(), rules={"a": DAILY})
    two = one.with_rules({"b": RateLimitRule.per_day(2, scope="user")})
    for limiter in (one, two):
        assert [await ask(one, "a", "x"), await ask(one, "a", "x"), await ask(one, "a", "x")] == [True, True, False]
        assert [await ask(two, "b", "x"), await ask(two, "b", "x"), await ask(two, "b", "x")] == [True, True, False]
        assert await limiter.reset_all() == Success(None)


# What could not be done


class _Mended(AwaitedStorage):
    """A storage that is down while a test says so, and can reset all."""

    down = False

    async def take(self, requests: Any, /) -> Any:
        if self.down:
            raise StorageError("connection", "down")
        return await self._memory.take(requests)

    async def reset_all(self, prefixes: Any, /) -> None:
        if self.down:
            raise StorageError("connection", "down")
        await self._memory.reset_all(prefixes)

    def forget_all(self, prefixes: Any, /) -> None:
        """Do nothing."""


async def test_a_storage_that_fails_is_no_success() -> None:
    """`Failure` with the reason, and an error in the log; buckets in this process stay as they are until it was done."""
    storage, logger = _Mended(), RecordingLogger()
    limiter = TokenBucketAdapter(storage=storage, rules={"a": DAILY}, logger=logger, on_storage_error="local")
    storage.down = True
    assert [await ask(limiter, "a", "x") for _ in range(3)] == [True, True, False]
    failure = await limiter.reset_all()
    assert isinstance(failure, Failure)
    assert failure.error.reason == "connection"
    assert ("error", "A rate limit reset of all buckets was not done.") in [line[:2] for line in logger.records]
    assert not await ask(limiter, "a", "x")
    storage.down = False
    assert await limiter.reset_all() == Success(None)
    storage.down = True
    assert [await ask(limiter, "a", "x") for _ in range(3)] == [True, True, False]


async def test_a_storage_without_the_verb() -> None:
    """`Failure` that says so, in both faces; without rules there is nothing to reset."""
    for storage in (AwaitedStorage(), FailingStorage(error=OSError())):
        failure = await TokenBucketAdapter(storage=storage, rules={"a": DAILY}).reset_all()
        assert isinstance(failure, Failure)
        assert failure.error.reason in {"unsupported", "connection"}
        assert await TokenBucketAdapter(storage=storage, rules={}).reset_all() == Success(None)

    class Plain:
        def __init__(self) -> None:
            self._memory = MemoryStorage()
            self.traits = self._memory.traits
            for verb in ("take", "peek", "refund", "reset"):
                setattr(self, f"{verb}_blocking", getattr(self._memory, f"{verb}_blocking"))

    failed = SyncTokenBucketAdapter(storage=cast("Any", Plain()), rules={"a": DAILY}).reset_all()
    assert isinstance(failed, Failure)
    assert failed.error.reason == "unsupported"
    assert "Plain has not the verbs of ResettableStorage" in failed.error.message


# Redis


async def on_redis(server: RedisServer, use: Callable[[TokenBucketAdapter], Awaitable[None]], **settings: Any) -> None:
    """Use a limiter on a server."""
    storage = RedisStorage.from_url(server.url, deadline_ms=PATIENT_MS)
    limiter = TokenBucketAdapter(storage=storage, rules=RULES, deadline_ms=PATIENT_MS, **settings)
    try:
        await use(limiter)
    finally:
        await limiter.aclose()


async def test_redis_keeps_the_keys_of_others(redis_server: RedisServer) -> None:
    """Several pages of buckets are full; what is no bucket, or has another prefix, is as it was."""
    client: Any = redis_server.client()
    foreign = {"rate_limit2:ip:x:GET /": "1 2 3", "rate_limit:ip:no bucket": "mine", "rate_limit:tests:ip:a:GET /": "4"}
    client.mset(foreign)
    client.hset("rate_limit:ip:a hash", "a", "b")

    async def use(limiter: TokenBucketAdapter) -> None:
        clients = [f"client-{n}" for n in range(600)]
        await asyncio.gather(*[ask(limiter, "GET /me", client) for client in clients for _ in range(2)])
        assert client.dbsize() == 600 + len(foreign) + 1
        assert not await ask(limiter, "GET /me", "client-7")  # and the denial is remembered
        assert await limiter.reset_all() == Success(None)
        assert await ask(limiter, "GET /me", "client-7")
        assert client.dbsize() == 1 + len(foreign) + 1
        assert {key: client.get(key) for key in foreign} == foreign
        assert client.hget("rate_limit:ip:a hash", "a") == "b"

    await on_redis(redis_server, use)


async def test_limiters_of_one_process_forget_their_denials(redis_server: RedisServer) -> None:
    """What the sync face has reset, the async one does not deny from memory, nor the other way round."""

    async def use(limiter: TokenBucketAdapter) -> None:
        storage = SyncRedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS)
        sync = SyncTokenBucketAdapter(storage=storage, rules=limiter.rules)
        for reset in (lambda: asyncio.to_thread(sync.reset_all), limiter.reset_all):
            assert await spend(limiter, "a") == [2, 2]
            assert not (
                await asyncio.to_thread(lambda: sync.is_allowed(endpoint="GET /me", identifier="a"))
            ).value.allowed
            assert await reset() == Success(None)
            assert (await asyncio.to_thread(lambda: sync.is_allowed(endpoint="GET /me", identifier="a"))).value.allowed
            assert await ask(limiter, "GET /me", "a")
            assert await ask(limiter, "POST /login", "a")
            await limiter.reset_all()
        sync.close()

    await on_redis(redis_server, use)


async def test_what_this_process_has_borrowed_goes_back_first(redis_server: RedisServer) -> None:
    """A bucket that lends is full again as a whole, and spends no token twice."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=PATIENT_MS)
    rule = RateLimitRule(1_000, 0.001, "global", lease=True)
    limiter = TokenBucketAdapter(storage=storage, rules={"hot": rule}, deadline_ms=PATIENT_MS)
    try:
        while not storage.leases.held:
            await asyncio.gather(*[ask(limiter, "hot", "x") for _ in range(50)])
        assert await limiter.reset_all() == Success(None)
        assert not storage.leases.held
        assert await limiter.get_remaining(endpoint="hot", identifier="x") == Success(1_000)
    finally:
        await limiter.aclose()


async def test_a_user_who_may_not_scan(redis_server: RedisServer) -> None:
    """The failure names what is missing, and nothing is reset; a server that is gone is a failure too."""
    client: Any = redis_server.client()
    client.execute_command(
        "ACL", "SETUSER", "limits", "on", ">secret", "~rate_limit:*", "-@all", "+evalsha", "+eval", "+time", "+mget", "+set",
        "+del",
    )  # fmt: skip
    storage = RedisStorage.from_url(f"redis://limits:secret@127.0.0.1:{redis_server.port}", deadline_ms=PATIENT_MS)
    limiter = TokenBucketAdapter(storage=storage, rules=RULES, deadline_ms=PATIENT_MS)
    try:
        assert await spend(limiter, "a") == [2, 2]
        failure = await limiter.reset_all()
        assert isinstance(failure, Failure)
        assert failure.error.reason == "no_permission"
        assert "+scan" in failure.error.message
        assert await spend(limiter, "a") == [0, 0]
        client.execute_command("ACL", "SETUSER", "limits", "+scan")
        assert await limiter.reset_all() == Success(None)
        assert await spend(limiter, "a") == [2, 2]
    finally:
        await limiter.aclose()
        client.execute_command("ACL", "DELUSER", "limits")


async def test_a_server_that_is_gone() -> None:
    """`Failure`, from both faces."""
    url = "redis://127.0.0.1:1"
    storage = RedisStorage.from_url(url)
    limiter = TokenBucketAdapter(storage=storage, rules=RULES)
    sync = SyncTokenBucketAdapter(storage=SyncRedisStorage.from_url(url), rules=RULES)
    for failure in (await limiter.reset_all(), sync.reset_all()):
        assert isinstance(failure, Failure)
        assert failure.error.reason == "connection"
    sync.close()
    await limiter.aclose()


# Shared memory


def shared(path: Path, **settings: Any) -> TokenBucketAdapter:
    """Return a limiter in shared memory."""
    shared_memory = pytest.importorskip("sluicegate.infrastructure.shared_memory.storage")
    storage = shared_memory.SharedMemoryStorage(path, size_bytes=1 << 20, deadline_ms=PATIENT_MS)
    return TokenBucketAdapter(storage=storage, rules=RULES, deadline_ms=PATIENT_MS, **settings)


async def test_shared_memory(tmp_path: Path) -> None:
    """Of a file whose buckets have one prefix all are full again, in all of its parts, also when the file was replaced."""
    limiter = shared(tmp_path / "buckets")
    clients = [f"client-{n}" for n in range(200)]
    for _ in range(2):
        assert await spend(limiter, *clients[:4]) == [2] * 8
        for client in clients:
            await ask(limiter, "GET /me", client)
        assert await limiter.reset_all() == Success(None)
        storage: Any = limiter.storage
        assert storage.info().buckets == 0
        (tmp_path / "buckets").unlink()
        storage._mapped.look(storage._mapped.table())


async def test_shared_memory_of_several_prefixes(tmp_path: Path) -> None:
    """The file keeps no names, so that those of others cannot be told: `Failure`, and nothing has changed."""
    one, two = shared(tmp_path / "buckets"), shared(tmp_path / "buckets", key_prefix="other")
    assert await spend(one, "a") == await spend(two, "a") == [2, 2]
    for limiter in (one, two):
        failure = await limiter.reset_all()
        assert isinstance(failure, Failure)
        assert failure.error.reason == "unsupported"
        assert "storage clear" in failure.error.message
    assert await spend(one, "a") == await spend(two, "a") == [0, 0]


async def test_reservations_in_shared_memory(tmp_path: Path) -> None:
    """As in memory: holds end, and of a reservation nothing comes back."""
    limiter = shared(tmp_path / "buckets")
    limiter.rules.replace(JOB)
    reservation = (await limiter.reserve(endpoint="job", identifier="ann", cost=80)).value  # type: ignore[union-attr]
    assert reservation.allowed
    assert await limiter.reset_all() == Success(None)
    hold = (await limiter.acquire(endpoint="job", identifier="ann", cost=1)).value  # type: ignore[union-attr]
    assert hold.allowed
    settled = (await limiter.commit(reservation, cost=90)).value  # type: ignore[union-attr]
    assert (settled.charged, settled.returned) == (90, 0)
    storage: Any = limiter.storage
    assert storage.info().claims == 1
    await limiter.release(hold)
    assert storage.info().claims == 0
