"""Two hundred clients for ten minutes of virtual time, against an exact model with real numbers: nothing lost, nothing minted."""

import random
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count

import pytest

from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.claims.claim import AS_RESERVED, CHARGE, KEPT_US, NOT_FOUND, RELEASE
from sluicegate.domain.rules.rule import RateLimitRule

START_US = 1_000_000_000_000
SECOND_US = 1_000_000
CLIENTS = 200
MINUTES = 10
MAX_DEBT = 5_000


@dataclass
class Pending:
    """A reservation in the model: what it took, and what may come back of it."""

    number: int
    cost: Fraction
    back: Fraction
    ends_us: int
    kind: int
    over: bool = False
    given: Fraction = Fraction(0)


@dataclass
class Ledger:
    """A bucket as the textbook has it: real numbers, a real clock, and a list of what is reserved.

    Args:
        capacity: Tokens.
        per_us: Tokens that flow in per microsecond.
        max_debt: Tokens.
    """

    capacity: Fraction
    per_us: Fraction
    max_debt: Fraction
    level: Fraction = field(init=False)
    now_us: int = START_US
    pending: dict[int, Pending] = field(default_factory=dict)
    open: list[Pending] = field(default_factory=list)
    over: deque[int] = field(default_factory=deque)
    flowed_in: Fraction = Fraction(0)
    charged: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        self.level = self.capacity

    def note(self, one: Pending) -> None:
        """Keep what was reserved, in the order of the ends; of those that end together the one that came first is first."""
        self.pending[one.number] = one
        insort(self.open, one, key=lambda other: other.ends_us)

    def advance(self, now_us: int) -> None:
        """Let time pass, from end to end."""
        while self.open and self.open[0].ends_us <= now_us:
            one = self.open[0]
            self._flow(one.ends_us)
            self.open.pop(0)
            self.over.append(one.number)
            one.over = True
            if one.kind == RELEASE:
                self.level += one.back
                self.charged -= one.back
                one.given = one.back
        self._flow(now_us)
        while self.over and (
            self.over[0] not in self.pending or self.pending[self.over[0]].ends_us + KEPT_US <= now_us
        ):
            self.pending.pop(self.over.popleft(), None)

    def _flow(self, now_us: int) -> None:
        flow = min(self.per_us * (now_us - self.now_us), self.capacity - self.level)
        self.level += flow
        self.flowed_in += flow
        self.now_us = now_us
        over = self.level + sum((one.back for one in self.open), Fraction(0)) - self.capacity
        for one in self.open:
            if over <= 0:
                break
            less = min(over, one.back)
            one.back -= less
            over -= less

    def pay(self, cost: int) -> bool:
        """Take a cost if it is there."""
        if self.level < cost:
            return False
        self.level -= cost
        self.charged += cost
        return True

    def settle(self, number: int, cost: int | None) -> tuple[Fraction, Fraction]:
        """Return what is charged in all, and what comes back."""
        one = self.pending.pop(number, None)
        if one is None:
            return Fraction(0), Fraction(0)
        if not one.over:
            self.open.remove(one)
        so_far = one.cost - one.given
        real = one.cost if cost is None else Fraction(cost)
        back = Fraction(0)
        if not one.over and real < so_far:
            back = min(so_far - real, one.back)
            so_far = real
        more = min(max(Fraction(0), real - so_far), max(Fraction(0), self.level + self.max_debt))
        self.level += back - more
        self.charged += more - back
        return so_far + more, back


class Simulation:
    """Clients that call, settle, extend and crash at random; each answer of the table is compared with the model's.

    Args:
        seed: Of the chance.
        kind: What becomes of what nobody settles.
    """

    def __init__(self, seed: int, kind: int) -> None:
        self.chance = random.Random(seed)
        self.kind = kind
        self.spec = RateLimitRule(20_000, 120_000, "global").spec
        self.token = self.spec.units_per_token
        self.table = BucketTable(1)
        self.model = Ledger(Fraction(20_000), Fraction(2_000, SECOND_US), Fraction(MAX_DEBT))
        self.admitted = self.settled = 0
        self._numbers, self._order = count(1), count()
        self._agenda: list[tuple[int, int, str, int, int]] = []

    def run(self) -> None:
        """Let ten minutes pass."""
        for _ in range(CLIENTS):
            self._plan(START_US + self.chance.randrange(10 * SECOND_US), "call")
        end_us = START_US + MINUTES * 60 * SECOND_US
        while self._agenda[0][0] < end_us:
            now_us, _, what, number, cost = heappop(self._agenda)
            self.model.advance(now_us)
            if what == "call":
                self._call(now_us)
            elif what == "extend":
                self._extend(now_us, number, cost)
            else:
                self._settle(now_us, what, number, cost)
            self._check_the_books(now_us)

    def _plan(self, at_us: int, what: str, number: int = 0, cost: int = 0) -> None:
        heappush(self._agenda, (at_us, next(self._order), what, number, cost))

    def _request(self, units: int) -> BucketRequest:
        return BucketRequest("k", self.spec, units)

    def _call(self, now_us: int) -> None:
        number, cost = next(self._numbers), self.chance.choice([1, 50, 400, 1_500, 9_000])
        ttl_us = self.chance.choice([2, 10, 30]) * SECOND_US + self.chance.randrange(1000)
        verdict = self.table.reserve(
            (self._request(cost * self.token),), number, [ClaimTerms(self.kind, ttl_us)], now_us
        )
        assert verdict.allowed == self.model.pay(cost)
        assert Fraction(verdict.levels[0].level, self.token) == self.model.level
        self._plan(now_us + self.chance.randrange(1, 20 * SECOND_US), "call")
        if not verdict.allowed:
            return
        self.admitted += 1
        self.model.note(Pending(number, Fraction(cost), Fraction(cost), now_us + ttl_us, self.kind))
        fate = self.chance.choice(["commit"] * 6 + ["cancel", "crash", "extend", "overrun", "late"])
        after_us = self.chance.randrange(1, 60 * SECOND_US if fate == "late" else 8 * SECOND_US)
        if fate != "crash":
            self._plan(now_us + after_us, fate, number, cost)

    def _extend(self, now_us: int, number: int, cost: int) -> None:
        one = self.model.pending.get(number)
        alive = one is not None and not one.over
        assert self.table.extend([self._request(0)], number, [20 * SECOND_US], now_us) == int(alive)
        if one is not None and alive and now_us + 20 * SECOND_US > one.ends_us:
            self.model.open.remove(one)
            one.ends_us = now_us + 20 * SECOND_US
            self.model.note(one)
        self._plan(now_us + self.chance.randrange(1, 25 * SECOND_US), "commit", number, cost)

    def _settle(self, now_us: int, what: str, number: int, cost: int) -> None:
        real = {"cancel": 0, "overrun": cost * 3}.get(what, self.chance.choice([None, 0, cost // 2, cost, cost + 7]))
        request = self._request(AS_RESERVED if real is None else real * self.token)
        (answer,) = self.table.settle([request], number, [MAX_DEBT * self.token], now_us)
        charged, back = self.model.settle(number, real)
        self.settled += 1
        assert (Fraction(answer.charged_units, self.token), Fraction(answer.returned_units, self.token)) == (
            charged,
            back,
        )
        assert Fraction(answer.level.level, self.token) == self.model.level
        assert self.table.settle([request], number, [MAX_DEBT * self.token], now_us)[0].found == NOT_FOUND

    def _check_the_books(self, now_us: int) -> None:
        model = self.model
        assert -MAX_DEBT <= model.level <= model.capacity
        assert model.charged == model.capacity + model.flowed_in - model.level  # nothing is lost, nothing is minted
        assert model.charged <= model.capacity + model.per_us * (now_us - START_US) + MAX_DEBT


@pytest.mark.parametrize(("seed", "kind"), [(1, CHARGE), (2, RELEASE)])
def test_a_busy_bucket_is_kept_to_the_unit(seed: int, kind: int) -> None:
    """Random estimates, real costs, cancellations, extensions, crashes and ends: every answer is the model's."""
    simulation = Simulation(seed, kind)
    simulation.run()
    assert simulation.admitted > 3_000
    assert simulation.settled > 2_500
