"""Who waits gets a turn, in order, and never more turns than the rule has."""

import asyncio
import math

import pytest

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitResult,
    RateLimitRule,
    SlotTimeoutError,
    TokenBucketAdapter,
)
from sluicegate.application.wait_queue import WaitQueue
from sluicegate.testing import FailingStorage

FAST = RateLimitRule(1, 60 * 50, "ip")  # one every 20 ms
SLOW = RateLimitRule(1, 1, "ip")
RULES = {"fast": FAST, "slow": SLOW}


@pytest.fixture
def limiter() -> TokenBucketAdapter:
    """A limiter by the real clock: waiting is what is tested."""
    return TokenBucketAdapter(storage=MemoryStorage(), rules=RULES)


async def test_waits_until_there_are_tokens(limiter: TokenBucketAdapter) -> None:
    """Six turns at one in 20 ms take at least 100 ms, and all come."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(6):
        async with limiter.slot(endpoint="fast", identifier="x") as result:
            assert result.allowed
    assert loop.time() - started >= 0.099


async def test_first_come_first_served(limiter: TokenBucketAdapter) -> None:
    """Turns come in the order in which they were asked for, even if somebody in the middle gives up."""
    order: list[int] = []

    async def caller(number: int) -> None:
        await limiter.wait(endpoint="fast", identifier="x")
        order.append(number)

    tasks: list[asyncio.Task[None]] = []
    for number in range(8):
        tasks.append(asyncio.create_task(caller(number)))
        await asyncio.sleep(0)
    tasks[4].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 3, 5, 6, 7]


async def test_one_key_does_not_hold_up_another(limiter: TokenBucketAdapter) -> None:
    """A queue that stands does not stop the others."""
    await limiter.wait(endpoint="slow", identifier="x")
    stuck = asyncio.create_task(limiter.wait(endpoint="slow", identifier="x"))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await limiter.wait(endpoint="slow", identifier="y")
    assert not stuck.done()
    stuck.cancel()


async def test_gives_up_at_once_if_the_turn_would_come_too_late(limiter: TokenBucketAdapter) -> None:
    """A wait that is known to be too long is not begun, and takes no token."""
    await limiter.wait(endpoint="slow", identifier="x")
    async with asyncio.timeout(5):
        with pytest.raises(SlotTimeoutError) as caught:
            await limiter.wait(endpoint="slow", identifier="x", timeout_s=30)
    assert 55 < caught.value.retry_after <= 60
    assert isinstance(caught.value, TimeoutError)


async def test_gives_up_in_the_queue(limiter: TokenBucketAdapter) -> None:
    """Who stands behind others gives up when the time is over."""
    await limiter.wait(endpoint="slow", identifier="x")
    first = asyncio.create_task(limiter.wait(endpoint="slow", identifier="x"))
    await asyncio.sleep(0)
    with pytest.raises(SlotTimeoutError, match="others are before it"):
        await limiter.wait(endpoint="slow", identifier="x", timeout_s=0.02)
    assert not first.done()
    first.cancel()


async def test_what_can_never_be(limiter: TokenBucketAdapter) -> None:
    """A cost beyond the capacity is not waited for, however long the timeout."""
    with pytest.raises(SlotTimeoutError) as caught:
        await limiter.wait(endpoint="fast", identifier="x", cost=2)
    assert math.isinf(caught.value.retry_after)


async def test_nobody_waits_for_a_storage_that_fails() -> None:
    """The failure policy answers, as everywhere."""
    limiter = TokenBucketAdapter(storage=FailingStorage(), rules=RULES)
    async with asyncio.timeout(5):
        assert (await limiter.wait(endpoint="slow", identifier="x")).allowed


async def test_queues_leave_nothing_behind() -> None:
    """A queue goes with the last caller that waited in it."""
    queue = WaitQueue()

    async def ask() -> RateLimitResult:
        assert len(queue._queues) == 1
        return RateLimitResult(True, 0.0, 1, 1, 1)

    for number in range(100):
        await queue.wait(ask, "fast", str(number), None)
    assert len(queue._queues) == 0


@pytest.mark.parametrize("timeout_s", [-1, math.nan, math.inf, "1", True])
async def test_bad_timeouts(limiter: TokenBucketAdapter, timeout_s: float) -> None:
    """A timeout that is none is an error that names it."""
    with pytest.raises(InvalidInputError, match="timeout_s="):
        await limiter.wait(endpoint="fast", identifier="x", timeout_s=timeout_s)
