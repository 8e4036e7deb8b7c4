"""Reserve and commit, beside a plain check and beside token-throttle, in memory and on one hot key of one redis-server.

And a check of a bucket by the number of its reservations that are not settled.
"""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import redis.asyncio

from report import KIND, Section, at_least, at_most, compare
from rounds import Contestant, alternate, one_by_one, ratio, together
from sizes import Size
from sluicegate import MemoryStorage, RateLimitRule, RedisStorage, TokenBucketAdapter
from support.redis_servers import RedisServer

_CHAT = "POST /v1/chat"
_PLENTY = RateLimitRule(10**9, 10**9, "user")
_CALLERS = 50
_RESERVED = (0, 100, 9_999)
_CHECKS_ALONE = 2_000  # in a round: each waits for the server
_CHECKS_BESIDE = 500  # in a round: of a bucket with claims, where each took milliseconds once
_PEER_CHECKS = 200  # of token-throttle in a round: it does some hundreds a second


async def run(size: Size) -> Section:
    """Measure."""
    section = Section(f"Budgets, {KIND}")
    await _in_memory(size, section)
    await _on_redis(size, section)
    await _beside_claims(size, section)
    return section


async def _in_memory(size: Size, section: Section) -> None:
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={_CHAT: _PLENTY})
    check = Contestant("a check", one_by_one(_check(limiter), ["alice"]), peer=False)
    budget = Contestant("reserve + commit", one_by_one(_reserve_and_commit(limiter), ["alice"]), ours=True)
    await alternate([check, budget], rounds=size.rounds, checks=size.memory_checks)
    conditions = f"One caller, one client; {size.rounds} rounds of {size.memory_checks:,} calls each."
    section.tables.append(compare("in memory", conditions, [check, budget]))
    section.goals.append(
        at_most(f"reserve + commit in memory, {KIND}", 2.2, ratio(budget, check), unit="times a check")
    )


async def _on_redis(size: Size, section: Section) -> None:
    with RedisServer() as server:
        limiter = TokenBucketAdapter(
            storage=RedisStorage.from_url(server.url, deadline_ms=5_000), rules={_CHAT: _PLENTY}, deadline_ms=5_000
        )
        check = Contestant("a check", together(_check(limiter), ["alice"], _CALLERS, []), peer=False)
        budget = Contestant(
            "reserve + commit", together(_reserve_and_commit(limiter), ["alice"], _CALLERS, []), ours=True
        )
        contestants = [check, budget]
        throttle = None
        if importlib.util.find_spec("token_throttle") is not None:
            throttle = _token_throttle(server.url)
            contestants.append(throttle)
        await alternate(contestants, rounds=size.rounds, checks=size.joint_checks)
        one_check = Contestant("a check", one_by_one(_check(limiter), ["alice"]), peer=False)
        one_budget = Contestant("reserve + commit", one_by_one(_reserve_and_commit(limiter), ["alice"]), ours=True)
        await alternate([one_check, one_budget], rounds=size.rounds, checks=_CHECKS_ALONE)
        await limiter.aclose()
    conditions = f"One caller; {size.rounds} rounds of {_CHECKS_ALONE} calls each."
    section.tables.append(compare("one caller on Redis", conditions, [one_check, one_budget]))
    section.goals.append(
        at_most("reserve + commit on Redis, one caller", 2.2, ratio(one_budget, one_check), unit="times a check")
    )
    conditions = f"One key, {_CALLERS} callers in one process; {size.rounds} rounds of {size.joint_checks:,} calls each"
    conditions += f" ({_PEER_CHECKS} of token-throttle's)."
    section.tables.append(compare("one hot key on Redis", conditions, contestants))
    section.goals.append(
        at_most(f"reserve + commit on Redis, {_CALLERS} callers", 2.2, ratio(budget, check), unit="times a check")
    )
    if throttle is not None:
        section.goals.append(
            at_least("reserve + commit on one hot key", 50, ratio(throttle, budget), than="token-throttle's")
        )


async def _beside_claims(size: Size, section: Section) -> None:
    with RedisServer() as server:
        redis_storage = RedisStorage.from_url(server.url, deadline_ms=5_000)
        for where, storage in (("in memory", MemoryStorage()), ("on Redis", redis_storage)):
            limiter = TokenBucketAdapter(storage=storage, rules={_CHAT: _PLENTY}, deadline_ms=5_000)
            contestants: list[Contestant] = []
            for reserved in _RESERVED:
                client = f"beside-{reserved}"
                reserve = partial(limiter.reserve, endpoint=_CHAT, identifier=client, cost=1_500, ttl_seconds=3_600)
                await asyncio.gather(*[reserve() for _ in range(reserved)])
                work = one_by_one(_check(limiter), [client])
                contestants.append(Contestant(f"{reserved:,} reservations", work, peer=False))
            await alternate(contestants, rounds=size.rounds, checks=_CHECKS_BESIDE)
            conditions = f"One caller; {size.rounds} rounds of {_CHECKS_BESIDE} calls each."
            section.tables.append(compare(f"a check of a bucket with reservations, {where}", conditions, contestants))
            await limiter.aclose()


def _check(limiter: TokenBucketAdapter) -> Callable[[str], Awaitable[object]]:
    async def check(client: str) -> object:
        return await limiter.is_allowed(endpoint=_CHAT, identifier=client, cost=1_500)

    return check


def _reserve_and_commit(limiter: TokenBucketAdapter) -> Callable[[str], Awaitable[object]]:
    async def reserve_and_commit(client: str) -> object:
        reserved: Any = await limiter.reserve(endpoint=_CHAT, identifier=client, cost=1_500, ttl_seconds=60)
        return await limiter.commit(reserved.value, cost=830)

    return reserve_and_commit


def _token_throttle(url: str) -> Contestant:
    import token_throttle  # noqa: PLC0415 - needs Python 3.12

    backend = token_throttle.RedisBackendBuilder(
        redis.asyncio.from_url(url), key_prefix="bench", lock_blocking_timeout_seconds=60
    )
    quotas = token_throttle.UsageQuotas([token_throttle.Quota(metric="tokens", limit=10**9, per_seconds=60)])
    peer = token_throttle.RateLimiter(token_throttle.PerModelConfig(quotas=quotas), backend=backend)

    async def reserve(_: str) -> object:
        async with peer.reserve({"tokens": 1_500}, model="hot") as handle:
            handle.set_actual_usage({"tokens": 830})

    work = together(reserve, ["alice"], _CALLERS, [])

    async def fewer(_checks: int) -> float:
        return await work(_PEER_CHECKS)

    return Contestant("token-throttle, reserve", fewer)
