"""What a storage implements, gets and returns, and the arithmetic of a bucket; `sluicegate.testing.StorageContract` tests one."""

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.token_bucket import anchor_after_payment, convert, full_at_us, refill
from sluicegate.domain.errors import StorageError
from sluicegate.domain.protocols import (
    DeadlineStorage,
    NamelessStorage,
    NonBlockingStorage,
    ReservationStorage,
    ResettableStorage,
    StorageProtocol,
    StorageTraits,
    SyncReservationStorage,
    SyncResettableStorage,
    SyncStorageProtocol,
)

__all__ = [
    "BucketLevel",
    "BucketRequest",
    "BucketSettlement",
    "BucketSpec",
    "ClaimTerms",
    "DeadlineStorage",
    "NamelessStorage",
    "NonBlockingStorage",
    "ReservationStorage",
    "ResettableStorage",
    "StorageError",
    "StorageProtocol",
    "StorageTraits",
    "SyncReservationStorage",
    "SyncResettableStorage",
    "SyncStorageProtocol",
    "Verdict",
    "anchor_after_payment",
    "convert",
    "full_at_us",
    "refill",
]
