"""What is asked of `token_bucket.lua`: verbs, their arguments, and who waits for the answer."""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from mypy_extensions import mypyc_attr

from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms, Verdict
from sluicegate.infrastructure.redis.errors import BUSY, SILENT, Fault

TAKE: Final = 0
PEEK: Final = 1
REFUND: Final = 2
RESET: Final = 3
LEND: Final = 4
RESERVE: Final = 5
SETTLE: Final = 6
EXTEND: Final = 7
"""The verbs, as the script numbers them."""

LENT_US: Final = 2_500_000
"""How long the script counts a loan as lent, in microseconds; the script has the same number."""

Waiter: TypeAlias = asyncio.Future[Any] | concurrent.futures.Future[Any]
"""What a caller waits on, in an event loop or in a thread."""


class LeaseTerms(NamedTuple):
    """What a process tells about its loan of a bucket, and what it wants to borrow.

    Args:
        lease_id: The loan's number, 1 to 2**53. A loan whose reply was lost is never named again: the next one gets a new number.
        returned: Units that go back; the process must not have them any more.
        kept: Units that it goes on spending; it may have fewer by the time the script runs, never more.
        wanted: Units to lend besides paying the cost; fewer or none are lent if there are not enough.
    """

    lease_id: int
    returned: int
    kept: int
    wanted: int


@mypyc_attr(acyclic=True)
class ClaimCall:
    """The further arguments of `RESERVE`, `SETTLE` and `EXTEND`.

    Args:
        number: What names the claims, 1 to 2**52.
        numbers: For each request: kind and microseconds, the greatest debt in units, or microseconds.
    """

    __slots__ = ("number", "numbers")

    def __init__(self, number: int, numbers: tuple[int, ...]) -> None:
        self.number = number
        self.numbers = numbers


def reserve_call(number: int, terms: Sequence[ClaimTerms]) -> ClaimCall:
    """Return the further arguments of `RESERVE`."""
    return ClaimCall(number, tuple([value for one in terms for value in (one.kind, one.ttl_us)]))


class Loan(NamedTuple):
    """What `LEND` returns.

    Args:
        verdict: Whether the cost was paid, and the level of what is left in the bucket.
        units: Units that were lent anew. With what was kept they may be spent for `LENT_US`, less a margin, counted from when
            the call was sent.
    """

    verdict: Verdict
    units: int


@mypyc_attr(acyclic=True)  # it is in no reference cycle: the garbage collector need not look at it
class Call:
    """One verb on some buckets, and the future of the caller who waits for it.

    Args:
        verb: `TAKE`, `PEEK`, `REFUND`, `RESET`, `LEND`, `RESERVE`, `SETTLE` or `EXTEND`.
        requests: The buckets, at least one; for `LEND` exactly one, whose cost may be 0.
        future: Gets a `Verdict` for `TAKE` and `RESERVE`, levels for `PEEK` and `REFUND`, None for `RESET`, a `Loan` for `LEND`,
            settlements for `SETTLE`, a number of claims for `EXTEND`, or a `StorageError`. May be cancelled at any time; the
            answer is discarded then.
        due_s: The event loop's time by which it is answered.
        terms: For `LEND`, and the verbs of claims, alone.
    """

    __slots__ = ("alone", "asking", "due_s", "future", "hops", "lost_s", "requests", "slot", "terms", "verb")

    def __init__(
        self,
        verb: int,
        requests: Sequence[BucketRequest],
        future: Waiter,
        due_s: float,
        terms: LeaseTerms | ClaimCall | None = None,
    ) -> None:
        self.verb = verb
        self.requests = requests
        self.future = future
        self.due_s = due_s
        self.terms = terms
        self.slot = -1
        """The Cluster slot of its keys; -1 without a Cluster."""
        self.hops = 0
        """How often a Cluster has redirected it."""
        self.asking = False
        """Whether the node that gets it must be sent `ASKING` first."""
        self.alone = False
        """Whether it goes in a script call of its own."""
        self.lost_s = 0.0
        """For how long the event loop was too busy for it; `due_s` is later by that time."""

    def delay(self, late_s: float) -> None:
        """Give it the time that the event loop lost."""
        self.due_s += late_s
        self.lost_s += late_s

    def blame(self, waited_s: float) -> Fault:
        """Return why it was not answered in time: because of the server or of the event loop, whichever took longer.

        Args:
            waited_s: How long the server has been silent.
        """
        return SILENT if waited_s >= self.lost_s else BUSY
