"""What one process counts and is, in plain values that another process can read."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

import msgspec

from sluicegate.application.hot_keys import HotKeys
from sluicegate.application.live.hot_list import HotList, hot_lists
from sluicegate.application.metrics.catalogue import DURATION
from sluicegate.application.metrics.limiter_state import Limiter
from sluicegate.application.metrics.meter import measure
from sluicegate.application.metrics.meter_store import MeterStore
from sluicegate.application.rules.operator_changes import OverrideState, SwitchState, override_states, switch_states
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.domain.storage_figures import StorageFigures
from sluicegate.runtime.system_clock import SystemClock, utc_now

Identifiers: TypeAlias = Literal["off", "hashed", "raw"]
"""How the hottest clients are shown, if they are."""

Number: TypeAlias = tuple[str, tuple[str, ...], float]
"""The name of a metric, the values of its labels, and its own."""


class RulesFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one process.

    Args:
        version: Their version.
        last_error: Why others were refused the last time; empty once others came into force.
        named: The rules with a name of their own, which can be switched off.
        switched_off: The kill switches that are thrown.
        overrides: Those that operators added.
        overrides_of_rules: How many stand in the rules themselves.
    """

    version: str
    last_error: str
    named: list[str]
    switched_off: list[SwitchState]
    overrides: list[OverrideState]
    overrides_of_rules: int


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one process counted since it began, and what it is now.

    Args:
        worker: Its name.
        started: When it began.
        read_us: When this was read, by a monotonic clock of its own.
        numbers: Counters and gauges.
        durations: How many checks took how long, by their result; the bins are those of the metric.
        rules: The rules in force.
        storage: The class of its storage.
        storage_fault: Why that does not answer, in one word; None: it does.
        identifiers: How clients are shown.
        asked: The keys with the most requests; None if they are not counted.
        denied: The keys with the most denials; None if they are not counted.
    """

    worker: str
    started: datetime
    read_us: int
    numbers: list[Number]
    durations: dict[str, list[int]]
    rules: RulesFigures
    storage: str
    storage_fault: str | None
    identifiers: Identifiers
    asked: HotList | None = None
    denied: HotList | None = None


class WatchedLimiter(Limiter, Protocol):
    """A limiter whose storage can be asked whether it answers."""

    async def storage_fault(self) -> str | None:
        """Return why the storage does not answer; None if it does."""
        ...


class WorkerMeter:
    """Count what a limiter does in this process.

    Args:
        limiter: The limiter.
        bus: The bus that it was given.
        figures_of: Returns the figures of a storage; None: it has none.
        hot_keys: The hottest keys; None if they are not counted.
        worker: The name of this process.
    """

    def __init__(
        self,
        limiter: WatchedLimiter,
        bus: SubscribableBus,
        figures_of: Callable[[object], StorageFigures | None],
        hot_keys: HotKeys | None = None,
        worker: str = "0",
    ) -> None:
        self.worker = worker
        """The name of this process."""
        self._limiter = limiter
        self._hot_keys = hot_keys
        self._store = MeterStore()
        self._clock = SystemClock()
        self._started = utc_now()
        self._state = measure(limiter, bus, self._store, figures_of)

    async def read(self) -> WorkerFigures:
        """Return the figures of this moment."""
        fault = await self._limiter.storage_fault()
        rules, hot = self._limiter.rules, self._hot_keys
        numbers: list[Number] = list(self._store.counters())
        numbers += [(metric.name, labels, value) for metric, labels, value in self._state.read()]
        asked, denied = (None, None) if hot is None else hot_lists(hot)
        return WorkerFigures(
            worker=self.worker,
            started=self._started,
            read_us=self._clock.now_us(),
            numbers=numbers,
            durations={labels[0]: bins for labels, bins in self._store.bins(DURATION).items()},
            rules=RulesFigures(
                version=rules.version,
                last_error=rules.last_error,
                named=sorted(rules.book.policies),
                switched_off=switch_states(rules.switched_off),
                overrides=override_states(rules.added_overrides),
                overrides_of_rules=len(rules.book.overrides),
            ),
            storage=type(self._limiter.storage).__name__,
            storage_fault=fault,
            identifiers="off" if hot is None else "raw" if hot.raw_identifiers else "hashed",
            asked=asked,
            denied=denied,
        )


ReadWorkers: TypeAlias = Callable[[], Awaitable[list[WorkerFigures]]]
"""Returns the figures of the processes that answer, this one first."""
