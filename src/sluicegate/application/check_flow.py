"""All of a check but the waiting: what both faces, async and sync, do before and after they ask the storage."""

from typing import cast

from sluicegate.application.announcer import Announcer
from sluicegate.application.checked import Checked
from sluicegate.application.checking import NO_RULE, Check, conclude, identifier_for, prepare
from sluicegate.application.failure_policy import Answer, FailurePolicy, describe, reason_of
from sluicegate.application.quick_check import QuickCheck, TakeOne, build_quick_check
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitCheckDenied,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
)
from sluicegate.domain.protocols import Clock, EventBusProtocol, Identifier, LoggerProtocol
from sluicegate.domain.result import Failure, Success
from sluicegate.domain.rule import OnStorageError
from sluicegate.domain.rule_set import Plan, Rules, RuleSet
from sluicegate.domain.token_bucket import Reading, Verdict, impossible, to_result
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SystemClock

_NO_RULE = Success(NO_RULE)


class CheckFlow:
    """Prepare checks, conclude them, and tell the observers.

    Args:
        rules: The rules in force.
        key_format: How buckets are named.
        policy: What to answer while the storage fails.
        announcer: Whom to tell.
        clock: What measures execution times.
        observed: Whether there is a bus that may have listeners.
    """

    def __init__(  # noqa: PLR0913 - collaborators, given by name
        self,
        *,
        rules: RuleSet,
        key_format: KeyFormat,
        policy: FailurePolicy,
        announcer: Announcer,
        clock: Clock,
        observed: bool,
    ) -> None:
        self.rules = rules
        self.policy = policy
        self._key_format = key_format
        self._announcer = announcer
        self._clock = clock
        self._observed = observed

    def begin(self, endpoint: str, identifier: Identifier, cost: int) -> Check | Success[RateLimitResult]:
        """Return what to ask the storage, or the answer if there is nothing to ask.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = prepare(self.rules, self._key_format, endpoint, identifier, cost)
        if type(check) is Check:
            if self._observed and self._announcer.wants(RateLimitCheckAttempted):
                self._announcer.publish(RateLimitCheckAttempted(**self._facts(check, identifier)))  # type: ignore[arg-type]
            return check
        if check is None:
            self._announcer.log("debug", "No rate limit rule for this endpoint; allowed.", endpoint=endpoint)
            return _NO_RULE
        plan = cast("Plan", check)
        if plan.disabled is not None:
            return Success(plan.disabled)
        return self._impossible(plan, identifier, cost)

    def quick_check(self, storage: object) -> QuickCheck | None:
        """Return the short way of a check; None where the storage may wait or somebody may listen."""
        take_one: TakeOne | None = getattr(storage, "take_one_now", None)
        if take_one is None or self._observed or not getattr(storage, "immediate", False):
            return None
        return build_quick_check(self.rules, self._key_format, take_one)

    def look(self, endpoint: str, identifier: Identifier, cost: int) -> Check | Success[RateLimitResult]:
        """Return what to peek at, or the answer if there is nothing to look at; tell nobody.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = prepare(self.rules, self._key_format, endpoint, identifier, cost)
        if isinstance(check, Check):
            return check
        if check is None:
            return _NO_RULE
        return Success(check.disabled or impossible(check.max_cost))

    def concluded(
        self, check: Check, identifier: Identifier, verdict: Verdict, started_us: int
    ) -> Success[RateLimitResult]:
        """Return the answer to a check that the storage decided."""
        demands = check.demands
        if len(demands) == 1:
            result = to_result(demands[0], verdict.readings[0], allowed=verdict.allowed)
        else:
            result = conclude(check, verdict)
        if self._observed:
            self._announce(check, identifier, result, started_us)
        return Success(result)

    def failed(
        self, check: Check, identifier: Identifier, error: Exception, started_us: int
    ) -> Success[RateLimitResult]:
        """Return the answer to a check that the storage could not decide, and tell it loudly."""
        return Success(self.answered(check, identifier, error, started_us).result)

    def answered(self, check: Check, identifier: Identifier, error: Exception, started_us: int) -> Answer:
        """Do the same, and return the policy that answered as well."""
        reason = reason_of(error)
        answer = self.policy.answer(check, reason)
        self._announcer.warn_sparingly(
            reason,
            "The storage could not decide a rate limit check; answered without it.",
            error=describe(error),
            policy=answer.policy,
            endpoint=check.plan.endpoint,
            identifier=self._announcer.mask(identifier),
        )
        if self._observed:
            facts = self._facts(check, identifier)
            elapsed_ms = self._elapsed_ms(started_us)
            event: RateLimitEvent
            if answer.policy == "deny":
                event = RateLimitFailedClosed(reason=reason, execution_time_ms=elapsed_ms, **facts)  # type: ignore[arg-type]
            else:
                event = RateLimitFailedOpen(
                    reason=reason,
                    policy=answer.policy,
                    allowed=answer.result.allowed,
                    execution_time_ms=elapsed_ms,
                    **facts,  # type: ignore[arg-type]
                )
            if self._announcer.wants(type(event)):
                self._announcer.publish(event)
        return answer

    def explained(self, endpoint: str, answer: Success[RateLimitResult]) -> Checked:
        """Return an answer that needed no storage, with the rules of its endpoint."""
        plan = self.rules.find(endpoint)
        rules = tuple(meter.rule for meter in plan.meters) if plan else ()
        # Only a cost beyond the capacity is denied without asking: the rule with the least capacity is why.
        tightest = min(rules, key=lambda rule: rule.max_tokens, default=None)
        return Checked(answer.value, rules, tightest)

    def decided(self, check: Check, result: RateLimitResult, verdict: Verdict) -> Checked:
        """Return the storage's answer with the rules that were asked, and the one that it describes."""
        rules = tuple([meter.rule for meter in check.plan.meters])
        if len(rules) == 1:
            return Checked(result, rules, rules[0])
        pairs = zip(rules, check.demands, verdict.readings, strict=True)
        tightest = [rule for rule, d, r in pairs if to_result(d, r, allowed=verdict.allowed) == result]
        return Checked(result, rules, tightest[0] if tightest else None)

    def degraded(self, check: Check, answer: Answer) -> Checked:
        """Return the failure policy's answer with the rules that were to be asked."""
        rules = tuple([meter.rule for meter in check.plan.meters])
        tightest = [rule for rule in rules if rule.max_tokens == answer.result.limit]
        return Checked(answer.result, rules, tightest[0] if tightest else None, answer.policy)

    def peeked(self, check: Check, readings: tuple[Reading, ...]) -> Success[RateLimitResult]:
        """Return what a check would answer, from levels that were only looked at."""
        pairs = zip(check.demands, readings, strict=True)
        allowed = all(reading.level >= demand.cost_units for demand, reading in pairs)
        return Success(conclude(check, Verdict(allowed, readings)))

    def not_peeked(self, check: Check, error: Exception) -> Success[RateLimitResult]:
        """Return what a peek answers while the storage fails: full buckets."""
        reason = reason_of(error)
        self.policy.count(reason)
        self._announcer.warn_sparingly(
            reason,
            "The storage could not be asked for the tokens that remain; answered with the capacity.",
            error=describe(error),
            endpoint=check.plan.endpoint,
        )
        full = min(meter.rule.max_tokens for meter in check.plan.meters)
        return Success(RateLimitResult(allowed=True, retry_after=0.0, remaining=full, limit=full, reset_seconds=0))

    def find(
        self, endpoint: str, identifier: Identifier, cost: int, verb: str
    ) -> Check | Plan | Failure[RateLimitError]:
        """Return the buckets that an administrative call means; a failure where no rule names the endpoint.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = prepare(self.rules, self._key_format, endpoint, identifier, cost)
        if check is None:
            error = RateLimitError("no_rule", f"No rate limit rule names the endpoint {endpoint!r}.", endpoint)
            self._announcer.log("error", f"A rate limit {verb} was not done.", reason=error.reason, endpoint=endpoint)
            return Failure(error)
        if isinstance(check, Plan) and check.disabled is None:
            raise InvalidInputError(f"cost={cost}: exceeds max_tokens={check.max_cost} of {check.endpoint!r}")
        return check

    def administered(self, check: Check, identifier: Identifier, verb: str) -> None:
        """Note that an administrative call was carried out."""
        if verb == "reset":
            self.policy.forget(check)
        self._announcer.log(
            "info",
            f"Rate limit {verb} done.",
            endpoint=check.plan.endpoint,
            identifier=self._announcer.mask(identifier),
        )

    def not_administered(
        self, check: Check, identifier: Identifier, verb: str, error: Exception
    ) -> Failure[RateLimitError]:
        """Return the failure of an administrative call, which never fails open."""
        reason = reason_of(error)
        self._announcer.log(
            "error",
            f"A rate limit {verb} was not done.",
            reason=reason,
            error=describe(error),
            endpoint=check.plan.endpoint,
            identifier=self._announcer.mask(identifier),
        )
        message = f"The storage did not {verb} the bucket ({reason}): {describe(error)}"
        return Failure(RateLimitError(reason, message, check.plan.endpoint))

    def started_us(self) -> int:
        """Return the instant from which execution times count; 0 where nobody listens."""
        return self._clock.now_us() if self._observed else 0

    def _impossible(self, plan: Plan, identifier: Identifier, cost: int) -> Success[RateLimitResult]:
        result = impossible(plan.max_cost)
        self._announcer.warn_sparingly(
            f"impossible:{plan.endpoint}",
            "A request costs more than its bucket can ever hold; denied.",
            endpoint=plan.endpoint,
            cost=cost,
            max_tokens=plan.max_cost,
        )
        if self._observed:
            check = Check(plan, (), cost)
            started_us = self.started_us()
            if self._announcer.wants(RateLimitCheckAttempted):
                self._announcer.publish(RateLimitCheckAttempted(**self._facts(check, identifier)))  # type: ignore[arg-type]
            self._announce(check, identifier, result, started_us)
        return Success(result)

    def _announce(self, check: Check, identifier: Identifier, result: RateLimitResult, started_us: int) -> None:
        event: RateLimitEvent
        if result.allowed:
            if self._announcer.wants(RateLimitCheckAllowed):
                event = RateLimitCheckAllowed(
                    remaining_tokens=result.remaining,
                    execution_time_ms=self._elapsed_ms(started_us),
                    **self._facts(check, identifier),  # type: ignore[arg-type]
                )
                self._announcer.publish(event)
        elif self._announcer.wants(RateLimitCheckDenied):
            event = RateLimitCheckDenied(
                retry_after=result.retry_after,
                execution_time_ms=self._elapsed_ms(started_us),
                **self._facts(check, identifier),  # type: ignore[arg-type]
            )
            self._announcer.publish(event)

    def _facts(self, check: Check, identifier: Identifier) -> dict[str, object]:
        """Return what all events of a check have; scope and identifier are those of its first rule."""
        meter = check.plan.meters[0]
        return {
            "endpoint": check.plan.endpoint,
            "identifier": identifier_for(meter, identifier),
            "scope": meter.scope,
            "cost": check.cost or meter.rule.cost,
        }

    def _elapsed_ms(self, started_us: int) -> float:
        return (self._clock.now_us() - started_us) / 1000


def build_flow(  # noqa: PLR0913 - the adapters' arguments, once for both faces
    *,
    rules: Rules,
    event_bus: EventBusProtocol | None,
    logger: LoggerProtocol | None,
    on_storage_error: OnStorageError,
    key_prefix: str,
    identifier_secret: bytes | None,
    log_identifiers: bool,
    clock: Clock | None,
    hash_tag: bool,
) -> CheckFlow:
    """Build what the async and the sync face share; see `TokenBucketAdapter` for the arguments."""
    clock = clock or SystemClock()
    key_format = KeyFormat(key_prefix, identifier_secret=identifier_secret, hash_tag=hash_tag)
    return CheckFlow(
        rules=RuleSet(rules, key_format),
        key_format=key_format,
        policy=FailurePolicy(on_storage_error, clock),
        announcer=Announcer(event_bus, logger or StdlibLogger(), clock, log_identifiers=log_identifiers),
        clock=clock,
        observed=event_bus is not None,
    )
