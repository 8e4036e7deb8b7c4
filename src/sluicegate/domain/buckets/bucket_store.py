"""Buckets in this process's memory, bounded: those that are full leave first. And decisions that are not in them yet."""

from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket import GONE, RESET, Bucket
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.expiry_queue import ExpiryQueue
from sluicegate.domain.buckets.token_bucket import full_at_us
from sluicegate.domain.claims.claimed_bucket import over_by_us

# A large dictionary stops everything when it grows: `benchmarks/small_parts.py` measures it.
SHARDS: Final = 256
"""In how many parts the buckets are kept."""

_SHARD_MASK: Final = SHARDS - 1

BYTES_A_KEY: Final = 296
"""How much memory there is for each of `max_keys` buckets: a key of 80 characters fits. Longer ones leave room for fewer."""

_LEAST_MAX_BYTES: Final = 1 << 20
# `benchmarks/small_parts.py` measures both: 218 and 244 bytes at most where nothing is compiled, 140 and 142 where it is.
_BYTES_BESIDE_KEY: Final = 216

BYTES_A_CLAIM: Final = 256
"""How much of that memory each claim on a bucket takes."""

_MAX_FREED: Final = 2  # full buckets that each new one replaces, so that memory shrinks after a flood
_MAX_LOOKS: Final = (
    16  # buckets looked at for that, and again where there is no room: what bounds the time of one check
)


class BucketStore:
    """Keep at most `max_keys` buckets; full ones, which equal absent ones, leave first.

    The time of each call is bounded, whatever there is.

    Args:
        max_keys: The greatest number of buckets held, at least 1. Where no bucket that was looked at is full, the one of them
            that would be full first is forgotten, which refills it.
    """

    __slots__ = (
        "_bytes",
        "_closed",
        "_expiry",
        "_log",
        "_max_bytes",
        "_max_keys",
        "_shards",
        "_size",
        "_version",
        "evicted_unfull",
    )

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._max_bytes = max(_LEAST_MAX_BYTES, max_keys * BYTES_A_KEY)
        self._shards: list[dict[str, Bucket]] = [{} for _ in range(SHARDS)]
        self._size = 0
        self._bytes = 0
        self._expiry = ExpiryQueue()
        self._log: list[list[tuple[str, Bucket]]] = []  # decisions that are not in the buckets yet; see `BucketTable`
        self._version: i64 = 0  # of the log
        self._closed = False  # while something is changed in place
        self.evicted_unfull = 0
        """How many buckets were forgotten before they were full."""

    def __len__(self) -> int:
        return self._size

    @property
    def size_bytes(self) -> int:
        """About how much memory the buckets take, with their keys and their claims."""
        return self._bytes

    def put(self, key: str, bucket: Bucket) -> None:
        """Add a bucket that is kept elsewhere, under a key that is not there. It is never forgotten."""
        self._shards[hash(key) & _SHARD_MASK][key] = bucket
        self._size += 1

    def get(self, key: str) -> Bucket | None:
        """Return a bucket; None: there is none, and it is full."""
        return self._find(key)

    def _find(self, key: str) -> Bucket | None:
        hashed: i64 = hash(key)  # compiled code would allocate two numbers for the same in one expression
        return self._shards[hashed & _SHARD_MASK].get(key)

    def _decide(self, states: list[tuple[str, Bucket]], version: i64) -> bool:
        """Write a decision into the log, unless it has changed since the decision was begun."""
        if self._version != version:
            return False
        if states:
            self._version = version + 1
            self._log.append(states)
        return True

    def _write_log(self, now_us: i64) -> None:
        """Write into the buckets what has been decided; twice if it was interrupted, which does no harm."""
        while self._log:
            for key, state in self._log[0]:
                self._write(key, self._find(key), state.spec, state.level, state.last, now_us)
            del self._log[0]

    def _close(self, now_us: i64) -> None:
        """Keep interruptions out, with nothing left in the log."""
        while True:
            self._write_log(now_us)
            self._closed = True
            if not self._log:
                return
            self._closed = False

    def _current(self, key: str) -> Bucket | None:
        """Return the latest decided state of a bucket; None if there is none, which means that it is full."""
        if self._log:
            for states in reversed(self._log):
                for decided, state in states:
                    if decided == key:
                        return state
        return self._find(key)

    def _write(  # noqa: PLR0913, PLR0917 - a state and its place
        self, key: str, bucket: Bucket | None, spec: BucketSpec, level: i64, last: i64, now_us: i64
    ) -> None:
        if bucket is None:
            size = _bytes_of(key)
            self._make_room(size, now_us)
            self._shards[hash(key) & _SHARD_MASK][key] = Bucket(spec, level, last)
            self._size += 1
            self._bytes += size
            self._expiry.add(key, full_at_us(spec, level, last), now_us)
            return
        if bucket.last == GONE:  # it has just made room for another bucket of the same check
            self._write(key, None, spec, level, last, now_us)
            return
        bucket.spec = spec
        bucket.level = level
        bucket.last = last

    def _make_room(self, size: i64, now_us: i64) -> None:
        """Forget some full buckets to make room for a new one; others only if the table has no room otherwise."""
        freed = 0
        for _ in range(_MAX_LOOKS):
            key = self._expiry.pop_due(now_us)
            if key is None:
                break
            full_us = self._full_at_us(key)
            if full_us > now_us:
                self._expiry.add(key, full_us, now_us)
                continue
            self._forget(key)
            freed += 1
            if freed == _MAX_FREED:
                break
        while self._size >= self._max_keys:
            self._evict(now_us)
        self._make_room_beside(size, now_us)

    def _make_room_beside(self, size: i64, now_us: i64) -> None:
        """Forget buckets until so many bytes more are within the bound."""
        while self._size and self._bytes + size > self._max_bytes:
            self._evict(now_us)

    def _count_claims(self, bucket: Bucket, before: i64) -> None:
        """Count the memory of a bucket's claims, of which there were some number before."""
        self._bytes += BYTES_A_CLAIM * (bucket.claim_count - before)

    def _evict(self, now_us: i64) -> None:
        """Forget the bucket that will be full first, of some that were expected to be."""
        victim = self._expiry.pop_first()
        victim_full_us = self._full_at_us(victim)
        others: list[tuple[str, int]] = []
        for _ in range(min(_MAX_LOOKS, self._size - 1)):
            if victim_full_us <= now_us:
                break
            key = self._expiry.pop_first()
            full_us = self._full_at_us(key)
            if full_us < victim_full_us:
                key, victim = victim, key
                full_us, victim_full_us = victim_full_us, full_us
            others.append((key, full_us))
        for key, full_us in others:
            self._expiry.add(key, full_us, now_us)
        self._forget(victim)
        if victim_full_us > now_us:
            self.evicted_unfull += 1

    def _forget(self, key: str) -> None:
        bucket = self._shards[hash(key) & _SHARD_MASK].pop(key)
        bucket.last = GONE
        self._size -= 1
        self._bytes -= _bytes_of(key) + BYTES_A_CLAIM * bucket.claim_count

    def _full_at_us(self, key: str) -> i64:
        bucket = self._shards[hash(key) & _SHARD_MASK][key]
        if bucket.claims is not None:
            return over_by_us(bucket.claims, bucket.spec, bucket.level, bucket.last)
        return 0 if bucket.last == RESET else full_at_us(bucket.spec, bucket.level, bucket.last)


def _bytes_of(key: str) -> i64:
    """Return about how much memory a bucket takes, with its key and its places in the dictionary and in the queue."""
    length: i64 = len(key)
    return _BYTES_BESIDE_KEY + (length if key.isascii() else 4 * length)
