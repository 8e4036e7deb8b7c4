"""Several checks decided together: all are paid or none, in one call of the storage, and each has an answer of its own."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from sluicegate.application.check import Check, result_of
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.token_bucket import impossible
from sluicegate.domain.rules.rule import RateLimitRule

Verb: TypeAlias = Literal["take", "peek", "refund"]
"""What a part of a joint check does: pay, only look, or put tokens back."""


class Part:
    """One part of a joint check.

    Args:
        endpoint: The endpoint.
        identifier: The client.
        cost: Tokens; 0: the rules' own cost.
        verb: `take`; `peek`, which tells whether `cost` could be paid, and denies the whole if not; `refund`, which puts tokens
            back, never above the capacity, if the whole is allowed.
        rule: A rule in place of the endpoint's rules; None: those.
    """

    __slots__ = ("cost", "endpoint", "identifier", "rule", "verb")

    def __init__(
        self,
        endpoint: str,
        identifier: Identifier,
        cost: int = 0,
        verb: Verb = "take",
        rule: RateLimitRule | None = None,
    ) -> None:
        self.endpoint: Final = endpoint
        self.identifier: Final = identifier
        self.cost: Final = cost
        self.verb: Final[Verb] = verb
        self.rule: Final = rule

    def __repr__(self) -> str:
        return f"Part({self.endpoint!r}, {self.identifier!r}, {self.cost}, {self.verb!r}, {self.rule!r})"


class JointCheck:
    """What to ask the storage for some checks together, and what came of it. It waits for nothing by itself.

    Args:
        verbs: What each check does.
        checks: The checks as they were prepared; those that have a result already ask for nothing.
        denied: Whether the whole is denied whatever the buckets hold: then none is charged.
    """

    def __init__(self, verbs: Sequence[Verb], checks: Sequence[Check], *, denied: bool = False) -> None:
        self.checks: Final = tuple(checks)
        """The checks, in the order of the parts. One that was denied lacks tokens itself; the others of a denial do not."""
        self._verbs = tuple(verbs)
        self._denied = denied
        self._is_plain = len(self.checks) == 1 and self._verbs[0] == "take" and not denied
        self._look: dict[str, BucketRequest] = {}
        self._payments: dict[str, BucketRequest] = {}
        self._refunds: dict[str, BucketRequest] = {}
        self._own: tuple[tuple[BucketRequest, ...], ...] = ()
        if self._is_plain:  # nothing to merge and nothing to look at, as most requests
            self._denied = self._any_denied()
            if not self._denied:
                self._payments = {request.key: request for request in self.checks[0].requests}
            return
        self._own = tuple([check.requests for check in self.checks])
        self._look = self._merge("peek", "refund")
        self._payments = self._merge("take")
        self._refunds = self._merge("refund")
        self._refuse_what_never_fits()
        if self._any_denied():
            self._denied = True
        if self._denied or (self._look and not self._only("refund")):
            self._look.update(self._payments)
        else:
            self._look = {}

    @property
    def allowed(self) -> bool:
        """Whether all of them are allowed, once all are done."""
        return not self._denied and all(result_of(check).allowed for check in self.checks)

    @property
    def question(self) -> tuple[Verb, tuple[BucketRequest, ...]] | None:
        """What to ask the storage next; None: nothing more."""
        if self._look:
            return "peek", tuple(self._look.values())
        if self._payments:
            return "take", tuple(self._payments.values())
        if self._refunds:
            return "refund", tuple(self._refunds.values())
        return None

    @property
    def waits(self) -> bool:
        """Whether the storage must be awaited, for one of the checks or one of their shadows."""
        return self.question is not None or any(check.waits for check in self.checks)

    def answer(self, verdict: Verdict) -> None:
        """Take the storage's answer to the question; the verdict of a look or of a refund is that it was carried out.

        Raises:
            Exception: If the storage returned what no storage may return.
        """
        question = self.question
        assert question is not None  # noqa: S101 - there was a question
        verb, requests = question
        if self._is_plain:
            self._payments = {}
            self.checks[0].conclude(verdict)
            return
        levels = {request.key: level for request, level in zip(requests, verdict.levels, strict=True)}
        if verb == "peek":
            self._after_look(levels)
        elif verb == "take":
            self._payments = {}
            if not verdict.allowed:
                self._denied = True
                self._refunds = {}
            self._conclude("take", levels, charged=verdict.allowed)
        else:
            self._refunds = {}
            self._conclude("refund", levels, charged=True)

    def fail(self, error: Exception) -> None:
        """Note what kept the storage from answering; `Checker.finish` makes it an answer."""
        self._look, self._payments, self._refunds = {}, {}, {}
        for at, check in enumerate(self.checks):
            if check.is_open:
                check.error = error
                if self._own:
                    check.requests = self._own[at]  # each is answered by itself

    def _after_look(self, levels: dict[str, BucketLevel]) -> None:
        self._look = {}
        self._conclude("peek", levels, charged=False)
        if self._any_denied():
            self._denied = True
        if self._denied:
            self._payments, self._refunds = {}, {}
            self._conclude("take", levels, charged=False)
        if self._denied or self._payments:  # a refund that is not carried out has this answer
            self._conclude("refund", levels, charged=False)

    def _any_denied(self) -> bool:
        return any(check.result is not None and not check.result.allowed for check in self.checks)

    def _conclude(self, verb: Verb, levels: dict[str, BucketLevel], *, charged: bool) -> None:
        """Give each check of a kind its answer, from levels before a payment if nothing was charged."""
        for check, one in zip(self.checks, self._verbs, strict=True):
            if one != verb or not check.requests or check.error is not None:
                continue
            own = tuple([levels[request.key] for request in check.requests])
            suffices = verb == "refund" or all(
                level.level >= request.cost_units for request, level in zip(check.requests, own, strict=True)
            )
            check.is_quiet = verb != "take" or (suffices and not charged)
            check.conclude(Verdict(charged or suffices, own))

    def _merge(self, *verbs: Verb) -> dict[str, BucketRequest]:
        """Return the requests of the checks of some kinds, one for each bucket."""
        merged: dict[str, BucketRequest] = {}
        for check, verb in zip(self.checks, self._verbs, strict=True):
            if verb in verbs and check.result is None:
                for request in check.requests:
                    other = merged.get(request.key)
                    merged[request.key] = request if other is None else _sum(other, request, verb)
        return merged

    def _refuse_what_never_fits(self) -> None:
        """Deny checks that share a bucket and together cost more than it holds; the others know the whole cost."""
        for check, verb in zip(self.checks, self._verbs, strict=True):
            if verb != "take" or check.result is not None:
                continue
            check.requests = tuple([self._payments[request.key] for request in check.requests])
            exceeded = [one.spec.max_tokens for one in check.requests if one.cost_units > one.spec.capacity]
            if exceeded:
                check.requests = ()
                check.result = impossible(min(exceeded))
        self._payments = self._merge_paid()

    def _merge_paid(self) -> dict[str, BucketRequest]:
        return {
            request.key: request
            for check, verb in zip(self.checks, self._verbs, strict=True)
            if verb == "take" and check.result is None
            for request in check.requests
        }

    def _only(self, verb: Verb) -> bool:
        return all(one == verb for one in self._verbs)

    def __repr__(self) -> str:
        return f"JointCheck(checks={len(self.checks)}, question={self.question!r})"


def _sum(one: BucketRequest, other: BucketRequest, verb: Verb) -> BucketRequest:
    units = one.cost_units + other.cost_units
    if verb != "take":  # no more than a full bucket is ever put back
        units = min(units, one.spec.capacity)
    return BucketRequest(one.key, one.spec, units)
