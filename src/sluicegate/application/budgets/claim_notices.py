"""Telling observers when reservations and calls in flight begin, go on and end, rule by rule."""

from collections.abc import Iterator, Sequence

from sluicegate.application.check import Check
from sluicegate.application.failure_policy import FailurePolicy
from sluicegate.application.notifier import Notifier
from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement, ClaimTerms
from sluicegate.domain.claims.claim import HOLD, NOT_FOUND, PAID
from sluicegate.domain.events import RateLimitClaimed, RateLimitClaimExtended, RateLimitClaimSettled
from sluicegate.domain.rules.endpoint_rules import Limit


class ClaimNotices:
    """Publish events about claims. No event is built for a type without listeners.

    Args:
        notifier: Publishes the events.
        failure_policy: Tells which rules are counted in this process while the storage fails.
    """

    def __init__(self, notifier: Notifier, failure_policy: FailurePolicy) -> None:
        self._notifier = notifier
        self._failure_policy = failure_policy

    def tell_claimed(self, check: Check) -> None:
        """Tell of what a check that is finished, and those beside it, have claimed."""
        if not check.number or check.result is None or not check.result.allowed:
            return
        if not self._notifier.has_listener(RateLimitClaimed):
            return
        for one in (check, *check.shadows):
            for limit, request, terms in self._claims(one):
                self._notifier.publish(
                    RateLimitClaimed(
                        **_facts(one, limit),  # type: ignore[arg-type]
                        claim=one.number,
                        in_flight=terms.kind == HOLD,
                        cost=request.cost_units // limit.spec.units_per_token,
                        expires_in=float(terms.ttl_us) / 1e6,
                    )
                )

    def _claims(self, check: Check) -> Iterator[tuple[Limit, BucketRequest, ClaimTerms]]:
        """Yield the rules of a check under which there is a claim now."""
        counted_here = check.degraded == "local"
        if check.rules is None or not (counted_here or (check.verdict is not None and check.verdict.allowed)):
            return  # nothing counts it, or the rule in shadow mode would have denied it
        for limit, request, terms in zip(check.rules.limits, check.requests, check.terms, strict=True):
            if terms.kind != PAID and (not counted_here or self._failure_policy.policy_of(limit.rule) == "local"):
                yield limit, request, terms

    def tell_extended(self, number: int, check: Check, limits: Sequence[Limit], ttls_us: Sequence[int]) -> None:
        """Tell that claims last longer.

        Args:
            number: The claims'.
            check: Their buckets.
            limits: The rule of each.
            ttls_us: For how long from now.
        """
        if not self._notifier.has_listener(RateLimitClaimExtended):
            return
        for limit, ttl_us in zip(limits, ttls_us, strict=True):
            if ttl_us:
                self._notifier.publish(
                    RateLimitClaimExtended(
                        **_facts(check, limit),  # type: ignore[arg-type]
                        claim=number,
                        expires_in=ttl_us / 1e6,
                    )
                )

    def tell_settled(
        self, number: int, check: Check, limits: Sequence[Limit], answers: Sequence[BucketSettlement]
    ) -> None:
        """Tell what became of claims; arguments as in `tell_extended`, and the storage's answers."""
        if not self._notifier.has_listener(RateLimitClaimSettled):
            return
        for limit, answer in zip(limits, answers, strict=True):
            token = limit.spec.units_per_token
            self._notifier.publish(
                RateLimitClaimSettled(
                    **_facts(check, limit),  # type: ignore[arg-type]
                    claim=number,
                    applied=answer.found != NOT_FOUND,
                    charged=answer.charged_units // token,
                    returned=answer.returned_units // token,
                )
            )


def _facts(check: Check, limit: Limit) -> dict[str, object]:
    rules = check.rules
    assert rules is not None  # noqa: S101 - claims are made under rules
    return {
        "endpoint": rules.endpoint,
        "identifier": limit.identifier_of(check.identifier),
        "scope": limit.scope,
        "rule": limit.policy,
    }
