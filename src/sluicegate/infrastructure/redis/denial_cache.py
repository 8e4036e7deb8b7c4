"""Denials that are still true: a bucket that was short of a cost stays short of it until enough has flowed in.

Until then the answer is known without asking the server, whose part in a flood is one check a second for each client.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from sluicegate.domain.bucket_at_hand import Denial, DenialsAtHand
from sluicegate.domain.bucket_request import Demand, Reading, Verdict
from sluicegate.domain.protocols import Clock
from sluicegate.domain.token_bucket import accrue, wait_us
from sluicegate.runtime.system_clock import SystemClock
from sluicegate.runtime.turn import Turn

MAX_DENIALS = 10_000
"""Most denials that are remembered: some three megabytes. The oldest is forgotten first, and asked for again."""

MAX_AGE_US = 1_000_000
"""The longest that a denial is believed: what another process resets or refunds shows within a second everywhere."""

Asked: TypeAlias = tuple[int, int]
"""When the server was asked, and how much had been forgotten by then; see `DenialMemo.asked`."""


class DenialMemo:
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
        """Denials of single demands, for who works with them in place."""

    def recall(self, demands: Sequence[Demand]) -> Verdict | None:
        """Return the denial of these demands as it is now; None if the server must be asked.

        Args:
            demands: What would be asked. Costs above those that were denied are denied as well, lower ones are not known of.
        """
        denials: tuple[Denial, ...] | None
        if len(demands) == 1:
            one = self._of_one.get(demands[0].key)
            denials = None if one is None else (one,)
        else:
            denials = self._of_several.get(_keys(demands)) if self._of_several else None
        if denials is None:
            return None
        now_us = self._now_us()
        if now_us >= denials[0].until_us:
            return None
        readings: list[Reading] = []
        for at, denial in enumerate(denials):
            if demands[at].cost_units < denial.cost_units or demands[at].shape is not denial.shape:
                return None
            shape = denial.shape
            # In ticks since the instant at which the reading held.
            since_us = now_us - denial.held_us
            level, tick = accrue(shape, denial.level, 0, since_us)
            readings.append(Reading(level, tick * shape.tick_us - since_us))
        return Verdict(allowed=False, readings=tuple(readings))

    def asked(self) -> Asked:
        """Return what `learn` needs to know of the moment before the server is asked."""
        return self._now_us(), self._forgotten

    def learn(self, demands: Sequence[Demand], verdict: Verdict, asked: Asked) -> None:
        """Take note of what the server answered.

        Args:
            demands: What it was asked.
            verdict: What it answered.
            asked: What `asked` returned before. Whatever was forgotten since then may be newer than the answer, which is
                not remembered in that case.
        """
        if verdict.allowed:
            if self._of_one or self._of_several:
                self._turn.during(self._drop, demands)
            return
        asked_us, forgotten = asked
        waits_us = [
            wait_us(demand.shape, demand.cost_units, reading.level, reading.lead_us)
            for demand, reading in zip(demands, verdict.readings, strict=True)
            if reading.level < demand.cost_units
        ]
        until_us = asked_us + min(MAX_AGE_US, max(waits_us))
        now_us = self._now_us()
        denials = tuple(
            [
                Denial(demand.shape, demand.cost_units, reading.level, now_us + reading.lead_us, until_us)
                for demand, reading in zip(demands, verdict.readings, strict=True)
            ]
        )
        self._turn.during(self._note, demands, denials, forgotten)

    def forget(self, demands: Sequence[Demand]) -> None:
        """Forget all denials that one of these buckets has a part in: its level has been raised."""
        self._turn.during(self._forget, {demand.key for demand in demands})

    def _note(self, demands: Sequence[Demand], denials: tuple[Denial, ...], forgotten: int) -> None:
        if forgotten != self._forgotten:
            return
        self._drop(demands)  # so that the order is that of age
        if len(self) >= self._max_denials:
            oldest: dict[Any, Any] = self._of_one or self._of_several
            del oldest[next(iter(oldest))]
        if len(demands) == 1:
            self._of_one[demands[0].key] = denials[0]
        else:
            self._of_several[_keys(demands)] = denials

    def _forget(self, keys: set[str]) -> None:
        self._forgotten += 1
        for key in keys:
            self._of_one.pop(key, None)
        for several in [several for several in self._of_several if not keys.isdisjoint(several)]:
            del self._of_several[several]

    def _drop(self, demands: Sequence[Demand]) -> None:
        if len(demands) == 1:
            self._of_one.pop(demands[0].key, None)
        else:
            self._of_several.pop(_keys(demands), None)

    def __len__(self) -> int:
        return len(self._of_one) + len(self._of_several)

    def __repr__(self) -> str:
        return f"DenialMemo(denials={len(self)})"


def _keys(demands: Sequence[Demand]) -> tuple[str, ...]:
    return tuple([demand.key for demand in demands])
