"""Which claims there are on one bucket: by number, in the order of their ends, and summed up."""

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.claims.claim import ENDED, KEPT_US, RELEASE, Claim, file_claim, unfile_claim


@mypyc_attr(acyclic=True)
class ClaimOrder:
    """The claims on one bucket. Each change takes as many steps as claims end or give way by it, however many there are."""

    __slots__ = ("_by_number", "_giving", "active", "ended", "hard", "releasing", "set_us", "soft")

    def __init__(self) -> None:
        self.active: list[Claim] = []
        """Those that are not over; the one that ends first comes first."""
        self.ended: list[Claim] = []
        """Reservations that ended unsettled, in the order of their ends."""
        self.hard: i64 = 0
        """Units of the active hard claims."""
        self.soft: i64 = 0
        """Units that may come back of the active soft ones."""
        self.releasing: i64 = 0
        """How many active soft ones give back by themselves what may come back of them."""
        self._by_number: dict[int, Claim] = {}
        self._giving: list[Claim] = []  # the active soft ones of which something may come back, in the same order
        self.set_us: i64 = 0
        """The latest instant from which an end was counted."""

    def adopt(self, claim: Claim) -> None:
        """Append a claim that was counted before: in the order of their ends."""
        self._by_number[claim.number] = claim
        if claim.kind == ENDED:
            self.ended.append(claim)
            return
        self.active.append(claim)
        self._count(claim, 1)
        if claim.units and not claim.is_hard:
            self._giving.append(claim)

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, number: i64, cost_units: i64, kind: i64, now_us: i64, ttl_us: i64) -> None:
        """Note a claim whose cost has just been taken out of the level."""
        claim = Claim(number, cost_units, now_us + ttl_us, cost_units, kind, ttl_us)
        self._by_number[number] = claim
        self._insert(claim, now_us)

    def find(self, number: int) -> Claim | None:
        """Return the claim of a number, over or not."""
        return self._by_number.get(number)

    def _give_way(self, units: i64) -> None:
        """Take units off the soft claims: off the one that ends first before the others."""
        giving = self._giving
        nothing_left: i64 = 0
        for claim in giving:
            if units <= 0:
                break
            by: i64 = min(units, claim.units)
            claim.units -= by
            self.soft -= by
            units -= by
            if claim.units == 0:
                nothing_left += 1
        if nothing_left:
            del giving[:nothing_left]

    def _forget(self, now_us: i64) -> None:
        """Forget reservations that ended too long ago for a late commit."""
        gone: i64 = 0
        for claim in self.ended:
            if claim.ends_us + KEPT_US > now_us:
                break
            del self._by_number[claim.number]
            gone += 1
        if gone:
            del self.ended[:gone]

    def _sum_up(self) -> None:
        self.hard = self.soft = self.releasing = 0
        self._giving.clear()
        for claim in self.active:
            self._count(claim, 1)
            if claim.units and not claim.is_hard:
                self._giving.append(claim)

    def _count(self, claim: Claim, sign: i64) -> None:
        if claim.is_hard:
            self.hard += sign * claim.units
            return
        self.soft += sign * claim.units
        if claim.kind == RELEASE:
            self.releasing += sign

    def _insert(self, claim: Claim, now_us: i64) -> None:
        self.set_us = max(self.set_us, now_us)
        file_claim(self.active, claim)
        self._count(claim, 1)
        if claim.units and not claim.is_hard:
            file_claim(self._giving, claim)

    def _remove(self, claim: Claim) -> None:
        unfile_claim(self.active, claim)
        self._count(claim, -1)
        if claim.units and not claim.is_hard:
            unfile_claim(self._giving, claim)

    def _pull_back(self, now_us: i64) -> None:
        """Let no claim last longer than it was given for: the clock has stepped back."""
        for claim in self.active:
            claim.ends_us = min(claim.ends_us, now_us + claim.ttl_us)
        self.active.sort(key=_ends_us)
        self._giving.sort(key=_ends_us)
        self.set_us = now_us


def _ends_us(claim: Claim) -> int:
    return claim.ends_us
