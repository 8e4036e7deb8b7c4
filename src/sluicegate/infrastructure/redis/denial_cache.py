"""Denials that are still true: a bucket that was short of a cost stays short of it until enough has flowed in.

Until then the answer is known without asking the server, whose part in a flood is one check a second for each client.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from sluicegate.domain.bucket_at_hand import Denial, DenialsAtHand
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.protocols import Clock
from sluicegate.domain.token_bucket import refill, wait_us
from sluicegate.runtime.system_clock import SystemClock
from sluicegate.runtime.turn import Turn

MAX_DENIALS = 10_000
"""Most denials that are remembered: some three megabytes. The oldest is forgotten first, and asked for again."""

MAX_AGE_US = 1_000_000
"""The longest that a denial is believed: what another process resets or refunds shows within a second everywhere."""

Asked: TypeAlias = tuple[int, int]
"""When the server was asked, and how much had been forgotten by then; see `DenialCache.asked`."""


class DenialCache:
    """Remember what a server denied, and answer for it while the answer cannot be another one.

    The server read its buckets at some instant between the question and the reply. Counted from the question, nobody is
    denied here after the instant from which the server would let pass. Counted from the reply, a wait that is told here ends
    at the same instant as the one that the server's own answer told. Between the two the server is asked.

    What other processes take meanwhile makes a bucket emptier, never a denial wrong. Safe to share between threads.

    Args:
        clock: A clock that is monotonic; the process's if None.
        max_denials: Most denials that are remembered, at least 1.
    """

    __slots__ = ("_forgotten", "_max_denials", "_now_us", "_of_one", "_of_several", "_turn", "at_hand")

    def __init__(self, *, clock: Clock | None = None, max_denials: int = MAX_DENIALS) -> None:
        clock = clock or SystemClock()
        self._now_us = clock.now_us
        self._max_denials = max_denials
        self._of_one: dict[str, Denial] = {}
        self._of_several: dict[tuple[str, ...], tuple[Denial, ...]] = {}
        self._forgotten = 0
        self._turn = Turn()
        read, per_us = (clock.read, clock.per_us) if type(clock) is SystemClock else (clock.now_us, 1)
        self.at_hand = DenialsAtHand(self._of_one.get, read, per_us)
        """Denials of single requests, for who works with them in place."""

    def recall(self, requests: Sequence[BucketRequest]) -> Verdict | None:
        """Return the denial of these requests as it is now; None if the server must be asked.

        Args:
            requests: What would be asked. Costs above those that were denied are denied as well, lower ones are not known of.
        """
        denials: tuple[Denial, ...] | None
        if len(requests) == 1:
            one = self._of_one.get(requests[0].key)
            denials = None if one is None else (one,)
        else:
            denials = self._of_several.get(_keys(requests)) if self._of_several else None
        if denials is None:
            return None
        now_us = self._now_us()
        if now_us >= denials[0].until_us:
            return None
        levels: list[BucketLevel] = []
        for at, denial in enumerate(denials):
            if requests[at].cost_units < denial.cost_units or requests[at].spec is not denial.spec:
                return None
            spec = denial.spec
            # In ticks since the instant at which the reading held.
            since_us = now_us - denial.held_us
            level, tick = refill(spec, denial.level, 0, since_us)
            levels.append(BucketLevel(level, tick * spec.tick_us - since_us))
        return Verdict(allowed=False, levels=tuple(levels))

    def asked(self) -> Asked:
        """Return what `learn` needs to know of the moment before the server is asked."""
        return self._now_us(), self._forgotten

    def learn(self, requests: Sequence[BucketRequest], verdict: Verdict, asked: Asked) -> None:
        """Take note of what the server answered.

        Args:
            requests: What it was asked.
            verdict: What it answered.
            asked: What `asked` returned before. Whatever was forgotten since then may be newer than the answer, which is
                not remembered in that case.
        """
        if verdict.allowed:
            if self._of_one or self._of_several:
                self._turn.during(self._drop, requests)
            return
        asked_us, forgotten = asked
        waits_us = [
            wait_us(request.spec, request.cost_units, bucket_level.level, bucket_level.effective_in_us)
            for request, bucket_level in zip(requests, verdict.levels, strict=True)
            if bucket_level.level < request.cost_units
        ]
        until_us = asked_us + min(MAX_AGE_US, max(waits_us))
        now_us = self._now_us()
        denials = tuple(
            [
                Denial(
                    request.spec,
                    request.cost_units,
                    bucket_level.level,
                    now_us + bucket_level.effective_in_us,
                    until_us,
                )
                for request, bucket_level in zip(requests, verdict.levels, strict=True)
            ]
        )
        self._turn.during(self._note, requests, denials, forgotten)

    def forget(self, requests: Sequence[BucketRequest]) -> None:
        """Forget all denials that one of these buckets has a part in: its level has been raised."""
        self._turn.during(self._forget, {request.key for request in requests})

    def _note(self, requests: Sequence[BucketRequest], denials: tuple[Denial, ...], forgotten: int) -> None:
        if forgotten != self._forgotten:
            return
        self._drop(requests)  # so that the order is that of age
        if len(self) >= self._max_denials:
            oldest: dict[Any, Any] = self._of_one or self._of_several
            del oldest[next(iter(oldest))]
        if len(requests) == 1:
            self._of_one[requests[0].key] = denials[0]
        else:
            self._of_several[_keys(requests)] = denials

    def _forget(self, keys: set[str]) -> None:
        self._forgotten += 1
        for key in keys:
            self._of_one.pop(key, None)
        for several in [several for several in self._of_several if not keys.isdisjoint(several)]:
            del self._of_several[several]

    def _drop(self, requests: Sequence[BucketRequest]) -> None:
        if len(requests) == 1:
            self._of_one.pop(requests[0].key, None)
        else:
            self._of_several.pop(_keys(requests), None)

    def __len__(self) -> int:
        return len(self._of_one) + len(self._of_several)

    def __repr__(self) -> str:
        return f"DenialCache(denials={len(self)})"


def _keys(requests: Sequence[BucketRequest]) -> tuple[str, ...]:
    return tuple([request.key for request in requests])
