"""Peek, reset and refund: which buckets they mean, and what is told of them. Reset and refund never fail open."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sluicegate.application.check import Check, prepare, result_of
from sluicegate.application.failure_policy import FailurePolicy, reason_of
from sluicegate.application.notifier import Notifier, describe
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.application.rules.relatives import Relative
from sluicegate.application.rules.rule_explanation import Explainer, Explanation
from sluicegate.application.rules.rules_snapshot import CurrentRules
from sluicegate.domain.arguments import require_text
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.token_bucket import full
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.events import RateLimitAdministered
from sluicegate.domain.result import Failure, RateLimitResult, Success


class Administration:
    """Prepare administrative calls and tell what became of them.

    Args:
        live_rules: The rules in force.
        key_format: How buckets are named.
        failure_policy: It has local buckets as well.
        notifier: Writes the log lines.
        utc_now: The wall clock.
        storage: Where the buckets are.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators
        self,
        live_rules: LiveRules,
        key_format: KeyFormat,
        failure_policy: FailurePolicy,
        notifier: Notifier,
        utc_now: Callable[[], datetime],
        storage: object,
    ) -> None:
        self._relative = Relative(live_rules, key_format, failure_policy, storage)
        live_rules.relatives.add(self._relative)
        self._live_rules = live_rules
        self._current_rules: CurrentRules = live_rules.held
        self._key_format = key_format
        self._failure_policy = failure_policy
        self.notifier = notifier
        """Writes log lines and publishes events."""
        self._utc_now = utc_now

    def begin_peek(self, endpoint: object, identifier: object, cost: object) -> Check:
        """Return what to look at; the check has a result already if there is nothing to look at. Tells no observer.

        Arguments are those of `prepare`, which says what is wrong with them: compiled code would refuse them without a name.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        rules = self._live_rules.current().rules
        return prepare(rules, self._key_format, endpoint, identifier, cost, self._utc_now, beside_code=True)

    def begin_explanation(self, endpoint: object, identifier: object, cost: object) -> tuple[Check, Explanation]:
        """Return what `begin_peek` does, and which rules are asked and why.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = self.begin_peek(endpoint, identifier, cost)
        explainer = Explainer(self._live_rules.current(), self._key_format, self._utc_now)
        return check, explainer.explain(str(endpoint), check.identifier, check.cost, beside_code=True)

    def finish_peek(self, check: Check, levels: tuple[BucketLevel, ...]) -> Success[RateLimitResult]:
        """Return what a check would answer, from levels that were only looked at."""
        allowed = True
        for at, request in enumerate(check.requests):
            if levels[at].level < request.cost_units:
                allowed = False
        check.conclude(Verdict(allowed, levels))
        return Success(result_of(check))

    def fail_peek(self, check: Check, error: Exception) -> Success[RateLimitResult]:
        """Return what a peek answers while the storage fails: full buckets."""
        rules = check.rules
        assert rules is not None  # noqa: S101 - the storage was asked for them
        reason = reason_of(error)
        self._failure_policy.count(reason)
        self._failure_policy.outage.note_failure(reason)
        self.notifier.warn_throttled(
            reason,
            "The storage could not be asked for the tokens that remain; answered with the capacity.",
            error=error,
            endpoint=rules.endpoint,
        )
        return Success(full(rules.max_cost))

    def find(
        self, endpoint: object, identifier: object, cost: object, verb: str, also: tuple[str, ...] = ()
    ) -> Check | Success[None] | Failure[RateLimitError]:
        """Return a check of the buckets that an administrative call means.

        Those of rules in shadow mode and of rules that a kill switch has switched off are among them. It asks for nothing if
        the endpoint's rules are disabled.

        Returns:
            What the call returns if no rule names the endpoint: a reset has nothing to do, a refund is not done.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        current = self._current_rules
        is_plain = not current.is_over and not current.snapshot.switches
        check = prepare(
            current.snapshot.rules if is_plain else self._live_rules.without_switches(),
            self._key_format,
            endpoint,
            identifier,
            cost,
            self._utc_now,
            consult_lists=False,
            also=also,
            claims=verb != "refund",  # which calls in flight have nothing of
            beside_code=True,
            claimed=verb in {"commit", "extend"},
        )
        rules = check.rules
        if rules is None:
            name = require_text("endpoint", endpoint)
            if verb == "reset":
                self.notifier.log("info", "No rate limit rule names the endpoint; nothing to reset.", endpoint=name)
                return Success(None)
            error = RateLimitError("no_rule", f"No rate limit rule names the endpoint {name!r}.", name)
            self.notifier.log("error", f"A rate limit {verb} was not done.", reason=error.reason, endpoint=name)
            return Failure(error)
        if check.requests and not check.shadows:
            return check
        requests: list[BucketRequest] = [*check.requests]
        for shadow in check.shadows:
            requests += shadow.requests
        if not requests and rules.disabled is None:
            raise InvalidInputError(f"cost={cost}: exceeds max_tokens={rules.max_cost} of {rules.endpoint!r}")
        return Check(rules, tuple(requests), check.identifier, check.cost)

    def succeeded(self, check: Check, verb: str) -> None:
        """Note that an administrative call was carried out."""
        if verb == "reset":
            self._failure_policy.forget(check)
        self.notifier.log("info", f"Rate limit {verb} done.", **self._context(check))

    def failed(self, check: Check, verb: str, error: Exception) -> Failure[RateLimitError]:
        """Return the failure of an administrative call, which never fails open."""
        reason = reason_of(error)
        context = self._context(check)
        self.notifier.log(
            "error", f"A rate limit {verb} was not done.", reason=reason, error=describe(error), **context
        )
        message = f"The storage did not {verb} the bucket ({reason}): {describe(error)}"
        return Failure(RateLimitError(reason, message, str(context["endpoint"])))

    def all_prefixes(self) -> tuple[str, ...]:
        """Return what the names of all buckets begin with: this limiter's, and those of limiters whose rules follow each other.

        Rules beside code are among them, those that are switched off, and those of middlewares that were built from the settings.
        """
        return self._live_rules.relatives.prefixes

    def did_reset_all(self, prefixes: Sequence[str]) -> Success[None]:
        """Forget what is kept of buckets in this process, once the storage has reset them, and tell that it was done.

        Raises:
            StorageError: If it is asked in the midst of another call of this thread.
        """
        self._live_rules.relatives.forget_all(prefixes)
        self.notifier.log("info", "Rate limit reset of all buckets done.", prefixes=", ".join(prefixes))
        return Success(None)

    def did_not_reset_all(self, error: Exception) -> Failure[RateLimitError]:
        """Return the failure of a reset of all buckets: some of them may have been reset."""
        reason = reason_of(error)
        self.notifier.log(
            "error", "A rate limit reset of all buckets was not done.", reason=reason, error=describe(error)
        )
        return Failure(RateLimitError(reason, f"The storage did not reset all buckets ({reason}): {describe(error)}"))

    def record(self, event: RateLimitAdministered) -> None:
        """Tell observers and the log what an operator did."""
        self.notifier.log(
            "info" if event.done else "warning",
            "Rate limits were administered." if event.done else "An administrative call was not carried out.",
            action=event.action,
            actor=event.actor,
            endpoint=event.endpoint,
            identifier=self.notifier.mask(event.identifier) if event.identifier else "",
            detail=event.detail,
        )
        if self.notifier.has_listener(RateLimitAdministered):
            self.notifier.publish(event)

    def _context(self, check: Check) -> dict[str, object]:
        endpoint = "" if check.rules is None else check.rules.endpoint
        return {"endpoint": endpoint, "identifier": self.notifier.mask(check.identifier)}
