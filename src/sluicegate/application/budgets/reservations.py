"""Reservations and holds: all of them but the waiting. What comes before the storage is asked, and what is made of its answer."""

from collections.abc import Sequence
from typing import Final

from sluicegate.application.administration import Administration
from sluicegate.application.budgets.claim_notices import ClaimNotices
from sluicegate.application.budgets.claim_numbers import draw_claim_number
from sluicegate.application.budgets.settling import Settling, at_cost, of_rule
from sluicegate.application.check import Check, result_of
from sluicegate.application.checker import Checker
from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Seconds, plain_text, read_cost, require_duration_us, require_seconds
from sluicegate.domain.buckets.bucket_request import BucketSettlement, ClaimTerms
from sluicegate.domain.claims.claim import HOLD, NOT_FOUND, PAID
from sluicegate.domain.claims.reservation import ClaimName, Hold, Reservation, RuleSettlement, Settlement, name_of
from sluicegate.domain.errors import InvalidTypeError, RateLimitError
from sluicegate.domain.events import RateLimitDebtCapped
from sluicegate.domain.result import Failure, Success
from sluicegate.domain.rules.compiled_rules import Limit
from sluicegate.domain.rules.rule import DEFAULT_HOLD_SECONDS

_HELD: Final = 0
_AS_RULES_SAY: Final = -1
_NOTHING: Final = Settlement(applied=False, charged=0, returned=0, debt=0)

# Compiled code finds these without a look-up in the module's names.
_reservation: Final = Reservation
_hold: Final = Hold
_claim_name: Final = ClaimName
_settlement: Final = Settlement
_success: Final = Success


class Reservations:
    """Prepare reservations, holds and settlements, and tell what became of them.

    Args:
        checker: Prepares and finishes the checks.
        administration: Finds the buckets of what is settled.
        failure_policy: It has reservations of its own, while the storage fails.
        notifier: Publishes events.
        storage: The name of the storage, if it has not the verbs; empty: it has.
    """

    def __init__(
        self,
        checker: Checker,
        administration: Administration,
        failure_policy: FailurePolicy,
        notifier: Notifier,
        storage: str,
    ) -> None:
        self._checker = checker
        self._administration = administration
        self._failure_policy = failure_policy
        self._notifier = notifier
        self._without = storage
        self._notices = ClaimNotices(notifier, failure_policy) if notifier.has_bus else None

    # Reserve and acquire

    def begin(  # noqa: PLR0913, PLR0917 - what a reservation is
        self,
        endpoint: object,
        identifier: object,
        cost: object,
        ttl_s: object,
        also: tuple[str, ...],
        rules: RulesSnapshot | None = None,
        *,
        holds: bool = False,
    ) -> Check:
        """Return the check of a reservation; each of the checks beside it makes claims as well.

        Args:
            endpoint: As in a check.
            identifier: As in a check.
            cost: As in a check.
            ttl_s: Seconds after which it ends; None: a minute, and `hold_seconds` for its calls in flight.
            also: As in a check.
            rules: As in a check.
            holds: Whether it is a hold, which reserves no tokens and ends when its rules say so.

        Raises:
            InvalidInputError: If an argument is wrong.
            InvalidTypeError: If the storage has no reservations.
        """
        self._require_verbs()
        ttl_us: int = _HELD if holds else _AS_RULES_SAY
        if ttl_s is not None:
            ttl_us = require_duration_us("ttl_seconds", ttl_s)
        check = self._checker.begin_claim(endpoint, identifier, cost, also, rules)
        number = draw_claim_number()
        _set_terms(check, number, ttl_us)
        for shadow in check.shadows:
            _set_terms(shadow, number, ttl_us)
            if any(terms.kind != PAID for terms in shadow.terms):
                check.number = number  # what only rules in shadow mode have claimed must be settled too
        return check

    def reservation(self, check: Check, endpoint: str, cost: object, also: tuple[str, ...]) -> Reservation:
        """Return what the caller gets of a check that is finished, and tell observers what it has claimed."""
        if self._notices is not None:
            self._notices.tell_claimed(check)
        rules = check.rules
        tokens = check.cost
        by_rule: dict[str, int] | None = None
        if type(cost) is not int:
            tokens, by_rule = read_cost(cost)
        if not tokens and rules is not None and rules.limits:
            tokens = rules.limits[0].rule.cost
        result = result_of(check)
        allowed = result.allowed
        return _reservation(
            allowed=allowed,
            result=result,
            expires_in=_first_end_us(check) / 1e6 if check.number else 0.0,
            degraded=check.degraded,
            name=_name(check, endpoint, also, allowed, by_rule is not None),
            cost=tokens if by_rule is None else by_rule,
        )

    def hold(self, check: Check, endpoint: str, also: tuple[str, ...]) -> Hold:
        """Return what the caller gets of a check that is finished, and tell observers what it has claimed."""
        if self._notices is not None:
            self._notices.tell_claimed(check)
        ends_us: list[int] = [terms.ttl_us for terms in check.terms if terms.kind == HOLD]
        result = result_of(check)
        allowed = result.allowed
        return _hold(
            allowed=allowed,
            result=result,
            expires_in=min(ends_us, default=0) / 1e6,
            degraded=check.degraded,
            name=_name(check, endpoint, also, allowed, False),  # noqa: FBT003 - a hold has no costs by rule
        )

    # Settle and extend

    def begin_settle(self, claim: object, cost: object) -> Settling | Failure[RateLimitError] | Success[Settlement]:
        """Return what to ask the storage, or the answer if there is nothing to ask.

        Args:
            claim: The reservation or hold, or its id.
            cost: What it really cost, by rule or for all; None: what was reserved.

        Raises:
            InvalidInputError: If an argument is wrong.
            InvalidTypeError: If the storage has no reservations.
        """
        settling = self._find(claim, "commit")
        if not isinstance(settling, Settling):
            return settling if isinstance(settling, Failure) else Success(_NOTHING)
        settling.check.requests = at_cost(settling, cost)
        return settling

    def begin_extend(self, claim: object, ttl_s: object) -> Settling | Failure[RateLimitError] | Success[None]:
        """Return what to ask the storage, or the answer if there is nothing to ask.

        Args:
            claim: The reservation or hold, or its id.
            ttl_s: Seconds from now; None: as long as the rules say.

        Raises:
            InvalidInputError: If an argument is wrong.
            InvalidTypeError: If the storage has no reservations.
        """
        if ttl_s is not None:
            require_seconds("ttl_seconds", ttl_s)
        settling = self._find(claim, "extend")
        if not isinstance(settling, Settling):
            return settling if isinstance(settling, Failure) else Success(None)
        return settling

    def ttls_us(self, settling: Settling, ttl_s: Seconds | None) -> tuple[int, ...]:
        """Return for how long each claim is extended."""
        if ttl_s is not None:
            return (round(ttl_s * 1_000_000),) * len(settling.limits)
        return tuple([limit.hold_us for limit in settling.limits])

    def settled(self, settling: Settling, answers: Sequence[BucketSettlement]) -> Success[Settlement]:
        """Return what became of a reservation."""
        if len(answers) == 1 and not settling.limits[0].in_flight:  # as most are
            self._tell_if_capped(settling, 0, answers[0])
            if self._notices is not None:
                self._notices.tell_settled(settling.number, settling.check, settling.limits, answers)
            one = of_rule(settling.limits[0], answers[0])
            return _success(_settlement(one.applied, one.charged, one.returned, one.debt, (one,)))
        rules: list[RuleSettlement] = []
        applied = False
        deepest: RuleSettlement | None = None
        for at, answer in enumerate(answers):
            limit = settling.limits[at]
            applied = applied or answer.found != NOT_FOUND
            if not limit.in_flight:
                rule = of_rule(limit, answer)
                rules.append(rule)
                if deepest is None or rule.debt > deepest.debt:
                    deepest = rule
                self._tell_if_capped(settling, at, answer)
        if self._notices is not None:
            self._notices.tell_settled(settling.number, settling.check, settling.limits, answers)
        if deepest is None:
            return _success(_settlement(applied, 0, 0, 0))
        return _success(_settlement(applied, deepest.charged, deepest.returned, deepest.debt, tuple(rules)))

    def failed(self, settling: Settling, verb: str, error: Exception) -> Failure[RateLimitError]:
        """Return the failure of a call that never fails open."""
        return self._administration.failed(settling.check, verb, error)

    def settle_local(self, settling: Settling) -> tuple[BucketSettlement, ...]:
        """Settle what the failure policy has counted in this process."""
        return self._failure_policy.settle(settling.check.requests, settling.number, settling.max_debts)

    def extend_local(self, settling: Settling, ttls_us: tuple[int, ...]) -> int:
        """Extend what the failure policy has counted in this process."""
        return self._failure_policy.extend(settling.check.requests, settling.number, ttls_us)

    def extended(
        self, settling: Settling, ttls_us: tuple[int, ...], count: int
    ) -> Success[None] | Failure[RateLimitError]:
        """Return what became of an extension: a failure if there was nothing to extend in any of the buckets."""
        if count:
            if self._notices is not None:
                self._notices.tell_extended(settling.number, settling.check, settling.limits, ttls_us)
            return Success(None)
        endpoint = settling.name.endpoint
        return Failure(RateLimitError("ended", "It has ended or was settled; nothing was extended.", endpoint))

    def warn(self, message: str, error: RateLimitError) -> None:
        """Log that something was not done which no caller waits for."""
        self._notifier.warn_throttled(error.reason, message, error_message=error.message, endpoint=error.endpoint)

    def _find(self, claim: object, verb: str) -> Settling | Failure[RateLimitError] | None:
        """Return the buckets of a claim; None if nothing was claimed."""
        self._require_verbs()
        name: ClaimName = claim.name if type(claim) is _reservation or type(claim) is _hold else name_of(claim)
        endpoint: str = name.endpoint
        degraded: str = name.degraded
        if degraded and degraded != "local":
            message = f"It was allowed while the storage failed ({degraded}): there is nothing to {verb}."
            return Failure(RateLimitError("degraded", message, endpoint))
        if not name.number:
            return None
        check = self._administration.find(endpoint, name.identifier, 0, verb, name.also)
        if not isinstance(check, Check):
            return check if isinstance(check, Failure) else None
        rules = check.rules
        if rules is None or not check.requests:
            return None
        return Settling(check, rules, name, bool(degraded))

    def _tell_if_capped(self, settling: Settling, at: int, answer: BucketSettlement) -> None:
        request = settling.check.requests[at]
        if answer.found == NOT_FOUND or answer.charged_units >= request.cost_units:
            return
        limit, rules = settling.limits[at], settling.rules
        token = limit.spec.units_per_token
        identifier = limit.identifier_of(settling.check.identifier)
        self._notifier.warn_throttled(
            f"debt:{limit.policy}",
            "A reservation cost more than the debt that its rule allows; the rest is not charged.",
            endpoint=rules.endpoint,
            identifier=identifier,
            policy=limit.policy,
        )
        if self._notifier.has_listener(RateLimitDebtCapped):
            self._notifier.publish(
                RateLimitDebtCapped(
                    endpoint=rules.endpoint,
                    identifier=identifier,
                    scope=limit.scope,
                    cost=request.cost_units // token,
                    charged=answer.charged_units // token,
                    policy=limit.policy,
                    max_debt=limit.max_debt_units // token,
                )
            )

    def _require_verbs(self) -> None:
        if self._without:
            raise InvalidTypeError(
                f"storage={self._without}: has no reservations and holds: it has not the verbs of ReservationStorage"
            )


def _set_terms(check: Check, number: int, ttl_us: int) -> None:
    """Note what a check claims: a reservation that lasts so long, or else a hold."""
    rules = check.rules
    if rules is None or not check.requests:
        return
    check.number = number
    limits = rules.limits
    if len(limits) == 1:
        check.terms = (_terms(limits[0], ttl_us),)
    else:
        check.terms = tuple([_terms(limit, ttl_us) for limit in limits])


def _terms(limit: Limit, ttl_us: int) -> ClaimTerms:
    if ttl_us > 0:
        return ClaimTerms(limit.on_reserve, ttl_us)
    if ttl_us == _HELD or limit.in_flight:
        return limit.hold_terms
    return ClaimTerms(limit.on_reserve, DEFAULT_HOLD_SECONDS * 1_000_000)


def _first_end_us(check: Check) -> int:
    """Return after which time the first of the claims of a check ends."""
    ends_us: list[int] = [terms.ttl_us for one in (check, *check.shadows) for terms in one.terms if terms.ttl_us]
    return min(ends_us, default=0)


def _name(check: Check, endpoint: str, also: tuple[str, ...], allowed: bool, by_rule: bool) -> ClaimName:
    number = check.number if allowed else 0
    return _claim_name(number, plain_text(endpoint), check.identifier, by_rule, check.degraded or "", also)
