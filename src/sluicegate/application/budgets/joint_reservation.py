"""Several reservations that are made in one step, all of them or none: all of it but the waiting.

Their claims have one number, so that one call of the storage settles all of them; see `joint_settlement.py`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from sluicegate.application.budgets.reservations import Reservations
from sluicegate.application.budgets.settling import Settling
from sluicegate.application.check import Check, Decision, decision_of
from sluicegate.application.joint_check import JointCheck, Part, Verb
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Seconds
from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms
from sluicegate.domain.claims.reservation import Reservation
from sluicegate.domain.errors import InvalidInputError

SEPARATOR: Final = "."
"""What stands between the ids of the parts, in which it does not occur."""


class JointReservation(msgspec.Struct, frozen=True):
    """Tokens of several parts that are taken until a commit tells what the call really cost.

    Args:
        allowed: Whether the call may be made: all parts are reserved. Else none is.
        parts: What each part would have been answered by itself, and why.
        expires_in: Seconds from the call after which it ends by itself; 0.0 where nothing was claimed.
    """

    allowed: bool
    parts: tuple[tuple[Reservation, Decision], ...]
    expires_in: float

    @property
    def id(self) -> str:
        """A text that stands for it in any process; empty if it is denied. It contains the identifiers: treat it alike."""
        return SEPARATOR.join([reservation.id for reservation, _ in self.parts]) if self.allowed else ""

    @property
    def is_degraded(self) -> bool:
        """Whether a failure policy answered in the storage's place."""
        return any(reservation.degraded is not None for reservation, _ in self.parts)


class JointClaim:
    """What some parts claim, and what came of it.

    Args:
        reservations: Prepares the parts.
        parts: The parts.
        ttl_s: When the claims end by themselves.
        rules: The rules that hold.

    Raises:
        InvalidInputError: If an argument is wrong.
        InvalidTypeError: If the storage has no reservations.
    """

    def __init__(self, reservations: Reservations, parts: Sequence[Part], ttl_s: Seconds, rules: RulesSnapshot) -> None:
        for part in parts:
            if part.rule is not None or part.verb != "take":
                raise InvalidInputError(f"{part!r:.80}: expected tokens of the endpoint's own rules, to be reserved")
        self._reservations = reservations
        self._parts = parts
        checks = [reservations.begin(one.endpoint, one.identifier, one.cost, ttl_s, (), rules) for one in parts]
        self.number = max([one.number for check in checks for one in (check, *check.shadows)], default=0)
        """What names the claims of all of them."""
        self._terms: dict[str, ClaimTerms] = {}
        for check in checks:
            for request, terms in zip(check.requests, check.terms, strict=True):
                self._terms[request.key] = terms
        self.shadows: Final = _distinct_shadows(checks, self.number)
        """The checks of rules in shadow mode. Each is claimed or not whatever becomes of the others."""
        verbs: list[Verb] = ["take"] * len(checks)
        self.joint: Final = JointCheck(verbs, checks)
        """What to ask the storage for the others."""

    def terms_of(self, requests: Sequence[BucketRequest]) -> tuple[ClaimTerms, ...]:
        """Return what claims the requests leave."""
        return tuple([self._terms[request.key] for request in requests])

    def fail(self, error: Exception) -> None:
        """Note what kept the storage from answering."""
        self.joint.fail(error)
        for shadow in self.shadows:
            if shadow.is_open:
                shadow.error = error

    def conclude(self) -> JointReservation:
        """Return what the caller gets, once the check is finished.

        What the failure policy has reserved in this process goes back if the whole is denied.
        """
        allowed = self.joint.allowed
        made: list[tuple[Reservation, Decision]] = []
        for part, check in zip(self._parts, self.joint.checks, strict=True):
            if check.number and check.degraded is None:  # else its number is its own, as are its local buckets
                check.number = self.number if allowed else 0
            reservation = self._reservations.reservation(check, part.endpoint, part.cost, ())
            if not allowed and reservation.degraded == "local":
                _give_back(self._reservations, reservation)
            made.append((reservation, decision_of(check)))
        expires_in = max([one.expires_in for one, _ in made], default=0.0) if allowed else 0.0
        return JointReservation(allowed, tuple(made), expires_in)


def _give_back(reservations: Reservations, reservation: Reservation) -> None:
    settling = reservations.begin_settle(reservation, 0)
    if isinstance(settling, Settling):
        reservations.settled(settling, reservations.settle_local(settling))


def _distinct_shadows(checks: Sequence[Check], number: int) -> tuple[Check, ...]:
    """Return the shadows of all checks: a bucket has one claim of a number, so those that share one are asked once, for all."""
    distinct: dict[str, Check] = {}
    for check in checks:
        kept: list[Check] = []
        for shadow in check.shadows:
            other = distinct.get(shadow.requests[0].key) if shadow.requests else None
            if other is None:
                kept.append(shadow)
                shadow.number = number if shadow.requests else 0
                if shadow.requests:
                    distinct[shadow.requests[0].key] = shadow
            else:
                request, more = other.requests[0], shadow.requests[0]
                units = min(request.cost_units + more.cost_units, request.spec.capacity)
                other.requests = (request.with_cost(units),)
        check.shadows = tuple(kept)
    return tuple(distinct.values())
