"""Count the calls in flight and the reserved tokens of this process."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final, TypeAlias

from sluicegate.application.metrics.catalogue import ACTIVE_LEASES, LEASE_DURATION, RESERVED, Metric
from sluicegate.application.metrics.meter_sink import MeterSink
from sluicegate.domain.events import RateLimitClaimed, RateLimitClaimExtended, RateLimitClaimSettled
from sluicegate.domain.protocols import SubscribableBus
from sluicegate.domain.rules.rule_names import RuleNames
from sluicegate.runtime.mutex import fork_count, held_here, new_mutex

_Key: TypeAlias = tuple[int, str, str, str]
"""The number of a claim, its endpoint, its rule and its identifier: reservations that were made together have one number."""

MAX_CLAIMS: Final = 100_000
"""How many claims are followed at a time, in about 50 MB."""

_SLACK: Final = 64


class _OpenClaim:
    __slots__ = ("cost", "ends_us", "in_flight", "since_us")

    def __init__(self, cost: int, since_us: int, ends_us: int, *, in_flight: bool) -> None:
        self.cost = cost
        self.since_us = since_us
        self.ends_us = ends_us
        self.in_flight = in_flight


class OpenClaims:
    """Follow claims from their beginning to the settlement, or to their end.

    A claim that another process settles is counted here until it expires: the storage does not publish settlements.

    Args:
        names: The names of the rules in force.
        sink: Keeps how long calls were in flight.
        now_us: A monotonic clock, in microseconds.
        max_claims: How many claims are followed at a time, at least 1; of those beyond, each is counted in `overlooked` alone.
    """

    def __init__(
        self, names: RuleNames, sink: MeterSink, now_us: Callable[[], int], *, max_claims: int = MAX_CLAIMS
    ) -> None:
        self._names = names
        self._sink = sink
        self._now_us = now_us
        self._max_claims = max_claims
        self._mutex = new_mutex()
        self._seen: set[tuple[str, str, bool]] = set()
        self.overlooked = 0
        """How many events about claims were not followed, because there were too many claims or another one was being noted."""
        self._begin()

    def _begin(self) -> None:
        self._fork = fork_count()
        self._open: dict[_Key, _OpenClaim] = {}
        self._ends: list[
            tuple[int, _Key]
        ] = []  # a heap of when claims end, or ended, or would have before they were extended

    def subscribe(self, bus: SubscribableBus) -> None:
        """Listen to a bus."""
        bus.subscribe(RateLimitClaimed, self._note)
        bus.subscribe(RateLimitClaimExtended, self._note)
        bus.subscribe(RateLimitClaimSettled, self._note)

    def read(self) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
        """Return how many calls are in flight and how many tokens are reserved, by rule; 0 of rules that had some before."""
        totals: dict[tuple[Metric, tuple[str, ...]], int] = {}
        with self._mutex:
            self._check_fork()
            self._forget_those_that_are_over(self._now_us())
            for endpoint, policy, in_flight in list(self._seen):
                if self._names.labels(endpoint, policy) == (endpoint, policy):
                    totals[ACTIVE_LEASES if in_flight else RESERVED, (endpoint, policy)] = 0
                else:  # the rules have changed since
                    self._seen.discard((endpoint, policy, in_flight))
            for (_, endpoint, policy, _), claim in self._open.items():
                metric = ACTIVE_LEASES if claim.in_flight else RESERVED
                key = metric, self._names.labels(endpoint, policy)
                totals[key] = totals.get(key, 0) + claim.cost
        for (metric, labels), total in totals.items():
            yield metric, labels, total

    def _note(self, event: RateLimitClaimed | RateLimitClaimExtended | RateLimitClaimSettled) -> None:
        if held_here(self._mutex):  # a signal handler or a finaliser in the midst of a call here
            self.overlooked += 1
            return
        key = event.claim, event.endpoint, event.rule, event.identifier
        now_us = self._now_us()
        duration_us = None
        with self._mutex:
            self._check_fork()
            if isinstance(event, RateLimitClaimed):
                self._follow(key, event, now_us)
            elif isinstance(event, RateLimitClaimSettled):
                claim = self._open.pop(key, None)
                if claim is not None and claim.in_flight:
                    duration_us = now_us - claim.since_us
            elif (claim := self._open.get(key)) is not None:
                claim.ends_us = max(claim.ends_us, now_us + round(event.expires_in * 1e6))
        if duration_us is not None:
            self._sink.record(LEASE_DURATION, self._names.labels(event.endpoint, event.rule), duration_us / 1e6)

    # All below are called with the lock held.

    def _check_fork(self) -> None:
        if self._fork != fork_count():  # what the parent has begun, the parent counts
            self._begin()

    def _follow(self, key: _Key, event: RateLimitClaimed, now_us: int) -> None:
        self._forget_those_that_are_over(now_us)
        if len(self._open) >= self._max_claims:
            self.overlooked += 1
            return
        ends_us = now_us + round(event.expires_in * 1e6)
        if len(self._ends) > 2 * len(self._open) + _SLACK:  # most of its claims were settled long before their end
            self._ends = sorted((claim.ends_us, open_key) for open_key, claim in self._open.items())
        heappush(self._ends, (ends_us, key))  # before it is open, so that nothing is open that never ends
        self._open[key] = _OpenClaim(event.cost, now_us, ends_us, in_flight=event.in_flight)
        self._seen.add((event.endpoint, event.rule, event.in_flight))

    def _forget_those_that_are_over(self, now_us: int) -> None:
        while self._ends and self._ends[0][0] <= now_us:
            _, key = heappop(self._ends)
            claim = self._open.get(key)
            if claim is None:
                continue
            if claim.ends_us > now_us:
                heappush(self._ends, (claim.ends_us, key))
            else:
                del self._open[key]
