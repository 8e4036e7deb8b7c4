"""Units of a bucket that belong to somebody until an instant: loans, reservations and holds. Pure arithmetic.

A claim has taken its units out of the bucket already. What may come back of them, or what others spend meanwhile without asking,
counts against the capacity, so that the level and all claims together never exceed it. From this follows the bound of every
window: see `docs/explanation/budgets.md`. There are two kinds of room that a claim takes:

- A *hard* claim (a loan, a hold) keeps its units whatever happens: the bucket fills up to what is left of its capacity.
- A *soft* claim (a reservation) gives way: where refill finds no room beside it, what may come back shrinks, the claim that
  ends first before the others. So a long reservation never costs refill, and its return never lifts a full bucket.

`token_bucket.lua` says the same in Lua.
"""

from bisect import insort

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.buckets.bucket_spec import MAX_UNITS, BucketSpec
from sluicegate.domain.buckets.token_bucket import convert
from sluicegate.domain.claims.claim import (
    AS_RESERVED,
    ENDED,
    HOLD,
    IN_TIME,
    KEPT_US,
    LATE,
    LOAN,
    NOT_FOUND,
    RELEASE,
    Claim,
    fill,
    refill_beside,
)


@mypyc_attr(acyclic=True)
class Claims:
    """The claims on one bucket."""

    __slots__ = ("_by_number", "active", "ended", "hard", "set_us", "soft")

    def __init__(self) -> None:
        self.active: list[Claim] = []
        """Those that are not over; the one that ends first comes first."""
        self.ended: list[Claim] = []
        """Reservations that ended unsettled, in the order of their ends."""
        self.hard: i64 = 0
        """Units of the active hard claims."""
        self.soft: i64 = 0
        """Units that may come back of the active soft ones."""
        self._by_number: dict[int, Claim] = {}
        self.set_us: i64 = 0
        """The latest instant from which an end was counted."""

    def copy(self) -> "Claims":
        """Return the same claims, to be changed without changing these."""
        other = Claims()
        for claim in [*self.active, *self.ended]:
            other.adopt(Claim(claim.number, claim.units, claim.ends_us, claim.cost_units, claim.kind, claim.ttl_us))
        other.set_us = self.set_us
        return other

    def adopt(self, claim: Claim) -> None:
        """Append a claim that was counted before: in the order of their ends."""
        self._by_number[claim.number] = claim
        if claim.kind == ENDED:
            self.ended.append(claim)
            return
        self.active.append(claim)
        if claim.is_hard:
            self.hard += claim.units
        else:
            self.soft += claim.units

    def __len__(self) -> int:
        return len(self._by_number)

    # Time

    def level_at(self, spec: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
        """Return what `advance` would, and change nothing."""
        if self.is_still(spec, now_us):
            return refill_beside(spec, level, last, now_us, self.room(spec))
        return self.copy().advance(spec, level, last, now_us)

    def is_still(self, spec: BucketSpec, now_us: i64) -> bool:
        """Return whether no claim has ended by now, and the clock has not stepped back."""
        if not self.active:
            return True
        return now_us >= self.set_us and -(-self.active[0].ends_us // spec.tick_us) > now_us // spec.tick_us

    def look(self, old: BucketSpec, new: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
        """Do what `advance` does; if the bucket's rule has changed, translate its state as `token_bucket.convert` does."""
        level, last = self.advance(old, level, last, now_us)
        if old is not new and old != new:
            level, last = convert(old, new, level, last, now_us)
            self._convert(old, new)
            level = min(level, self.room(new))
            self.shrink(new, level)
        return level, last

    def advance(self, spec: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
        """Refill a bucket until an instant, end by end, and let claims end.

        Args:
            spec: The bucket's arithmetic.
            level: Units at the tick `last`.
            last: The tick at which `level` held.
            now_us: The storage's clock.

        Returns:
            The level now, and the tick from which it counts on.
        """
        if now_us < self.set_us:
            self._pull_back(now_us)
        tick = now_us // spec.tick_us
        while self.active:
            claim = self.active[0]
            ends = -(-claim.ends_us // spec.tick_us)
            if ends > tick:
                break
            if ends > last:
                level = fill(spec, level, ends - last, self.room(spec))
                last = ends
            self.shrink(spec, level)
            level = min(level + self._end(claim), max(level, self.room(spec)))
        level, last = refill_beside(spec, level, last, now_us, self.room(spec))
        self.shrink(spec, level)
        while self.ended and self.ended[0].ends_us + KEPT_US <= now_us:
            del self._by_number[self.ended.pop(0).number]
        return level, last

    def shrink(self, spec: BucketSpec, level: i64) -> None:
        """Let soft claims give way to a level: the one that ends first before the others."""
        over: i64 = level + self.hard + self.soft - spec.capacity
        if over <= 0:
            return
        for claim in self.active:
            if not claim.is_hard:
                by: i64 = min(over, claim.units)
                claim.units -= by
                self.soft -= by
                over -= by
                if over == 0:
                    return

    def anchor_before_payment(self, spec: BucketSpec, level: i64, anchor: i64, now_us: i64) -> i64:
        """Return the tick from which the bucket counts on once it is paid from; see `token_bucket.anchor_after_payment`.

        What flows in during this tick finds room where soft claims give way.
        """
        if spec.tick_us == 1:
            return anchor
        room = self.room(spec)
        self.shrink(spec, min(room, level + spec.units_per_tick))
        if level + spec.units_per_tick <= room:
            return anchor
        return max(anchor, -(-now_us // spec.tick_us))

    def reaches(self, spec: BucketSpec, level: i64, last: i64, units: i64) -> i64:
        """Return the tick at which a bucket will have so many units if no call takes from it. Claims that end until then help.

        Args:
            spec: The bucket's arithmetic.
            level: Units at the tick `last`, as `advance` returned them.
            last: That tick.
            units: At most the capacity.
        """
        room = self.room(spec)
        hard: i64 = self.hard
        soft: i64 = self.soft
        later: i64 = self.soft  # what may come back of the claims after this one, as it is now
        for claim in self.active:
            ends = -(-claim.ends_us // spec.tick_us)
            if units <= room and (units - level <= 0 or last - (level - units) // spec.units_per_tick <= ends):
                break
            if ends > last:
                level = fill(spec, level, ends - last, room)
                last = ends
            soft = min(soft, room - level)
            if claim.is_hard:
                hard -= claim.units
                room = max(0, spec.capacity - hard)
                if claim.kind == HOLD:
                    level = min(level + claim.units, max(level, room))
                continue
            later -= claim.units
            back: i64 = max(0, soft - later)
            soft -= back
            if claim.kind == RELEASE:
                level += back
        return last - (min(0, level - units)) // spec.units_per_tick

    def over_at_us(self, spec: BucketSpec, level: i64, last: i64) -> i64:
        """Return the instant from which the bucket is full and has no claims: it equals an absent one then."""
        over_us = self.reaches(spec, level, last, spec.capacity) * spec.tick_us
        for claim in [*self.active, *self.ended]:
            if not claim.is_hard:
                over_us = max(over_us, claim.ends_us + KEPT_US)
        return over_us

    def room(self, spec: BucketSpec) -> i64:
        """Return how high the level may rise beside the hard claims."""
        return max(0, spec.capacity - self.hard)

    # Claims

    def add(self, number: i64, cost_units: i64, kind: i64, now_us: i64, ttl_us: i64) -> None:
        """Note a claim whose cost has just been taken out of the level."""
        claim = Claim(number, cost_units, now_us + ttl_us, cost_units, kind, ttl_us)
        self._by_number[number] = claim
        self._insert(claim, now_us)

    def has(self, number: int) -> bool:
        """Return whether there is a claim of that number, over or not."""
        return number in self._by_number

    def is_active(self, spec: BucketSpec, number: int, now_us: i64) -> bool:
        """Return whether there is a claim of that number that is not over."""
        claim = self._by_number.get(number)
        if claim is None or claim.kind == ENDED:
            return False
        return -(-claim.ends_us // spec.tick_us) > now_us // spec.tick_us

    def extend(self, number: int, now_us: i64, ttl_us: i64) -> None:
        """Let an active claim end later than it would; never earlier."""
        claim = self._by_number[number]
        if now_us + ttl_us > claim.ends_us:
            self._remove(claim)
            claim.ends_us, claim.ttl_us = now_us + ttl_us, ttl_us
            self._insert(claim, now_us)

    def settle(
        self, spec: BucketSpec, number: int, level: i64, cost_units: i64, max_debt_units: i64
    ) -> tuple[i64, i64, i64, i64]:
        """Charge what a claim really cost, and forget it.

        Args:
            spec: The bucket's arithmetic.
            number: The claim's.
            level: The bucket's, as `advance` returned it.
            cost_units: What it cost; `AS_RESERVED`: what it took. A hold costs nothing.
            max_debt_units: How far below zero the level may be brought.

        Returns:
            The level afterwards; `NOT_FOUND`, `IN_TIME` or `LATE`; the units that are charged for it in all; and the units
            that came back.
        """
        claim = self._by_number.pop(number, None)
        if claim is None:
            return level, NOT_FOUND, 0, 0
        charged: i64 = claim.cost_units  # so far
        back: i64 = 0
        found: i64 = IN_TIME
        cost: i64 = charged if cost_units == AS_RESERVED else cost_units
        if claim.kind == ENDED:
            self.ended.remove(claim)
            found = LATE
            charged -= claim.units
        else:
            self._remove(claim)
            if claim.kind == HOLD:
                cost = 0
            if cost < charged:
                back = min(charged - cost, claim.units)
                charged = cost
        owed: i64 = max(0, cost - charged)
        left: i64 = max(level - owed, min(level, -max_debt_units))
        back = min(back, max(0, self.room(spec) - left))
        return left + back, found, charged + level - left, back

    def reset(self) -> None:
        """End all holds, and let nothing come back of reservations: the bucket is filled without them."""
        for claim in list(self.active):
            if claim.kind == HOLD:
                self._remove(claim)
                del self._by_number[claim.number]
            elif claim.kind != LOAN:
                claim.units = 0
        self.soft = 0

    def _convert(self, old: BucketSpec, new: BucketSpec) -> None:
        """Translate all claims. What may come back is rounded down, what is kept is rounded up."""
        for claim in [*self.active, *self.ended]:
            whole: i64 = claim.units // old.units_per_token
            if claim.is_hard and whole * old.units_per_token < claim.units:
                whole += 1
            claim.units = new.capacity if whole >= new.max_tokens else whole * new.units_per_token
            tokens: i64 = claim.cost_units // old.units_per_token
            most: i64 = MAX_UNITS // new.units_per_token
            claim.cost_units = MAX_UNITS if tokens > most else tokens * new.units_per_token
        self._sum_up()

    def _sum_up(self) -> None:
        self.hard = self.soft = 0
        for claim in self.active:
            if claim.is_hard:
                self.hard += claim.units
            else:
                self.soft += claim.units

    def _insert(self, claim: Claim, now_us: i64) -> None:
        self.set_us = max(self.set_us, now_us)
        insort(self.active, claim, key=_ends_us)
        if claim.is_hard:
            self.hard += claim.units
        else:
            self.soft += claim.units

    def _remove(self, claim: Claim) -> None:
        self.active.remove(claim)
        if claim.is_hard:
            self.hard -= claim.units
        else:
            self.soft -= claim.units

    def _end(self, claim: Claim) -> i64:
        """Let the first active claim end, and return what comes back."""
        self._remove(claim)
        back: i64 = claim.units if claim.kind == RELEASE or claim.kind == HOLD else 0  # noqa: PLR1714 - as in `is_hard`
        if claim.is_hard:
            del self._by_number[claim.number]
        else:
            claim.kind, claim.units = ENDED, back
            self.ended.append(claim)
        return back

    def last_too_long(self, now_us: i64) -> bool:
        """Return whether a claim seems to last longer than it was given for: the clock has stepped back."""
        if now_us >= self.set_us:
            return False
        return any(claim.ends_us > now_us + claim.ttl_us for claim in self.active)

    def _pull_back(self, now_us: i64) -> None:
        """Let no claim last longer than it was given for: the clock has stepped back."""
        for claim in self.active:
            claim.ends_us = min(claim.ends_us, now_us + claim.ttl_us)
        self.active.sort(key=_ends_us)
        self.set_us = now_us


def _ends_us(claim: Claim) -> int:
    return claim.ends_us
