"""Cache denials: a bucket that is short of a cost stays short of it until enough has flowed in.

Until then the answer is known without asking the server, which sees one check a second for each client of a flood.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from mypy_extensions import mypyc_attr

from sluicegate.domain.buckets.bucket_key import key_bytes
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.token_bucket import refill, wait_us
from sluicegate.domain.protocols import Clock
from sluicegate.runtime.mutex import new_mutex
from sluicegate.runtime.system_clock import reader_ns

MAX_DENIALS: Final = 10_000
"""Most denials that are cached."""

MAX_BYTES: Final = 8 * 2**20
"""About how much memory they take at most. Beyond either bound the oldest is dropped, and its check asked for again."""

MAX_AGE_US: Final = 1_000_000
"""The longest that a denial is believed, so that what another process resets or refunds shows within a second everywhere."""

MAX_AGE_OF_RESERVED_US: Final = 100_000
"""The same where somebody has reserved tokens of a bucket, or holds it: what comes back shows within a tenth of a second."""

_MAX_RAISED: Final = 1_000
_BYTES_OF_ONE: Final = 400  # of a denial of one bucket, without its key

Key: TypeAlias = str | tuple[str, ...]
Begun: TypeAlias = tuple[int, int]
"""When a question was asked, and the number of the last `forget` before it; see `DenialCache.begin`."""


@mypyc_attr(acyclic=True)  # it is in no reference cycle: the garbage collector need not look at it
class KnownDenial:
    """A check that the server denied.

    Args:
        requests: What was asked.
        levels: What was in each bucket.
        told_us: When the reply arrived, from which the client was told to wait.
        until_us: Until when it is repeated.
        may_rise: Whether somebody has reserved tokens; see `Verdict`.
        asked_after: The number of the last `forget` before the question.
        size: About how many bytes this takes.
    """

    __slots__ = ("asked_after", "levels", "may_rise", "requests", "size", "told_us", "until_us")

    def __init__(  # noqa: PLR0913, PLR0917 - one record, built in one place
        self,
        requests: tuple[BucketRequest, ...],
        levels: tuple[BucketLevel, ...],
        told_us: int,
        until_us: int,
        asked_after: int,
        size: int,
        may_rise: bool,
    ) -> None:
        self.requests = requests
        self.levels = levels
        self.told_us = told_us
        self.until_us = until_us
        self.asked_after = asked_after
        self.size = size
        self.may_rise = may_rise


class DenialCache:
    """Cache what the server denied, and deny again as long as the server could not answer otherwise.

    The server read its buckets at some instant between the question and the reply. Counted from the question, no check is
    denied here after the instant from which the server would let it pass. Counted from the reply, a wait that is told here ends
    at the same instant as the one that the server's own answer told. Between the two instants the server is asked.

    What other processes take meanwhile makes a bucket emptier, which never makes a denial wrong. Tokens that another process
    puts back, with a reset, a refund or a returned lease, are seen a second later at most. Safe to share between threads.

    Args:
        clock: A monotonic clock; None: the process's.
        max_denials: Most denials that are cached, at least 1.
        max_bytes: About how much memory they take at most.
    """

    def __init__(
        self, *, clock: Clock | None = None, max_denials: int = MAX_DENIALS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._now_ns: Callable[[], int] = reader_ns(clock)
        self._max_denials = max_denials
        self._max_bytes = max_bytes
        self._mutex = new_mutex()
        self._denials: OrderedDict[Key, KnownDenial] = OrderedDict()  # oldest first
        self._bytes = 0
        # Each `forget` has a number. A denial counts if it was asked for after the last `forget` of each of its keys: so a
        # `forget` of a key that many checks share is one step. Of keys that are not kept, `_floor` is the last `forget`.
        self._forgets = 0
        self._floor = 0
        self._raised: OrderedDict[str, int] = OrderedDict()
        self.repeated = 0
        """How many checks were denied without asking the server."""

    def lookup(self, requests: Sequence[BucketRequest]) -> Verdict | None:
        """Return the denial of a check with the levels as they are now; None if the server must be asked.

        Args:
            requests: The check. It is denied for the cost that was denied and for higher ones; of lower ones nothing is known.
        """
        if not self._denials:
            return None
        denial = self._denials.get(_key(requests))
        if denial is None:
            return None
        now_us = self._now_us()
        if now_us >= denial.until_us:
            return None
        levels: list[BucketLevel] = []
        for at, request in enumerate(requests):
            denied = denial.requests[at]
            spec = denied.spec
            if request.cost_units < denied.cost_units or request.spec.text != spec.text:
                return None
            if self._raised_since(request.key, denial.asked_after):
                return None
            then = denial.levels[at]
            if denial.may_rise:  # the refill is not all that decides when the level is effective
                levels.append(BucketLevel(then.level, then.effective_in_us - (now_us - denial.told_us)))
                continue
            # In ticks since the instant at which the server's level held.
            elapsed_us = now_us - denial.told_us - then.effective_in_us
            level, tick = refill(spec, then.level, 0, elapsed_us)
            levels.append(BucketLevel(level, tick * spec.tick_us - elapsed_us))
        self.repeated += 1
        return Verdict(allowed=False, levels=tuple(levels), may_rise=denial.may_rise)

    def begin(self) -> Begun:
        """Return what `store` needs to know of the moment before the server is asked."""
        return self._now_us(), self._forgets

    def store(self, requests: Sequence[BucketRequest], verdict: Verdict, begun: Begun) -> None:
        """Cache the server's denial; if it allowed the check, drop what was cached of it.

        Args:
            requests: What the server was asked.
            verdict: What it answered.
            begun: What `begin` returned before. An answer about a bucket that was forgotten since then may be out of date, and is
                not cached.
        """
        key = _key(requests)
        if verdict.allowed:
            if key in self._denials:
                with self._mutex:
                    self._drop(key)
            return
        asked_us, asked_after = begun
        longest_us = 0
        size = _BYTES_OF_ONE * len(requests)
        for at, request in enumerate(requests):
            level = verdict.levels[at]
            size += key_bytes(request.key)
            if level.level < request.cost_units:
                wait = wait_us(request.spec, request.cost_units, level.level, level.effective_in_us)
                longest_us = max(longest_us, wait)
        now_us = self._now_us()
        until_us = asked_us + min(MAX_AGE_OF_RESERVED_US if verdict.may_rise else MAX_AGE_US, longest_us)
        if now_us >= until_us:
            return
        denial = KnownDenial(tuple(requests), verdict.levels, now_us, until_us, asked_after, size, verdict.may_rise)
        with self._mutex:
            for request in requests:
                if self._raised_since(request.key, asked_after):
                    return
            self._drop(key)  # so that the order is that of age
            self._denials[key] = denial
            self._bytes += size
            while len(self._denials) > self._max_denials or self._bytes > self._max_bytes:
                _, oldest = self._denials.popitem(last=False)
                self._bytes -= oldest.size

    def forget(self, requests: Sequence[BucketRequest]) -> None:
        """Forget all denials in which one of these buckets has a part: its level has been raised."""
        with self._mutex:
            self._forgets += 1
            for request in requests:
                self._raised[request.key] = self._forgets  # in one step, because `lookup` takes no lock
                self._raised.move_to_end(request.key)
                if len(self._raised) > _MAX_RAISED:
                    self._floor = next(iter(self._raised.values()))  # before the key goes, for the same reason
                    self._raised.popitem(last=False)

    def forget_all(self) -> None:
        """Forget all denials: any bucket's level may have been raised."""
        with self._mutex:
            self._forgets += 1
            self._floor = self._forgets  # before the rest goes, because `lookup` takes no lock
            self._raised.clear()
            self._denials.clear()
            self._bytes = 0

    def _now_us(self) -> int:
        return self._now_ns() // 1000

    def _raised_since(self, key: str, asked_after: int) -> bool:
        if self._forgets == asked_after:
            return False
        return self._raised.get(key, self._floor) > asked_after

    def _drop(self, key: Key) -> None:
        dropped = self._denials.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.size

    def __len__(self) -> int:
        return len(self._denials)

    def __repr__(self) -> str:
        return f"DenialCache(denials={len(self)})"


def _key(requests: Sequence[BucketRequest]) -> Key:
    if len(requests) == 1:
        return requests[0].key
    return tuple([request.key for request in requests])
