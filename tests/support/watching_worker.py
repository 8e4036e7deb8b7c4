"""A process that is denied, asks again and again, and tells when it was denied for the last time and when it passed.

`python -m support.watching_worker KIND ADDRESS`: a line on its input is an endpoint of `RULES`. It answers `denied` when it was
denied several times in a row, and later the instants of the monotonic clock, which all processes of a machine share.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sluicegate import RateLimitRule, SyncTokenBucketAdapter, TokenBucketAdapter
from support.worker_storages import PATIENT_MS, storage_of

_SLOW = RateLimitRule(1000, 0.001, "ip")
RULES = {
    "commit": _SLOW,
    "cancel": _SLOW,
    "refund": _SLOW,
    "release": RateLimitRule.in_flight(2, scope="ip", hold_seconds=600),
}
VERBS = {"commit": "is_allowed", "cancel": "reserve", "refund": "is_allowed", "release": "acquire"}
WHO = "10.0.0.1"
_DENIALS = 5


async def _watch(endpoint: str, ask: Callable[[], Awaitable[Any]]) -> None:
    denials, last_s = 0, 0.0
    while True:
        begun_s = time.monotonic()
        if (await ask()).value.allowed:
            _tell(f"{endpoint} {last_s} {time.monotonic()}")
            return
        denials, last_s = denials + 1, begun_s
        if denials == _DENIALS:
            _tell("denied")
        await asyncio.sleep(0.001)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _main(kind: str, address: str) -> None:
    storage = storage_of(kind, address)
    limiter: Any = (
        SyncTokenBucketAdapter(storage=storage, rules=RULES)
        if kind == "sync redis"
        else TokenBucketAdapter(storage=storage, rules=RULES, deadline_ms=PATIENT_MS)
    )
    for line in sys.stdin:
        endpoint = line.strip()
        verb = getattr(limiter, VERBS[endpoint])

        async def ask(verb: Any = verb, endpoint: str = endpoint) -> Any:
            answer = verb(endpoint=endpoint, identifier=WHO)
            return answer if kind == "sync redis" else await answer

        await _watch(endpoint, ask)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
