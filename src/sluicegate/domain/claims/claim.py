"""One claim on a bucket, the kinds of claims, and the order of their ends; `claims.py` says what they are for."""

from typing import Final

from mypy_extensions import i64, mypyc_attr

PAID: Final = 0
"""No claim: a cost that is paid for good, beside others of the same call that leave one."""

CHARGE: Final = 1
"""A reservation that is charged if it expires unsettled."""

RELEASE: Final = 2
"""A reservation whose tokens come back if it expires unsettled."""

HOLD: Final = 3
"""A call in flight: its units come back when it ends."""

ENDED: Final = 4
"""A reservation that ended unsettled, kept for a late commit."""

LOAN: Final = 5
"""Units that a process spends without asking. Only Redis lends."""

KEPT_US: Final = 600_000_000
"""How long a reservation that ended unsettled is kept: ten minutes. A later commit of it changes nothing, and says so."""

MAX_CLAIMS: Final = 10_000
"""The most claims on one bucket."""

AS_RESERVED: Final = -1
"""The cost of a settlement that charges what was reserved."""

NOT_FOUND: Final = 0
IN_TIME: Final = 1
LATE: Final = 2
"""What a settlement found: no claim, one that was not over, or one that had ended."""


@mypyc_attr(acyclic=True)
class Claim:
    """One claim on one bucket.

    Args:
        number: What names it among the bucket's claims, 1 to 2**52.
        units: What may come back of it. Of one that has ended: what came back then.
        ends_us: When it ends.
        cost_units: What it took at first.
        kind: `CHARGE`, `RELEASE`, `HOLD`, `ENDED` or `LOAN`.
        ttl_us: For how long it was given. A claim that seems to last longer was given before the clock stepped back.
    """

    __slots__ = ("cost_units", "ends_us", "kind", "number", "ttl_us", "units")

    def __init__(  # noqa: PLR0913, PLR0917 - one record, built in one place
        self, number: i64, units: i64, ends_us: i64, cost_units: i64, kind: i64, ttl_us: i64
    ) -> None:
        self.number = number
        self.units = units
        self.ends_us = ends_us
        self.cost_units = cost_units
        self.kind = kind
        self.ttl_us = ttl_us

    @property
    def is_hard(self) -> bool:
        """Whether its units are kept for it, come what may."""
        return self.kind == HOLD or self.kind == LOAN  # noqa: PLR1714 - twice as fast where it is compiled


def file_claim(order: list[Claim], claim: Claim) -> None:
    """Insert a claim into a list in the order of their ends, behind those that end with it: at the end in one step."""
    low: i64 = 0
    high: i64 = len(order)
    ends_us = claim.ends_us
    if high == 0 or order[high - 1].ends_us <= ends_us:
        order.append(claim)
        return
    while low < high:
        middle = (low + high) >> 1
        if order[middle].ends_us <= ends_us:
            low = middle + 1
        else:
            high = middle
    order.insert(low, claim)


def unfile_claim(order: list[Claim], claim: Claim) -> None:
    """Remove a claim from a list in the order of their ends."""
    low: i64 = 0
    high: i64 = len(order)
    ends_us = claim.ends_us
    while low < high:
        middle = (low + high) >> 1
        if order[middle].ends_us < ends_us:
            low = middle + 1
        else:
            high = middle
    while order[low] is not claim:
        low += 1
    del order[low]
