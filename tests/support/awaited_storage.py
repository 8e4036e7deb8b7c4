"""A storage whose calls have to be awaited, as those of a server."""

from collections.abc import Sequence

from sluicegate import Clock, MemoryStorage
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.storage import StorageTraits
from sluicegate.testing import FakeClock


class AwaitedStorage:
    """Buckets in memory that are never decided at once. Override a verb to delay or to break it.

    Args:
        clock: What time decides; one that stands still if None.
    """

    traits = StorageTraits()

    def __init__(self, clock: Clock | None = None) -> None:
        self._memory = MemoryStorage(clock=clock or FakeClock())

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        return await self._memory.take(requests)

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels."""
        return await self._memory.peek(requests)

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back."""
        return await self._memory.refund(requests)

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        await self._memory.reset(requests)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""
