"""The embedded storage: buckets in this process, for one process, with no server at all."""

import asyncio
from collections.abc import Sequence

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_store import SHARDS
from sluicegate.domain.protocols import Clock
from sluicegate.infrastructure.locked_table import LockedTable

DEFAULT_MAX_KEYS = 1_000_000
_SHARDS_A_TURN = 8  # of the event loop


class MemoryStorage(LockedTable):
    """Keep buckets in memory. Safe to share between threads and event loops; each process has its own buckets.

    Args:
        clock: What time decides; the process's monotonic clock if None.
        max_keys: The greatest number of buckets held, at least 1; about 200 bytes each. Full buckets leave first. Together they
            take at most 296 bytes times `max_keys` (at least 1 MiB): clients with long identifiers leave room for fewer.

    Raises:
        InvalidInputError: If `max_keys` is below 1.
        InvalidTypeError: If it is not a whole number, or the clock is none.
    """

    def __init__(self, *, clock: Clock | None = None, max_keys: int = DEFAULT_MAX_KEYS) -> None:
        super().__init__(clock, max_keys)

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        return self.take_nowait(requests)

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels."""
        return self.peek_blocking(requests)

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        return self.refund_blocking(requests)

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        self.reset_blocking(requests)

    async def reset_all(self, prefixes: Sequence[str], /) -> None:
        """Make each bucket full whose name begins with one of some prefixes; other tasks run meanwhile."""
        for shard in range(SHARDS):
            self.reset_shard(shard, prefixes)
            if shard % _SHARDS_A_TURN == 0:
                await asyncio.sleep(0)

    async def reserve(self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /) -> Verdict:
        """Pay all requests or none, and note their claims."""
        return self.reserve_blocking(requests, number, terms)

    async def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        return self.settle_blocking(requests, number, max_debts)

    async def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        return self.extend_blocking(requests, number, ttls_us)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    def __repr__(self) -> str:
        return f"MemoryStorage(keys={len(self)}, max_keys={self.max_keys})"
