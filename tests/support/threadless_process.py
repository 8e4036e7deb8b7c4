"""A process in which no thread can be started, as in a container at its limit of processes: what limiters do there.

`python -m support.threadless_process URL`, as root. It ends with 0 if all is well, and with 77 where the system does not keep
the limit.
"""

import asyncio
import os
import resource
import sys
import threading
from typing import Any

from sluicegate import (
    Failure,
    MemoryStorage,
    RateLimitEvent,
    RateLimitRule,
    RedisStorage,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)

NOBODY, UNKEPT = 65534, 77
RULES = {
    "GET /": RateLimitRule(5, 0.001, "ip"),
    "GET /closed": RateLimitRule(5, 0.001, "ip", on_storage_error="deny"),
    "POST /": RateLimitRule.in_flight(1, scope="ip", hold_seconds=60),
}
WHO = {"endpoint": "GET /", "identifier": "10.0.0.1"}


class SlowBus:
    """A bus that is called from a thread, if there is one."""

    def listens(self, _: type[RateLimitEvent], /) -> bool:
        """Return True."""
        return True

    def publish(self, _: RateLimitEvent, /) -> None:
        """Do nothing."""


def allow_no_threads() -> bool:
    """Become a user who may have no process more; return whether the system keeps to it."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return True
    return False


def check_memory() -> None:
    """Decide, tell a bus that wants a thread, hold with a renewal that wants one, and settle."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=RULES, event_bus=SlowBus())
    assert [limiter.is_allowed(**WHO).value.allowed for _ in range(7)] == [True] * 5 + [False] * 2
    with limiter.hold(endpoint="POST /", identifier="10.0.0.1"):
        assert not limiter.acquire(endpoint="POST /", identifier="10.0.0.1").value.allowed
    assert limiter.acquire(endpoint="POST /", identifier="10.0.0.1").value.allowed
    limiter.close()


def check_sync_redis(url: str) -> None:
    """The client's thread cannot be started: the failure policy answers, and what has none says so."""
    limiter = SyncTokenBucketAdapter(storage=SyncRedisStorage.from_url(url, deadline_ms=1_000), rules=RULES)
    assert limiter.is_allowed(**WHO).value.allowed
    assert not limiter.is_allowed(endpoint="GET /closed", identifier="10.0.0.1").value.allowed
    assert isinstance(limiter.reset(**WHO), Failure)
    limiter.close()


async def check_redis(url: str, identifier: str) -> None:
    """An event loop needs no thread where the server's address is a number."""
    limiter = TokenBucketAdapter(
        storage=RedisStorage.from_url(url, deadline_ms=10_000), rules=RULES, deadline_ms=10_000, event_bus=SlowBus()
    )
    answers: list[Any] = [(await limiter.check(endpoint="GET /", identifier=identifier)) for _ in range(7)]
    assert [one.degraded for one in answers] == [None] * 7
    assert [one.result.allowed for one in answers] == [True] * 5 + [False] * 2
    await limiter.aclose()


def main(url: str) -> int:
    """Run all of it. Who becomes nobody may not read modules any more: all that are needed are imported before."""
    asyncio.run(check_redis(url, "10.0.0.2"))
    if not allow_no_threads():
        return UNKEPT
    check_memory()
    check_sync_redis(url)
    asyncio.run(check_redis(url, "10.0.0.1"))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
