"""How a bucket fills beside claims, as numbers: nothing here changes a claim."""

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.claims.claim import HOLD, RELEASE, Claim


def fill(spec: BucketSpec, level: i64, ticks: i64, room: i64) -> i64:
    """Return the level after some ticks, at most the room, without a product that could leave the range."""
    if level >= room:
        return room
    if ticks >= -((level - room) // spec.units_per_tick):
        return room
    return level + ticks * spec.units_per_tick


def refill_beside(spec: BucketSpec, level: i64, last: i64, now_us: i64, room: i64) -> tuple[i64, i64]:
    """Do what `token_bucket.refill` does where there is room only for so many units."""
    tick = now_us // spec.tick_us
    elapsed = tick - last
    if elapsed <= 0:
        return min(level, room), last if -elapsed <= spec.full_ticks else -(-now_us // spec.tick_us)
    level = fill(spec, level, elapsed, room)
    return level, tick if level < room else -(-now_us // spec.tick_us)


def fill_past(  # noqa: PLR0913, PLR0917 - the state of a bucket beside claims
    spec: BucketSpec, claim: Claim, level: i64, last: i64, hard: i64, soft: i64, owed: i64
) -> tuple[i64, i64, i64, i64, i64, i64]:
    """Return the state of a bucket when the first of its claims has just ended.

    The claims that are left keep their numbers. What the soft ones of them have to give up is only summed up, as `owed`: the
    one that ends first gives first.

    Args:
        spec: The bucket's arithmetic.
        claim: The one that ends first.
        level: Units at the tick `last`.
        last: That tick.
        hard: Units of the hard claims, this one among them.
        soft: Units that may come back of the soft ones, this one among them.
        owed: Units that are noted for the soft ones beside these, and do not come back.

    Returns:
        The same five numbers without the claim, and the units that came back.
    """
    ends: i64 = -(-claim.ends_us // spec.tick_us)
    if ends > last:
        level = fill(spec, level, ends - last, max(0, spec.capacity - hard))
        last = ends
    over: i64 = min(soft, level + hard + soft - spec.capacity)
    if over > 0:
        soft -= over
        owed += over
    back: i64 = 0
    if claim.is_hard:
        hard -= claim.units
        if claim.kind == HOLD:
            back = claim.units
    else:
        left: i64 = max(0, claim.units - owed)
        owed -= claim.units - left
        soft -= left
        if claim.kind == RELEASE:
            back = left
    level = min(level + back, max(level, spec.capacity - hard, 0))
    return level, last, hard, soft, owed, back


def after_ends(  # noqa: PLR0913, PLR0917 - the state of a bucket beside claims
    spec: BucketSpec, active: list[Claim], level: i64, last: i64, hard: i64, soft: i64, now_us: i64
) -> tuple[i64, i64, i64, i64, i64, i64]:
    """Return the numbers of `fill_past` at an instant, and how many claims have ended by then: in as many steps.

    Args:
        spec: The bucket's arithmetic.
        active: The claims that have not ended yet, in the order of their ends.
        level: Units at the tick `last`.
        last: That tick.
        hard: Units of the hard claims.
        soft: Units that may come back of the soft ones.
        now_us: The instant.
    """
    tick = now_us // spec.tick_us
    owed: i64 = 0
    over: i64 = 0
    for claim in active:
        if -(-claim.ends_us // spec.tick_us) > tick:
            break
        level, last, hard, soft, owed, _ = fill_past(spec, claim, level, last, hard, soft, owed)
        over += 1
    level, last = refill_beside(spec, level, last, now_us, max(0, spec.capacity - hard))
    return level, last, hard, soft, owed, over


def reaches(  # noqa: PLR0913, PLR0917 - the state of a bucket beside claims
    spec: BucketSpec,
    active: list[Claim],
    level: i64,
    last: i64,
    units: i64,
    hard: i64,
    soft: i64,
    owed: i64,
    over: i64,
) -> i64:
    """Return the tick at which a bucket will have so many units if no call takes from it. Claims that end until then help.

    Args:
        spec: The bucket's arithmetic.
        active: The claims, in the order of their ends.
        level: Units at the tick `last`.
        last: That tick.
        units: At most the capacity.
        hard: As in `fill_past`.
        soft: As in `fill_past`.
        owed: As in `fill_past`.
        over: How many of the first claims are over.
    """
    count: i64 = len(active)
    for nth in range(over, count):
        claim = active[nth]
        room: i64 = max(0, spec.capacity - hard)
        ends = -(-claim.ends_us // spec.tick_us)
        if units <= room and (units - level <= 0 or last - (level - units) // spec.units_per_tick <= ends):
            break
        level, last, hard, soft, owed, _ = fill_past(spec, claim, level, last, hard, soft, owed)
    return last - (min(0, level - units)) // spec.units_per_tick
