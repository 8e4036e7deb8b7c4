"""Denials that are still true: a bucket that was short of a cost stays short of it until enough has flowed in.

Until then the answer is known without asking the server, whose part in a flood is one check a second for each client.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, TypeAlias

import msgspec

from sluicegate.domain.protocols import Clock
from sluicegate.domain.token_bucket import Demand, Reading, Verdict, accrue, wait_us
from sluicegate.runtime.system_clock import SystemClock

MAX_DENIALS = 10_000
"""Most denials that are remembered: some four megabytes. The oldest is forgotten first, and asked for again."""

MAX_AGE_US = 1_000_000
"""The longest that a denial is believed: what another process resets or refunds shows within a second everywhere."""

Asked: TypeAlias = tuple[int, int]
"""When the server was asked, and how much had been forgotten by then; see `DenialMemo.asked`."""


class _Denial(msgspec.Struct, frozen=True, gc=False):
    demands: tuple[Demand, ...]
    readings: tuple[Reading, ...]
    read_us: int  # the reply's instant, from which the client was told to wait
    until_us: int


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

    __slots__ = ("_forgotten", "_lock", "_max_denials", "_now_us", "_of_one", "_of_several")

    def __init__(self, *, clock: Clock | None = None, max_denials: int = MAX_DENIALS) -> None:
        self._now_us = (clock or SystemClock()).now_us
        self._max_denials = max_denials
        self._of_one: dict[str, _Denial] = {}
        self._of_several: dict[tuple[str, ...], _Denial] = {}
        self._forgotten = 0
        self._lock = Lock()

    def recall(self, demands: Sequence[Demand]) -> Verdict | None:
        """Return the denial of these demands as it is now; None if the server must be asked.

        Args:
            demands: What would be asked. Costs above those that were denied are denied as well, lower ones are not known of.
        """
        if len(demands) == 1:
            denial = self._of_one.get(demands[0].key) if self._of_one else None
        else:
            denial = self._of_several.get(_keys(demands)) if self._of_several else None
        if denial is None:
            return None
        now_us = self._now_us()
        if now_us >= denial.until_us:
            return None
        elapsed_us = now_us - denial.read_us
        readings: list[Reading] = []
        for at, before in enumerate(denial.demands):
            demand = demands[at]
            shape = demand.shape
            if demand.cost_units < before.cost_units or shape is not before.shape:
                return None
            reading = denial.readings[at]
            # In ticks since the instant at which the reading held.
            since_us = elapsed_us - reading.lead_us
            level, tick = accrue(shape, reading.level, 0, since_us)
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
                with self._lock:
                    self._drop(demands)
            return
        asked_us, forgotten = asked
        waits_us = [
            wait_us(demand.shape, demand.cost_units, reading.level, reading.lead_us)
            for demand, reading in zip(demands, verdict.readings, strict=True)
            if reading.level < demand.cost_units
        ]
        until_us = asked_us + min(MAX_AGE_US, max(waits_us))
        denial = _Denial(tuple(demands), verdict.readings, self._now_us(), until_us)
        with self._lock:
            if forgotten != self._forgotten:
                return
            self._drop(demands)  # so that the order is that of age
            if len(self) >= self._max_denials:
                oldest: dict[Any, _Denial] = self._of_one or self._of_several
                del oldest[next(iter(oldest))]
            if len(demands) == 1:
                self._of_one[demands[0].key] = denial
            else:
                self._of_several[_keys(demands)] = denial

    def forget(self, demands: Sequence[Demand]) -> None:
        """Forget all denials that one of these buckets has a part in: its level has been raised."""
        with self._lock:
            self._forgotten += 1
            keys = {demand.key for demand in demands}
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
