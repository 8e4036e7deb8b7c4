"""All of a check but the waiting: what comes before the storage is asked, and after it has answered."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sluicegate.application.check import Check, ask_rules, prepare
from sluicegate.application.check_announcer import CheckAnnouncer
from sluicegate.application.failure_policy import FailurePolicy, FallbackAnswer, reason_of
from sluicegate.application.joint_check import JointCheck, Part
from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.application.rules.rules_snapshot import CurrentRules, RulesSnapshot
from sluicegate.application.rules.shadow_rules import ShadowRules
from sluicegate.domain.arguments import require_cost, require_identifier, require_text
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.protocols import NonBlockingStorage
from sluicegate.domain.rules.endpoint_rules import EndpointRules, Limit, untouched
from sluicegate.domain.rules.rule import RateLimitRule

_MAX_AD_HOC: Final = 1024  # rules that are in no book and are kept ready


class Checker:
    """Prepare checks, finish them, and tell the observers.

    Args:
        live_rules: The rules in force.
        key_format: How buckets are named.
        failure_policy: What to answer while the storage fails.
        notifier: Publishes events and writes log lines.
        now_ns: What measures execution times: reads a monotonic clock in nanoseconds.
        utc_now: The wall clock, for entries that have an end.
        observed: Whether there is a bus, which may have listeners.
        storage: Asked first whether it can decide at once, if it is a `NonBlockingStorage`.
    """

    def __init__(  # noqa: PLR0913 - collaborators, given by name
        self,
        *,
        live_rules: LiveRules,
        key_format: KeyFormat,
        failure_policy: FailurePolicy,
        notifier: Notifier,
        now_ns: Callable[[], int],
        utc_now: Callable[[], datetime],
        observed: bool,
        storage: object,
    ) -> None:
        self.live_rules = live_rules
        self._current_rules: CurrentRules = live_rules.held
        self.failure_policy = failure_policy
        self.shadow_rules = ShadowRules(notifier, failure_policy)
        self._key_format = key_format
        self.notifier = notifier
        self.utc_now = utc_now
        self._observed = observed
        self.announcer = CheckAnnouncer(notifier, now_ns, observed=observed)
        """Tells observers of checks."""
        self._never_waits = bool(getattr(getattr(storage, "traits", None), "never_waits", False))
        self._ad_hoc: dict[tuple[str, RateLimitRule, bool], EndpointRules] = {}
        self._take_nowait: Callable[[Sequence[BucketRequest]], Verdict | None] = (
            storage.take_nowait if isinstance(storage, NonBlockingStorage) else _cannot_decide
        )

    def check_nowait(
        self,
        endpoint: object,
        identifier: object,
        cost: object,
        also: tuple[str, ...] = (),
        rules: RulesSnapshot | None = None,
    ) -> Check:
        """Return a check that is done, or one that waits for the storage; arguments as in `prepare`.

        Args:
            endpoint: The endpoint as the caller names it.
            identifier: The client.
            cost: Tokens; 0: the rules' own cost.
            also: Other endpoints whose rules hold as well.
            rules: The rules that named the endpoint; None: those in force.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        snapshot = self.current() if rules is None else rules
        check = prepare(snapshot.rules, self._key_format, endpoint, identifier, cost, self.utc_now, also=also)
        named = check.rules
        if named is not None and named.in_flight:
            self.live_rules.warn_of_calls_in_flight(named)
        if not check.requests:
            self.announcer.unasked(check, snapshot, endpoint)
        else:
            if self._observed:
                self.announcer.attempt(check)
            self._decide_nowait(check)
        if check.shadows:
            self._decide_shadows_nowait(check)
        if not check.waits and (
            self._observed or check.shadows or check.error is not None or self.failure_policy.outage.is_on
        ):
            self.finish(check)
        return check

    def begin_claim(
        self, endpoint: object, identifier: object, cost: object, also: tuple[str, ...], rules: RulesSnapshot | None
    ) -> Check:
        """Return the check of a reservation or a hold: it is done, or waits for the storage. `finish` it in either case.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        snapshot = self.current() if rules is None else rules
        check = prepare(
            snapshot.rules, self._key_format, endpoint, identifier, cost, self.utc_now, also=also, claims=True
        )
        if not check.requests:
            self.announcer.unasked(check, snapshot, endpoint)
        elif self._observed:
            self.announcer.attempt(check)
        check.waits = bool(check.requests)
        return check

    def begin_together(self, parts: Sequence[Part], *, denied: bool, rules: RulesSnapshot | None = None) -> JointCheck:
        """Return a joint check that is done, or one that waits for the storage; `rules` as in `check_nowait`.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        snapshot = self.current() if rules is None else rules
        checks = [self._prepare_part(part, snapshot) for part in parts]
        joint = JointCheck([part.verb for part in parts], checks, denied=denied)
        question = joint.question
        if question is not None and question[0] == "take":
            try:
                verdict = self._take_nowait(question[1])
                if verdict is not None:
                    joint.answer(verdict)
            except Exception as error:  # noqa: BLE001 - `finish` makes it an answer
                joint.fail(error)
        for check in checks:
            if check.shadows:
                self._decide_shadows_nowait(check)
        if not joint.waits:
            self.finish_together(joint, waited=False)
        return joint

    def finish_together(self, joint: JointCheck, *, waited: bool = True) -> None:
        """Give each check of a joint check its result, and tell the observers; `waited`: the storage had to be awaited."""
        for check in joint.checks:
            check.waits = check.waits or (waited and bool(check.requests))
            if self._observed or check.shadows or check.error is not None or self.failure_policy.outage.is_on:
                self.finish(check)

    def _prepare_part(self, part: Part, snapshot: RulesSnapshot) -> Check:
        check = self._prepare_one(part, snapshot, part.cost)
        rules = check.rules
        if part.verb == "refund":
            if rules is not None and rules.disabled is None and part.cost > rules.max_cost and check.listed is None:
                check = self._prepare_one(part, snapshot, rules.max_cost)  # more than a full bucket is never put back
            check.shadows = ()
        elif part.verb == "peek":
            check.shadows = ()
        elif not check.requests:
            self.announcer.unasked(check, snapshot, part.endpoint)
        elif self._observed:
            self.announcer.attempt(check)
        return check

    def _prepare_one(self, part: Part, snapshot: RulesSnapshot, cost: int) -> Check:
        if part.rule is None:
            return prepare(snapshot.rules, self._key_format, part.endpoint, part.identifier, cost, self.utc_now)
        return ask_rules(
            self._rules_of(part.endpoint, part.rule, snapshot),
            self._key_format,
            require_identifier(part.identifier),
            require_cost(cost),
        )

    def _rules_of(self, endpoint: str, rule: RateLimitRule, snapshot: RulesSnapshot) -> EndpointRules:
        """Return a rule that is in no book as the rules of an endpoint; switched off if everything is."""
        off = any(not switch.policies for switch in snapshot.switches)
        key = (endpoint, rule, off)
        rules = self._ad_hoc.get(key)
        if rules is None:
            if len(self._ad_hoc) >= _MAX_AD_HOC:
                self._ad_hoc.clear()
            limit = Limit(rule, endpoint, self._key_format.frame(rule.scope, require_text("endpoint", endpoint)))
            disabled = untouched([rule]) if off or not rule.enabled else None
            rules = EndpointRules(
                endpoint, () if disabled else (limit,), (), disabled, (limit.scope,), frozenset([rule.policy])
            )
            self._ad_hoc[key] = rules
        return rules

    def _decide_shadows_nowait(self, check: Check) -> None:
        for shadow in check.shadows:
            if shadow.is_open:
                self._decide_nowait(shadow)
                check.waits = check.waits or shadow.waits

    def current(self) -> RulesSnapshot:
        """Return the rules in force."""
        return self.live_rules.current() if self._current_rules.is_over else self._current_rules.snapshot

    def _decide_nowait(self, check: Check) -> None:
        try:
            verdict = self._take_nowait(check.requests)
            if verdict is None:
                check.waits = True
            else:
                check.conclude(verdict)
        except Exception as error:  # noqa: BLE001 - `finish` makes it an answer
            check.error = error

    def finish(self, check: Check) -> None:
        """Give a check its result once the storage has answered or failed, and tell the observers.

        This is the one place where a failed check becomes an answer. It raises nothing: the check may have been paid, and a
        caller that asked again would be charged twice.
        """
        error = check.error
        answer = None if error is None else self._answer_without_storage(check, error)
        try:
            shadows_answered = not check.shadows or self.shadow_rules.record(check)
            if answer is not None and error is not None:
                self.failure_policy.outage.note_failure(reason_of(error))
                self.announcer.failure(check, answer, error)
                return
            # Leases and cached denials decide while the storage is away: only who waited for it knows that it is there.
            asked = check.waits or (self._never_waits and bool(check.requests))
            if asked and shadows_answered and self.failure_policy.outage.is_on:
                self.failure_policy.outage.note_answer(self.notifier)
            if self._observed and check.requests and check.result is not None and not check.is_quiet:
                self.announcer.result(check, check.result)
        except Exception:  # noqa: BLE001 - what is told of a check changes nothing about it
            self.notifier.failed += 1

    def _answer_without_storage(self, check: Check, error: Exception) -> FallbackAnswer:
        rules = check.rules
        assert rules is not None  # noqa: S101 - the storage was asked for them
        answer = self.failure_policy.answer(check, rules, reason_of(error))
        check.result = answer.result
        check.degraded = answer.policy
        check.degraded_rule = answer.rule
        check.error = None  # its traceback leads back here
        return answer


def _cannot_decide(_requests: Sequence[BucketRequest]) -> None:
    """Leave every check to a call that waits."""
