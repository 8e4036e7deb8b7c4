"""What is done with the buckets in this process's memory: exact, and without a clock or a lock of its own."""

from collections.abc import Sequence

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket import RESET, Bucket, level_of, pay
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.token_bucket import refill
from sluicegate.domain.claims.claimed_buckets import ClaimedBuckets
from sluicegate.domain.errors import StorageError


class BucketTable(ClaimedBuckets):
    """Pay from buckets, and give back. Not safe to share between threads without a lock.

    A signal handler or a finaliser may ask while its own thread is in the midst of a call here. It uses the methods with
    `_within`, which decide by what has been decided so far and write their decision into a log; the interrupted call, or the
    next one, sees to the log before it decides. This is exact because nothing can come between two steps that call nothing:
    the last look at the log and the decision's own entry, or its write into a bucket that is there already. What a call
    decided but an exception kept it from writing is written by the next one for the same reason.

    Claims are changed in place: an interruption that comes while they are, or that asks for a bucket with claims, is not decided.

    Args:
        max_keys: The greatest number of buckets held, at least 1; see `BucketStore`.
    """

    __slots__ = ()

    def take(self, requests: tuple[BucketRequest, ...], now_us: i64) -> Verdict:
        """Pay all requests at `now_us`, or none."""
        if len(requests) == 1:
            known = self._take_known(requests[0], now_us)
            if known is not None:
                return known
        if self._log:
            self._write_log(now_us)
        verdict = self._take_logged(requests, now_us)
        if verdict is None:
            return self._take_in_place(requests, (), 0, now_us)
        if self._log:
            self._write_log(now_us)
        return verdict

    def _take_known(self, request: BucketRequest, now_us: i64) -> Verdict | None:
        """Do what `take` does for a bucket that is there: most checks are such, and take half the time without the log."""
        spec = request.spec
        bucket = self._find(request.key)
        if bucket is None or bucket.spec is not spec or bucket.last == RESET or spec.tick_us != 1:
            return None
        if bucket.claims is not None:
            return None
        level, anchor = refill(spec, bucket.level, bucket.last, now_us)
        allowed = level >= request.cost_units
        if allowed:
            level -= request.cost_units
        if self._log:
            return None
        # No call from the line before to the writing: see the class.
        if allowed or anchor < bucket.last:
            bucket.level = level
            bucket.last = anchor
        return Verdict(allowed, (BucketLevel(level, anchor - now_us),))

    def take_within(self, requests: tuple[BucketRequest, ...], now_us: i64) -> Verdict:
        """Do what `take` does, in the midst of another call.

        Raises:
            StorageError: If claims are being changed, or a bucket has claims.
        """
        verdict = None if self._closed else self._take_logged(requests, now_us)
        if verdict is None:
            raise interrupting()
        return verdict

    def _take_logged(self, requests: tuple[BucketRequest, ...], now_us: i64) -> Verdict | None:
        """Decide, and write the decision into the log; None if a bucket has claims."""
        while True:
            version = self._version
            states: list[tuple[str, Bucket]] = []
            verdict = self._verdict(requests, now_us, states)
            if verdict is None or self._decide(states, version):
                return verdict

    def _verdict(
        self, requests: tuple[BucketRequest, ...], now_us: i64, states: list[tuple[str, Bucket]]
    ) -> Verdict | None:
        """Return what a check is told, and add to `states` what becomes of its buckets; None if one has claims."""
        if len(requests) == 1:
            request = requests[0]
            bucket = self._current(request.key)
            if bucket is not None and bucket.claims is not None:
                return None
            level, anchor = level_of(bucket, request.spec, now_us)
            allowed = level >= request.cost_units
            return Verdict(allowed, (pay(request, bucket, level, anchor, allowed, now_us, states),))
        allowed = True
        buckets: list[Bucket | None] = []
        for request in requests:
            bucket = self._current(request.key)
            if bucket is not None and bucket.claims is not None:
                return None
            level, _ = level_of(bucket, request.spec, now_us)
            if level < request.cost_units:
                allowed = False
            buckets.append(bucket)
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            bucket = buckets[at]
            level, anchor = level_of(bucket, request.spec, now_us)  # again: cheaper than to keep it in an object
            levels.append(pay(request, bucket, level, anchor, allowed, now_us, states))
        return Verdict(allowed, tuple(levels))

    def peek(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Return the levels at `now_us`; change nothing. The same in the midst of another call."""
        levels: list[BucketLevel] = []
        for request in requests:
            level, anchor = level_of(self._current(request.key), request.spec, now_us)
            levels.append(BucketLevel(level, anchor * request.spec.tick_us - now_us))
        return tuple(levels)

    def refund(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Put `cost_units` back into each bucket, never above its capacity."""
        if not self._any_claims(requests):
            levels = self.refund_within(requests, now_us)
            self._write_log(now_us)
            return levels
        return self._refund_in_place(requests, now_us)

    def refund_within(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Do what `refund` does, in the midst of another call.

        Raises:
            StorageError: If something is being changed in place, or a bucket has claims.
        """
        while True:
            version = self._version
            levels: list[BucketLevel] = []
            states: list[tuple[str, Bucket]] = []
            for request in requests:
                spec = request.spec
                bucket = self._plain(request.key)
                level, anchor = level_of(bucket, spec, now_us)
                if bucket is not None and bucket.last != RESET:
                    level = min(spec.capacity, level + request.cost_units)
                    states.append((request.key, Bucket(spec, level, anchor)))
                levels.append(BucketLevel(level, anchor * spec.tick_us - now_us))
            if self._decide(states, version):
                return tuple(levels)

    def reset(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Make each bucket full, and return the levels."""
        if not self._any_claims(requests):
            self.reset_within(requests, now_us)
            self._write_log(now_us)
            return self.peek(requests, now_us)
        self._reset_in_place(requests, now_us)
        return self.peek(requests, now_us)

    def _any_claims(self, requests: Sequence[BucketRequest]) -> bool:
        return any(
            (bucket := self._find(request.key)) is not None and bucket.claims is not None for request in requests
        )

    def reset_within(self, requests: Sequence[BucketRequest], now_us: i64) -> tuple[BucketLevel, ...]:
        """Do what `reset` does, in the midst of another call.

        Raises:
            StorageError: If something is being changed in place, or a bucket has claims.
        """
        while True:
            version = self._version
            states = [
                (request.key, Bucket(request.spec, request.spec.capacity, RESET))
                for request in requests
                if self._plain(request.key) is not None
            ]
            if self._decide(states, version):
                return self.peek(requests, now_us)

    # Interruptions

    def _plain(self, key: str) -> Bucket | None:
        """Return what `_current` does, for an interruption."""
        bucket = self._current(key)
        if self._closed or (bucket is not None and bucket.claims is not None):
            raise interrupting()
        return bucket


def interrupting() -> StorageError:
    """Return what is raised to an interruption that cannot be decided."""
    return StorageError("interrupted", "Asked in the midst of a call that changes claims; it cannot be decided.")
