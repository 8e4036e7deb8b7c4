"""A worker that calls somebody else's API no faster than their terms allow, and gives up on jobs that would come too late.

Run: `python examples/apps/worker.py`. It sends ten messages, five a second, two at once; then an urgent one, which is dropped
because it would have to wait.
"""

import asyncio

from sluicegate import MemoryStorage, RateLimitRule, SlotTimeoutError, TokenBucketAdapter

ENDPOINT = "partner API"


async def send(message: str) -> None:
    """Send a message. Here the partner's API would be called."""
    print("sent", message)


async def work(limiter: TokenBucketAdapter, queue: asyncio.Queue[str]) -> None:
    """Send whatever is in the queue. Each call waits for a token; all workers wait in one line."""
    while True:
        message = await queue.get()
        async with limiter.slot(endpoint=ENDPOINT, identifier="us"):
            await send(message)
        queue.task_done()


async def send_urgent(limiter: TokenBucketAdapter, message: str) -> None:
    """Send a message now or never."""
    try:
        await limiter.wait(endpoint=ENDPOINT, identifier="us", timeout_s=0)
    except SlotTimeoutError as error:
        print(f"dropped {message}, which could be sent in {error.retry_after:.1f} s")
    else:
        await send(message)


async def main() -> None:
    """Fill a queue and let two workers empty it."""
    # In memory the rate is this process's. With RedisStorage in its place all processes together keep to it.
    limiter = TokenBucketAdapter(
        storage=MemoryStorage(), rules={ENDPOINT: RateLimitRule.per_second(5, burst=2, scope="global")}
    )
    queue: asyncio.Queue[str] = asyncio.Queue()
    for number in range(10):
        queue.put_nowait(f"message {number}")
    async with asyncio.TaskGroup() as workers:
        tasks = [workers.create_task(work(limiter, queue)) for _ in range(2)]
        await queue.join()
        for task in tasks:
            task.cancel()
    await send_urgent(limiter, "urgent message")
    await limiter.aclose()


if __name__ == "__main__":
    asyncio.run(main())
