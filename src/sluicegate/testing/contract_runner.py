"""What the conformance tests of storages share: making a storage, moving its clock, running a scenario."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from math import ceil

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.buckets.token_bucket import result
from sluicegate.domain.protocols import StorageProtocol
from sluicegate.domain.rules.rule import RateLimitRule


class ContractRunner:
    """Make a storage for each scenario, and run it; see `StorageContract`."""

    exact_clock = False
    """Whether the storage's clock moves only by `advance`."""

    async def make_storage(self) -> StorageProtocol:
        """Return a storage. It may hold data of other tests: no two tests use the same key."""
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        """Move the storage's clock forward by a number of seconds."""
        await asyncio.sleep(seconds)

    def _run(self, scenario: Callable[[StorageProtocol], Awaitable[None]]) -> None:
        async def with_storage() -> None:
            storage = await self.make_storage()
            try:
                await scenario(storage)
            finally:
                await storage.aclose()

        asyncio.run(with_storage())


def new_key() -> str:
    """Return a key that no other test uses."""
    return f"contract:{uuid.uuid4().hex}"


def request_of(rule: RateLimitRule, key: str | None = None, *, cost: int = 1) -> BucketRequest:
    """Return a request of so many tokens."""
    return BucketRequest(key or new_key(), rule.spec, cost * rule.spec.units_per_token)


def tokens_in(request: BucketRequest, bucket_level: BucketLevel) -> int:
    """Return a level in whole tokens."""
    return bucket_level.level // request.spec.units_per_token


async def peeked(storage: StorageProtocol, *requests: BucketRequest) -> list[int]:
    """Return the whole tokens in some buckets."""
    return list(map(tokens_in, requests, await storage.peek(requests)))


async def refunded(storage: StorageProtocol, request: BucketRequest) -> list[int]:
    """Refund, and return the whole tokens in the bucket."""
    return list(map(tokens_in, [request], await storage.refund([request])))


def wait_of(request: BucketRequest, bucket_level: BucketLevel) -> float:
    """Return the seconds that the client of a denied request is told to wait."""
    answer = result(request.spec, request.cost_units, bucket_level.level, bucket_level.effective_in_us, allowed=False)
    return ceil(answer.retry_after * 1_000_000) / 1_000_000
