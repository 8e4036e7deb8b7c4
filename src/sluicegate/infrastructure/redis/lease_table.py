"""What this process has borrowed of hot buckets, and spends without asking the server.

The server counts all of it against the bucket's capacity until it is reported as spent, comes back, or ends: see the loans in
`token_bucket.lua`. Whatever is in doubt is therefore left to end there and never spent or returned here: that can only deny.
"""

import os
import weakref
from collections.abc import Callable
from functools import wraps
from random import SystemRandom
from typing import Concatenate, ParamSpec, TypeVar

from sluicegate.domain.bucket_at_hand import LoansAtHand
from sluicegate.domain.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.protocols import Clock
from sluicegate.infrastructure.redis.lease import GROWTH, SPENT_US, Lease, LeaseRequest, bucket_level, wanted
from sluicegate.infrastructure.redis.script import LeaseTerms, Loan
from sluicegate.runtime.system_clock import SuspendAwareClock
from sluicegate.runtime.turn import Turn

MAX_LEASES = 10_000
"""Most buckets that are watched. Each takes some 400 bytes."""

P = ParamSpec("P")
T = TypeVar("T")


def _in_turn(method: "Callable[Concatenate[LeaseTable, P], T]") -> "Callable[Concatenate[LeaseTable, P], T]":
    @wraps(method)
    def in_turn(self: "LeaseTable", /, *args: P.args, **named: P.kwargs) -> T:
        return self.turn.during(method, self, *args, **named)

    return in_turn


class LeaseTable:
    """Spend loans, and say when to ask for them. Safe to share between threads; a child process begins with an empty one.

    Args:
        clock: This process's; it must not stand still while the machine sleeps.
        max_leases: Most buckets that are watched, at least 1. Beyond it the one that was first is forgotten.
    """

    def __init__(self, *, clock: Clock | None = None, max_leases: int = MAX_LEASES) -> None:
        clock = clock or SuspendAwareClock()
        self._now_us = clock.now_us
        self._max_leases = max_leases
        self._leases: dict[str, Lease] = {}
        self.turn = Turn()
        """Taken from the reading of a loan to its writing."""
        self._requests = 0
        self._random = SystemRandom()  # processes that were forked must not draw the same numbers
        self.borrowed = 0.0
        """Tokens that were lent to this process so far."""
        self.returned = 0.0
        """Tokens of them that were given back."""
        self.lost = 0.0
        """Tokens of them that ended, or are in doubt since an answer of the server was lost. They are not spent."""
        self.at_hand = LoansAtHand(self._leases.get, self.turn, getattr(clock, "now_ns", lambda: clock.now_us() * 1000))
        """What is lent, for who spends it in place."""
        _books.add(self)

    @_in_turn
    def pay(self, request: BucketRequest, owner: object) -> tuple[BucketLevel | None, LeaseRequest | None]:
        """Pay from a loan if one suffices, and say what to ask the server for.

        Args:
            request: What is asked for.
            owner: Who will ask the server.

        Returns:
            What is left in the bucket, or None if it was not paid here; and what to ask for, or None. If it was not paid, the
            request pays for it as well; without one the server is asked for the cost alone.
        """
        cost = request.cost_units
        now_us = self._now_us()
        lease = self._lease(request, now_us)
        if lease.units >= cost:
            lease.units -= cost
            lease_request = None
            if lease.units < lease.low and not lease.asking:
                lease.low = 0
                if more := wanted(lease, request, now_us):
                    aside = BucketRequest(request.key, request.spec, 0)
                    lease_request = self._lease_request(
                        lease, aside, LeaseTerms(lease.lease_id, 0, lease.units, more), owner, now_us
                    )
            return bucket_level(lease, now_us), lease_request
        lease.used += cost
        if lease.asking:
            return None, None
        if lease.unconfirmed:
            self._lose(lease)
        more = wanted(lease, request, now_us)
        if not more and not lease.units:
            return None, None
        returned, lease.units = lease.units, 0
        return None, self._lease_request(lease, request, LeaseTerms(lease.lease_id, returned, 0, more), owner, now_us)

    @_in_turn
    def spend(self, request: BucketRequest, *, to_the_end: bool) -> BucketLevel | None:
        """Pay from a loan that suffices, and ask for nothing.

        Args:
            request: What is asked for.
            to_the_end: Whether also what calls for a renewal may be spent.

        Returns:
            What is left in the bucket, or None if it was not paid.
        """
        now_us = self._now_us()
        lease = self._leases.get(request.key)
        if lease is None or lease.spec is not request.spec or now_us >= lease.until_us:
            return None
        left = lease.units - request.cost_units
        if left < (0 if to_the_end else lease.low):
            return None
        lease.units = left
        return bucket_level(lease, now_us)

    def suffices(self, request: BucketRequest) -> bool:
        """Return whether a loan could pay, if it is renewed perhaps."""
        lease = self._leases.get(request.key)
        if lease is None or lease.spec is not request.spec or lease.units < request.cost_units:
            return False
        return self._now_us() < lease.until_us

    @_in_turn
    def give_back(self, request: BucketRequest, owner: object, *, if_of_another_rule: bool) -> LeaseRequest | None:
        """Return what gives back all of a bucket's loan; None if there is none.

        Args:
            request: The bucket.
            owner: Who will ask the server.
            if_of_another_rule: Whether only a loan is meant that was lent under another rule than the request's.
        """
        lease = self._leases.get(request.key)
        if lease is None or (if_of_another_rule and lease.spec is request.spec):
            return None
        now_us = self._now_us()
        if lease.asking or lease.unconfirmed or not lease.units or now_us >= lease.until_us:
            return None
        terms = LeaseTerms(lease.lease_id, lease.units, 0, 0)
        lease.units = 0
        return self._lease_request(lease, BucketRequest(request.key, lease.spec, 0), terms, owner, now_us)

    @_in_turn
    def due_requests(self, owner: object, *, closing: bool = False) -> list[LeaseRequest]:
        """Return what the server is to be told although nobody asks for it: loans that go back, and such that go on.

        Args:
            owner: Whose loans are meant.
            closing: Whether all of them go back.
        """
        lease_requests: list[LeaseRequest] = []
        now_us = self._now_us()
        for key, lease in self._leases.items():
            if lease.owner is not owner or lease.asking:
                continue
            if lease.units and now_us >= lease.until_us:
                self._lose(lease)
            idle = lease.units == lease.at_last_look
            lease.at_last_look = lease.units
            if not lease.units or lease.unconfirmed:
                continue
            if idle or closing:
                terms = LeaseTerms(lease.lease_id, lease.units, 0, 0)
                lease.units = 0
            elif lease.until_us - now_us < SPENT_US // 2:
                terms = LeaseTerms(lease.lease_id, 0, lease.units, 0)
            else:
                continue
            lease_requests.append(self._lease_request(lease, BucketRequest(key, lease.spec, 0), terms, owner, now_us))

        return lease_requests

    @_in_turn
    def owns_any(self, owner: object) -> bool:
        """Return whether anything is lent to this keeper."""
        return any(lease.owner is owner and (lease.units or lease.asking) for lease in self._leases.values())

    @_in_turn
    def end(self, owner: object) -> None:
        """Strike out what this keeper could not return."""
        for lease in self._leases.values():
            if lease.owner is owner:
                self._lose(lease)

    @_in_turn
    def settle(self, lease_request: LeaseRequest, loan: Loan) -> None:
        """Take note of what the server answered."""
        lease = self._asking(lease_request)
        if lease is None:
            return
        lease.asking = 0
        token = lease.spec.units_per_token
        self.returned += lease_request.terms.returned / token
        self.borrowed += loan.units / token
        lease.units += loan.units
        lease.lent, lease.at_last_look = lease.units, -1
        lease.low = lease.units // 2 if loan.units else 0
        lease.until_ns = (lease_request.asked_us + SPENT_US) * 1000
        if lease_request.terms.wanted:
            lease.wanted = lease_request.terms.wanted
        elif lease_request.terms.returned:  # after a pause the first loan is as the last one was, not eight times that
            lease.wanted //= GROWTH
        left = loan.verdict.levels[0]
        lease.level, lease.read_us = left.level, self._now_us() + left.effective_in_us

    @_in_turn
    def saw(self, request: BucketRequest, left: BucketLevel) -> int:
        """Take note of what the server said is left in a bucket, and return the units that are held of it."""
        now_us = self._now_us()
        lease = self._leases.get(request.key)
        if lease is None or now_us >= lease.until_us:
            return 0
        if lease.spec is not request.spec:  # it goes back with the next check
            return lease.units // lease.spec.units_per_token * request.spec.units_per_token
        lease.level, lease.read_us = left.level, now_us + left.effective_in_us
        return lease.units

    @_in_turn
    def give_up(self, lease_request: LeaseRequest) -> None:
        """Take note that the answer was lost: what was asked for may have been done, or be done yet."""
        lease = self._asking(lease_request)
        if lease is not None:
            self._give_up(lease, lease_request.terms.returned)

    @_in_turn
    def unsent(self, lease_request: LeaseRequest) -> None:
        """Take note that the server was not asked after all."""
        lease = self._asking(lease_request)
        if lease is not None:
            lease.asking = 0
            lease.units += lease_request.terms.returned

    @property
    @_in_turn
    def held(self) -> dict[str, float]:
        """The tokens that are lent to this process now and not yet spent, by bucket."""
        now_us = self._now_us()
        return {
            key: lease.units / lease.spec.units_per_token
            for key, lease in self._leases.items()
            if lease.units and now_us < lease.until_us
        }

    @property
    def spent(self) -> float:
        """Tokens that were lent and have been spent."""
        return self.borrowed - self.returned - self.lost - sum(self.held.values())

    def forget_all(self) -> None:
        """Begin anew, in a child process: what was lent is its parent's."""
        self._leases.clear()
        self.borrowed = self.returned = self.lost = 0.0

    def __len__(self) -> int:
        return len(self._leases)

    def __repr__(self) -> str:
        return f"LeaseTable(held={sum(self.held.values()):g}, borrowed={self.borrowed:g}, returned={self.returned:g})"

    def _lease(self, request: BucketRequest, now_us: int) -> Lease:
        """Return the bucket's lease, with what has ended or belongs to another rule struck out."""
        lease = self._leases.get(request.key)
        if lease is None or lease.spec is not request.spec:
            if lease is not None:
                self._lose(lease)
            elif len(self._leases) >= self._max_leases:
                self._lose(self._leases.pop(next(iter(self._leases))))
            lease = self._leases[request.key] = Lease(request.spec, self._number(), now_us)
        if lease.asking and now_us - lease.asked_us > SPENT_US:
            self._give_up(lease, 0)  # the event loop that asked has ended
        if lease.units and now_us >= lease.until_us:
            self._lose(lease)
        return lease

    def _lease_request(
        self, lease: Lease, request: BucketRequest, terms: LeaseTerms, owner: object, now_us: int
    ) -> LeaseRequest:
        self._requests += 1
        lease.asking, lease.asked_us, lease.owner = self._requests, now_us, owner
        if terms.wanted:
            lease.since_us, lease.used = now_us, 0
        return LeaseRequest(request, terms, self._requests, now_us)

    def _asking(self, lease_request: LeaseRequest) -> Lease | None:
        lease = self._leases.get(lease_request.request.key)
        return lease if lease is not None and lease.asking == lease_request.number else None

    def _give_up(self, lease: Lease, returned: int) -> None:
        self.lost += returned / lease.spec.units_per_token
        lease.asking = lease.low = 0
        lease.unconfirmed = lease.units > 0
        lease.lease_id = self._number()

    def _lose(self, lease: Lease) -> None:
        self.lost += lease.units / lease.spec.units_per_token
        lease.units, lease.unconfirmed = 0, False
        if not lease.asking:
            lease.lease_id = self._number()

    def _number(self) -> int:
        return self._random.getrandbits(52) + 1


# Both processes of a fork would spend the same loans. No turn is taken while it forks: see `Turn`.
_books: "weakref.WeakSet[LeaseTable]" = weakref.WeakSet()


def _forget_all() -> None:
    for book in _books:
        book.forget_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
