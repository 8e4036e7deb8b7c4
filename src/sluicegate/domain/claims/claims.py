"""Units of a bucket that belong to somebody until an instant: loans, reservations and holds. Pure arithmetic.

A claim has taken its units out of the bucket already. What may come back of them, or what others spend meanwhile without asking,
counts against the capacity, so that the level and all claims together never exceed it. From this follows the bound of every
window: see `docs/explanation/budgets.md`. There are two kinds of room that a claim takes:

- A *hard* claim (a loan, a hold) keeps its units whatever happens: the bucket fills up to what is left of its capacity.
- A *soft* claim (a reservation) gives way: where refill finds no room beside it, what may come back shrinks, the claim that
  ends first before the others. So a long reservation never costs refill, and its return never lifts a full bucket.

`token_bucket.lua` says the same in Lua.
"""

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
    RELEASE,
    Claim,
)
from sluicegate.domain.claims.claim_order import ClaimOrder
from sluicegate.domain.claims.filling import after_ends, fill_past, reaches, refill_beside


@mypyc_attr(acyclic=True)
class Claims(ClaimOrder):
    """The claims on one bucket, and what time and settlements make of them."""

    __slots__ = ()

    def copy(self) -> "Claims":
        """Return the same claims, to be changed without changing these."""
        other = Claims()
        for claim in [*self.active, *self.ended]:
            other.adopt(Claim(claim.number, claim.units, claim.ends_us, claim.cost_units, claim.kind, claim.ttl_us))
        other.set_us = self.set_us
        return other

    # Time

    def level_at(self, spec: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
        """Return what `advance` would, and change nothing."""
        if self.is_still(spec, now_us):
            return refill_beside(spec, level, last, now_us, self.room(spec))
        if now_us < self.set_us:
            return self.copy().advance(spec, level, last, now_us)
        level, last, _, _, _, _ = after_ends(spec, self.active, level, last, self.hard, self.soft, now_us)
        return level, last

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
        if self.is_still(spec, now_us):
            level, last = refill_beside(spec, level, last, now_us, self.room(spec))
        else:
            level, last = self._let_end(spec, level, last, now_us)
        self.shrink(spec, level)
        if self.ended:
            self._forget(now_us)
        return level, last

    def _let_end(self, spec: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
        """Refill a bucket, and let those claims end that are over."""
        hard, soft = self.hard, self.soft
        tick = now_us // spec.tick_us
        owed: i64 = 0
        over: i64 = 0
        given: i64 = 0
        for claim in self.active:
            if -(-claim.ends_us // spec.tick_us) > tick:
                break
            level, last, hard, soft, owed, back = fill_past(spec, claim, level, last, hard, soft, owed)
            over += 1
            if claim.is_hard:
                del self._by_number[claim.number]
                continue
            if claim.units:
                given += 1  # those that end first stand first there too
            if claim.kind == RELEASE:
                self.releasing -= 1
            claim.kind, claim.units = ENDED, back
            self.ended.append(claim)
        del self.active[:over]
        del self._giving[:given]
        self.hard, self.soft = hard, soft + owed
        self._give_way(owed)
        return refill_beside(spec, level, last, now_us, self.room(spec))

    def shrink(self, spec: BucketSpec, level: i64) -> None:
        """Let soft claims give way to a level: the one that ends first before the others."""
        over: i64 = level + self.hard + self.soft - spec.capacity
        if over > 0:
            self._give_way(over)

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
        if self._nothing_comes_back:
            return last - min(0, level - units) // spec.units_per_tick
        return reaches(spec, self.active, level, last, units, self.hard, self.soft, 0, 0)

    def denied_until(self, spec: BucketSpec, level: i64, last: i64, units: i64, now_us: i64) -> tuple[i64, i64, i64]:
        """Return the level that `advance` would, the tick from which it counts on, and what `reaches` would; change nothing.

        Args:
            spec: The bucket's arithmetic.
            level: Units at the tick `last`.
            last: The tick at which `level` held.
            units: What is asked for.
            now_us: The storage's clock; not before `set_us`.
        """
        level, last, hard, soft, owed, over = after_ends(spec, self.active, level, last, self.hard, self.soft, now_us)
        if self._nothing_comes_back:
            return level, last, last - min(0, level - units) // spec.units_per_tick
        return level, last, reaches(spec, self.active, level, last, units, hard, soft, owed, over)

    @property
    def _nothing_comes_back(self) -> bool:
        """Whether only refill raises the level until all claims are over."""
        return self.hard == 0 and self.releasing == 0

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
        self, spec: BucketSpec, claim: Claim, level: i64, cost_units: i64, max_debt_units: i64
    ) -> tuple[i64, i64, i64, i64]:
        """Charge what a claim really cost, and forget it.

        Args:
            spec: The bucket's arithmetic.
            claim: The claim.
            level: The bucket's, as `advance` returned it.
            cost_units: What it cost; `AS_RESERVED`: what it took. A hold costs nothing.
            max_debt_units: How far below zero the level may be brought.

        Returns:
            The level afterwards; `IN_TIME` or `LATE`; the units that are charged for it in all; and the units
            that came back.
        """
        del self._by_number[claim.number]
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
        self._giving.clear()

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

    def last_too_long(self, now_us: i64) -> bool:
        """Return whether a claim seems to last longer than it was given for: the clock has stepped back."""
        if now_us >= self.set_us:
            return False
        return any(claim.ends_us > now_us + claim.ttl_us for claim in self.active)
