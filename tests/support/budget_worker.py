"""A process that reserves, commits and holds as fast as it goes, and may be killed at any time: what it was told is in a file.

`python -m support.budget_worker KIND ADDRESS FILE`: each line of the file is an instant of the monotonic clock and what happened.
"""

import asyncio
import os
import random
import sys
import time

from sluicegate import RateLimitRule, Success, TokenBucketAdapter
from support.worker_storages import PATIENT_MS, storage_of

CAPACITY, PER_SECOND, MAX_DEBT, SLOTS, TTL_S = 1_000, 2_000, 500, 3, 0.5
CHAT, EXPORT = "POST /chat", "POST /export"
RULES = {
    CHAT: RateLimitRule(CAPACITY, PER_SECOND * 60, "global", max_debt=MAX_DEBT),
    EXPORT: RateLimitRule.in_flight(SLOTS, scope="global", hold_seconds=TTL_S),
}


async def _spend(limiter: TokenBucketAdapter, note: int) -> None:
    chance = random.Random()
    while True:
        cost = chance.choice([10, 50, 200])
        match await limiter.reserve(endpoint=CHAT, identifier="x", cost=cost, ttl_seconds=TTL_S):
            case Success(value=reservation) if reservation.allowed and reservation.degraded is None:
                _write(note, f"reserved {cost}")
                await asyncio.sleep(chance.random() / 50)
                real = chance.choice([0, cost // 2, cost, cost * 2])
                match await limiter.commit(reservation, cost=real):
                    case Success(value=settlement) if settlement.applied:
                        _write(note, f"settled {cost} {settlement.charged}")
            case _:
                await asyncio.sleep(0.005)


async def _hold(limiter: TokenBucketAdapter, note: int) -> None:
    chance = random.Random()
    while True:
        match await limiter.acquire(endpoint=EXPORT, identifier="x"):
            case Success(value=hold) if hold.allowed and hold.degraded is None:
                _write(note, "held")
                await asyncio.sleep(chance.random() / 50)
                _write(note, "released")
                await limiter.release(hold)
            case _:
                await asyncio.sleep(0.005)


def _write(note: int, text: str) -> None:
    os.write(note, f"{time.monotonic():.6f} {text}\n".encode())


async def _main(kind: str, address: str, path: str) -> None:
    note = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    limiter = TokenBucketAdapter(storage=storage_of(kind, address), rules=RULES, deadline_ms=PATIENT_MS)
    await asyncio.gather(*[_spend(limiter, note) for _ in range(4)], _hold(limiter, note))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
