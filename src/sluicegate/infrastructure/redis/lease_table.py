"""What this process has borrowed from hot buckets, and spends without asking the server.

The server counts a loan against the bucket's capacity until it is reported as spent, comes back, or ends; see the loans in
`token_bucket.lua`. Whatever is in doubt is left to end there, and never spent or returned here: that could mint tokens.
"""

from collections.abc import Callable, Iterable
from random import SystemRandom

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.protocols import Clock
from sluicegate.infrastructure.redis.calls import LeaseTerms, Loan
from sluicegate.infrastructure.redis.lease import (
    GROWTH,
    HOT,
    MAX_BYTES,
    MAX_LEASES,
    SPENT_US,
    BoundedLeases,
    Lease,
    LeaseRequest,
    bucket_level,
    units_wanted,
)
from sluicegate.runtime.mutex import fork_count, held_here, new_mutex
from sluicegate.runtime.system_clock import SuspendAwareClock, reader_ns


class LeaseTable:
    """Spend loans, and say when to ask for them. Safe to share between threads; empty again in a forked child.

    Args:
        clock: This process's; it must not stand still while the machine sleeps.
        max_leases: See `BoundedLeases`.
        max_bytes: See `BoundedLeases`.
        hot: How many times a check's cost must be taken in a period before borrowing pays.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        max_leases: int = MAX_LEASES,
        max_bytes: int = MAX_BYTES,
        hot: int = HOT,
    ) -> None:
        self._now_ns: Callable[[], int] = SuspendAwareClock().now_ns if clock is None else reader_ns(clock)
        self._hot = hot
        self._mutex = new_mutex()
        self._leases = BoundedLeases(max_leases, max_bytes)
        self._active: dict[str, Lease] = {}  # those with a loan or a question, and some that had one lately
        self._questions = 0
        self._fork = fork_count()
        self._random = SystemRandom()  # processes that were forked must not draw the same numbers
        self.borrowed = 0.0
        """Tokens that were lent to this process so far."""
        self.returned = 0.0
        """Tokens of them that were given back."""
        self.lost = 0.0
        """Tokens of them that ended unspent, or are in doubt because an answer was lost."""

    def pay(self, request: BucketRequest, owner: object) -> tuple[BucketLevel | None, LeaseRequest | None]:
        """Pay from a loan if one suffices, and return what to ask the server for.

        Args:
            request: The check.
            owner: Who will ask the server.

        Returns:
            What is left in the bucket, or None if it was not paid here; and what to ask for, or None. A check that was not paid
            is paid by that question; without a question, the server is asked for the check alone.
        """
        if held_here(self._mutex):  # a signal handler or a finaliser, in the midst of a call here: the server decides
            return None, None
        with self._mutex:
            cost = request.cost_units
            now_us = self._now_us()
            lease = self._lease(request, now_us)
            if lease.units >= cost:
                lease.units -= cost
                return bucket_level(lease, now_us), self._renewal(lease, request, owner, now_us)
            lease.used += cost
            if lease.asking:
                return None, None
            if lease.unconfirmed:
                self._lose(lease)
            more = units_wanted(lease, request, now_us, self._hot)
            if not more and not lease.units:
                return None, None
            terms = LeaseTerms(lease.lease_id, lease.units, 0, more)
            lease.units = 0
            return None, self._question(lease, request, terms, owner, now_us)

    def spend(self, request: BucketRequest, *, to_the_end: bool) -> Verdict | None:
        """Pay from a loan that suffices, without asking for anything.

        Args:
            request: The check.
            to_the_end: Whether a loan that should be renewed may be spent as well.

        Returns:
            The payment, with what is left in the bucket and of the loan together; None if it was not paid.
        """
        if held_here(self._mutex):
            return None
        with self._mutex:
            lease = self._find(request.key)
            if lease is None or lease.spec.text != request.spec.text:
                return None
            left = lease.units - request.cost_units
            if left < (0 if to_the_end else lease.low):
                return None
            now_us = self._now_us()
            if now_us >= lease.until_us:
                return None
            lease.units = left
            level = bucket_level(lease, now_us)
            total = BucketLevel(min(lease.spec.capacity, level.level + left), level.effective_in_us)
            return Verdict(allowed=True, levels=(total,))

    def suffices(self, request: BucketRequest) -> bool:
        """Return whether a loan could pay, even if it should be renewed."""
        with self._mutex:
            lease = self._find(request.key)
            return (
                lease is not None
                and lease.spec.text == request.spec.text
                and lease.units >= request.cost_units
                and self._now_us() < lease.until_us
            )

    def give_back(self, request: BucketRequest, owner: object, *, if_of_another_rule: bool) -> LeaseRequest | None:
        """Return what gives back all of a bucket's loan; None if there is none.

        Args:
            request: The bucket.
            owner: Who will ask the server.
            if_of_another_rule: Whether only a loan is meant that was lent under another rule than the request's.
        """
        if held_here(self._mutex):
            return None
        with self._mutex:
            lease = self._find(request.key)
            if lease is None or (if_of_another_rule and lease.spec.text == request.spec.text):
                return None
            now_us = self._now_us()
            if lease.asking or lease.unconfirmed or not lease.units or now_us >= lease.until_us:
                return None
            return self._return_all(lease, owner, now_us)

    def active_keys(self) -> list[str]:
        """Return the buckets for which `due_requests` may have something to do."""
        with self._mutex:
            self._check_fork()
            return list(self._active)

    def due_requests(self, owner: object, keys: Iterable[str], *, closing: bool = False) -> list[LeaseRequest]:
        """Return what the server must be told although no check asks for it: loans that go back, and loans that go on.

        Args:
            owner: Whose loans are meant.
            keys: The buckets to look at; how many they are bounds the time that this takes.
            closing: Whether all of the loans go back.
        """
        due: list[LeaseRequest] = []
        with self._mutex:
            now_us = self._now_us()
            for key in keys:
                lease = self._find(key)
                if lease is None or lease.owner is not owner or lease.asking:
                    continue
                if lease.units and now_us >= lease.until_us:
                    self._lose(lease)
                idle = lease.units == lease.at_last_look
                lease.at_last_look = lease.units
                if not lease.units:
                    self._active.pop(key, None)
                elif lease.unconfirmed:
                    continue
                elif idle or closing:
                    due.append(self._return_all(lease, owner, now_us))
                elif lease.until_us - now_us < SPENT_US // 2:
                    terms = LeaseTerms(lease.lease_id, 0, lease.units, 0)
                    due.append(self._question(lease, lease.aside(), terms, owner, now_us))
        return due

    def owns_any(self, owner: object) -> bool:
        """Return whether this owner has a loan, or a question without an answer."""
        with self._mutex:
            self._check_fork()
            return any(lease.owner is owner and (lease.units or lease.asking) for lease in self._active.values())

    def end(self, owner: object) -> None:
        """Strike out what this owner could not return."""
        with self._mutex:
            self._check_fork()
            for lease in self._active.values():
                if lease.owner is owner:
                    self._lose(lease)

    def settle(self, question: LeaseRequest, loan: Loan) -> None:
        """Take the server's answer."""
        with self._mutex:
            lease = self._asked_for(question)
            if lease is None:
                return
            lease.asking = 0
            token = lease.spec.units_per_token
            self.returned += question.terms.returned / token
            self.borrowed += loan.units / token
            lease.units += loan.units
            lease.lent, lease.at_last_look = lease.units, -1
            lease.low = lease.units // 2 if loan.units else 0
            lease.until_us = question.asked_us + SPENT_US
            if question.terms.wanted:
                lease.wanted = question.terms.wanted
            elif question.terms.returned:
                lease.wanted //= GROWTH  # so that after a pause the first loan is as large as the last one
            left = loan.verdict.levels[0]
            lease.level, lease.read_us = left.level, self._now_us() + left.effective_in_us

    def observe(self, request: BucketRequest, left: BucketLevel) -> int:
        """Note what the server said is left in a bucket, and return the units that are borrowed from it."""
        with self._mutex:
            now_us = self._now_us()
            lease = self._find(request.key)
            if lease is None or now_us >= lease.until_us:
                return 0
            if lease.spec.text != request.spec.text:  # the loan goes back with the next check
                return lease.units // lease.spec.units_per_token * request.spec.units_per_token
            lease.level, lease.read_us = left.level, now_us + left.effective_in_us
            return lease.units

    def give_up(self, question: LeaseRequest) -> None:
        """Note that the answer was lost: what was asked for may have been done, or be done later."""
        with self._mutex:
            if (lease := self._asked_for(question)) is not None:
                self._give_up(lease, question.terms.returned)

    def unsent(self, question: LeaseRequest) -> None:
        """Note that the server was not asked after all."""
        with self._mutex:
            lease = self._asked_for(question)
            if lease is not None:
                lease.asking = 0
                lease.units += question.terms.returned

    @property
    def held(self) -> dict[str, float]:
        """The tokens that are lent to this process now and not yet spent, by bucket."""
        with self._mutex:
            self._check_fork()
            now_us = self._now_us()
            return {
                key: lease.units / lease.spec.units_per_token
                for key, lease in self._active.items()
                if lease.units and now_us < lease.until_us
            }

    @property
    def spent(self) -> float:
        """Tokens that were lent and have been spent."""
        return self.borrowed - self.returned - self.lost - sum(self.held.values())

    def __len__(self) -> int:
        return len(self._leases)

    def __repr__(self) -> str:
        return f"LeaseTable(held={sum(self.held.values()):g}, borrowed={self.borrowed:g}, returned={self.returned:g})"

    def _now_us(self) -> int:
        return self._now_ns() // 1000

    # All below are called with the lock held.

    def _check_fork(self) -> None:
        if self._fork != fork_count():  # parent and child must not both spend a loan
            self._fork = fork_count()
            self._leases.clear()
            self._active.clear()
            self.borrowed = self.returned = self.lost = 0.0

    def _find(self, key: str) -> Lease | None:
        self._check_fork()
        return self._leases.get(key)

    def _lease(self, request: BucketRequest, now_us: int) -> Lease:
        """Return the bucket's lease, without what has ended or belongs to another rule."""
        lease = self._find(request.key)
        if lease is None or lease.spec.text != request.spec.text:
            if lease is not None:
                self._lose(lease)
                self._drop(lease.key)
            while (surplus := self._leases.surplus(request.key)) is not None:
                self._lose(surplus)
                self._drop(surplus.key)
            lease = Lease(request.key, request.spec, self._new_id(), now_us)
            self._leases.add(lease)
        if lease.asking and now_us - lease.asked_us > SPENT_US:
            self._give_up(lease, 0)  # the event loop that asked has ended
        if lease.units and now_us >= lease.until_us:
            self._lose(lease)
        return lease

    def _drop(self, key: str) -> None:
        self._leases.remove(key)
        self._active.pop(key, None)

    def _renewal(self, lease: Lease, request: BucketRequest, owner: object, now_us: int) -> LeaseRequest | None:
        if lease.units >= lease.low or lease.asking:
            return None
        lease.low = 0
        more = units_wanted(lease, request, now_us, self._hot)
        if not more:
            return None
        return self._question(lease, lease.aside(), LeaseTerms(lease.lease_id, 0, lease.units, more), owner, now_us)

    def _return_all(self, lease: Lease, owner: object, now_us: int) -> LeaseRequest:
        terms = LeaseTerms(lease.lease_id, lease.units, 0, 0)
        lease.units = 0
        return self._question(lease, lease.aside(), terms, owner, now_us)

    def _question(
        self, lease: Lease, request: BucketRequest, terms: LeaseTerms, owner: object, now_us: int
    ) -> LeaseRequest:
        self._questions += 1
        lease.asking, lease.asked_us, lease.owner = self._questions, now_us, owner
        self._active[lease.key] = lease
        if terms.wanted:
            lease.since_us, lease.used = now_us, 0
        return LeaseRequest(request, terms, self._questions, now_us)

    def _asked_for(self, question: LeaseRequest) -> Lease | None:
        lease = self._find(question.request.key)
        return lease if lease is not None and lease.asking == question.number else None

    def _give_up(self, lease: Lease, returned: int) -> None:
        self.lost += returned / lease.spec.units_per_token
        lease.asking = lease.low = 0
        lease.unconfirmed = lease.units > 0
        lease.lease_id = self._new_id()

    def _lose(self, lease: Lease) -> None:
        self.lost += lease.units / lease.spec.units_per_token
        lease.units, lease.unconfirmed = 0, False
        if not lease.asking:
            lease.lease_id = self._new_id()

    def _new_id(self) -> int:
        return self._random.getrandbits(52) + 1
