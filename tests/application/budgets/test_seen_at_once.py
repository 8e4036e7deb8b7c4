"""What comes back is seen by every other process within a tenth of a second, and where nothing is cached at once."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from sluicegate import RateLimitRule, Success, TokenBucketAdapter
from support import watching_worker
from support.backends import Backend
from support.redis_servers import RedisServer
from support.watching_worker import RULES, WHO
from support.worker_storages import PATIENT_MS, storage_of

BOUND_S = 0.1


def value(result: Any) -> Any:
    """Unwrap a success."""
    assert isinstance(result, Success), result
    return result.value


@contextmanager
def watchers(kinds: tuple[str, ...], address: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Run a process of each kind."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", watching_worker.__name__, kind, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(watching_worker.__file__).parents[1],
        )
        for kind in kinds
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return a process's stream."""
    assert stream is not None
    return stream


async def take_all(limiter: TokenBucketAdapter, endpoint: str) -> list[Any]:
    """Leave nothing for others, and return what was reserved or is held."""
    if endpoint == "release":
        return [value(await limiter.acquire(endpoint=endpoint, identifier=WHO)) for _ in range(2)]
    reserved = value(await limiter.reserve(endpoint=endpoint, identifier=WHO, cost=900))
    assert value(await limiter.is_allowed(endpoint=endpoint, identifier=WHO, cost=100)).allowed
    return [reserved]


async def give_back(limiter: TokenBucketAdapter, endpoint: str, claims: list[Any]) -> None:
    """Do what the endpoint is named after."""
    match endpoint:
        case "commit":
            await limiter.commit(claims[0].id, cost=600)
        case "cancel":
            await limiter.cancel(claims[0])
        case "refund":
            await limiter.refund(endpoint=endpoint, identifier=WHO, cost=100)
        case _:
            for hold in claims:
                await limiter.release(hold)


@pytest.mark.parametrize(
    ("kinds", "bound_s"), [(("redis", "sync redis"), BOUND_S), (("shared memory", "shared memory"), 0.0)]
)
async def test_other_processes_see_what_comes_back(
    kinds: tuple[str, ...], bound_s: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By a commit, a cancel, a refund and a release: a check that begins later than the bound after it is allowed.

    The bound is asserted of when a denied check *began*, so that it holds however busy the machine is.
    """
    if kinds[0] == "shared memory":
        pytest.importorskip("fcntl")
    server: RedisServer | None = None if bound_s == 0 else request.getfixturevalue("redis_server")
    address = str(tmp_path / "buckets") if server is None else server.url
    limiter = TokenBucketAdapter(storage=storage_of(kinds[0], address), rules=RULES, deadline_ms=PATIENT_MS)
    told: list[str] = []
    with watchers(kinds, address) as processes:
        for endpoint in RULES:
            claims = await take_all(limiter, endpoint)
            for process in processes:
                pipe(process.stdin).write(f"{endpoint}\n")
                pipe(process.stdin).flush()
            for process in processes:
                assert pipe(process.stdout).readline() == "denied\n"
            begun_s = time.monotonic()
            await give_back(limiter, endpoint, claims)
            done_s = time.monotonic()
            for kind, process in zip(kinds, processes, strict=True):
                name, last_denied, allowed = pipe(process.stdout).readline().split()
                assert name == endpoint
                assert float(last_denied) <= done_s + bound_s, (kind, float(last_denied) - done_s)
                told.append(f"{kind}, {endpoint}: {(float(allowed) - begun_s) * 1000:.1f} ms")
    sys.stdout.write("\n" + "\n".join(told) + "\n")
    await limiter.aclose()


async def test_a_denial_is_believed_for_a_tenth_of_a_second_where_something_is_reserved(
    redis_server: RedisServer,
) -> None:
    """And for a second where nothing is: on a clock that stands still, to the millisecond. One's own change is seen at once."""
    backend = Backend(server=redis_server)
    rule = RateLimitRule(1000, 0.001, "ip")
    limiter, other = backend.limiter(rule), backend.limiter(rule)
    who: dict[str, Any] = {"endpoint": "POST /chat", "identifier": WHO}

    async def allowed(one: TokenBucketAdapter) -> bool:
        return bool(value(await one.is_allowed(**who)).allowed)

    for verb in ("commit", "cancel", "refund"):
        reserved = value(await limiter.reserve(**who, cost=1000))
        assert not await allowed(limiter)
        assert not await allowed(other)
        await (
            limiter.refund(**who, cost=5)
            if verb == "refund"
            else getattr(limiter, verb)(reserved, **{"cost": 0} if verb == "commit" else {})
        )
        assert await allowed(limiter)
        assert not await allowed(other)
        backend.clock.advance(BOUND_S - 0.001)
        assert not await allowed(other)
        backend.clock.advance(0.001)
        assert await allowed(other)
        await limiter.reset(**who)
        backend.clock.advance(1)
    await backend.aclose()
