"""What a storage implements, gets and returns; `sluicegate.testing.StorageContract` tests one."""

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.errors import StorageError
from sluicegate.domain.protocols import StorageProtocol, SyncStorageProtocol

__all__ = [
    "BucketLevel",
    "BucketRequest",
    "BucketSpec",
    "StorageError",
    "StorageProtocol",
    "SyncStorageProtocol",
    "Verdict",
]
