"""A storage for both faces that is away."""

from collections.abc import Sequence

from sluicegate import MemoryStorage, StorageError
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict


class DownStorage(MemoryStorage):
    """Raise what a refused connection raises."""

    def take_nowait(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Raise it."""
        raise StorageError("connection")
