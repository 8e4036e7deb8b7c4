"""All of a check but the waiting: what both faces, async and sync, do before and after they ask the storage."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

from sluicegate.application.administration import Administration
from sluicegate.application.check import NO_RULE, Check, Decision, ShadowedCheck, conclude, prepare
from sluicegate.application.checked import decided
from sluicegate.application.failure_policy import Answer, FailurePolicy, describe, reason_of
from sluicegate.application.lists_and_overrides import ListAnswer, identifier_for
from sluicegate.application.live_rules import LiveRules, RulesSnapshot
from sluicegate.application.notifier import Notifier
from sluicegate.application.shadow_rules import ShadowRules
from sluicegate.application.short_way import listened_to, short_way_to
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.bucket_request import BucketLevel, Verdict
from sluicegate.domain.compiled_rules import CompiledRules, EndpointRules, Rules
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.events import (
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitCheckDenied,
    RateLimitEvent,
    RateLimitFailedClosed,
    RateLimitFailedOpen,
    RateLimitListed,
)
from sluicegate.domain.protocols import Clock, EventBusProtocol, Identifier, LoggerProtocol
from sluicegate.domain.result import Success
from sluicegate.domain.rule import OnStorageError
from sluicegate.domain.token_bucket import impossible, to_result
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SystemClock, utc_now

_NO_RULE = Success(NO_RULE)
_NOBODY_ASKED = Decision(NO_RULE)

Prepared: TypeAlias = Check | ShadowedCheck
"""What has to be asked of the storage."""


class CheckFlow:
    """Prepare checks, conclude them, and tell the observers.

    Args:
        in_force: The rules in force.
        key_format: How buckets are named.
        policy: What to answer while the storage fails.
        notifier: Whom to tell.
        clock: What measures execution times.
        utc_now: The wall clock, for what has an end.
        observed: Whether there is a bus that may have listeners.
    """

    def __init__(  # noqa: PLR0913 - collaborators, given by name
        self,
        *,
        in_force: LiveRules,
        key_format: KeyFormat,
        policy: FailurePolicy,
        notifier: Notifier,
        clock: Clock,
        utc_now: Callable[[], datetime],
        observed: bool,
    ) -> None:
        self.in_force = in_force
        self.policy = policy
        self.shadows = ShadowRules(notifier)
        self.administration = Administration(in_force, key_format, policy, notifier, utc_now)
        self._key_format = key_format
        self._notifier = notifier
        self._clock = clock
        self._utc_now = utc_now
        self._observed = observed

    @property
    def rules(self) -> CompiledRules:
        """The rules in force, compiled."""
        return self.in_force.now.rules

    def begin(self, endpoint: str, identifier: Identifier, cost: int) -> Prepared | Decision:
        """Return what to ask the storage, or the answer if there is nothing to ask.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        plain = self.in_force.plain(endpoint, identifier, cost)
        if plain is not None:
            self._attempt(plain, identifier)
            return plain
        state = self.in_force.refreshed()
        check = prepare(state.rules, self._key_format, endpoint, identifier, cost, now=self._utc_now)
        if type(check) is Check:
            self._attempt(check, identifier)
            return check
        return self._begun_otherwise(state, check, endpoint, identifier, cost)

    def _begun_otherwise(
        self,
        state: RulesSnapshot,
        check: Prepared | ListAnswer | EndpointRules | None,
        endpoint: str,
        identifier: Identifier,
        cost: int,
    ) -> Prepared | Decision:
        if isinstance(check, Check | ShadowedCheck):
            real = check.check if isinstance(check, ShadowedCheck) else check
            if real is not None:
                self._attempt(real, identifier)
            return check
        if check is None:
            self._notifier.log("debug", "No rate limit rule for this endpoint; allowed.", endpoint=endpoint)
            return _NOBODY_ASKED
        if isinstance(check, ListAnswer):
            return self._listed(check, cost)
        if check.disabled is not None:
            self.in_force.warn_if_everything_is_off(state)
            return Decision(check.disabled)
        return self._impossible(check, identifier, cost)

    def _attempt(self, check: Check, identifier: Identifier) -> None:
        if self._observed and self._notifier.wants(RateLimitCheckAttempted):
            self._notifier.publish(RateLimitCheckAttempted(**self._facts(check, identifier)))  # type: ignore[arg-type]

    def quicken(self, storage: object) -> None:
        """Offer the short way of a check, if the storage has one."""
        build = short_way_to(storage)
        if build is not None and self._observed:
            self.in_force.quicken(
                lambda plain: listened_to(build(plain), self._notifier.wants, self._clock.now_us, self._quickly_denied)
            )
        elif build is not None:
            self.in_force.quicken(build)

    def _quickly_denied(self, endpoint: str, identifier: Identifier, result: RateLimitResult, started_us: int) -> None:
        check = self.in_force.plain(endpoint, identifier, 0) or prepare(
            self.rules, self._key_format, endpoint, identifier, 0, now=self._utc_now
        )
        if isinstance(check, Check):
            self._announce(check, identifier, result, started_us)

    def look(self, endpoint: str, identifier: Identifier, cost: int) -> Check | Success[RateLimitResult]:
        """Return what to peek at, or the answer if there is nothing to look at; tell nobody.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = prepare(
            self.in_force.refreshed().rules, self._key_format, endpoint, identifier, cost, now=self._utc_now
        )
        if isinstance(check, ShadowedCheck):
            check = check.check or check.endpoint_rules
        if isinstance(check, Check):
            return check
        if check is None:
            return _NO_RULE
        if isinstance(check, ListAnswer):
            return Success(check.result)
        return Success(check.disabled or impossible(check.max_cost))

    def concluded(
        self, check: Check, identifier: Identifier, verdict: Verdict, started_us: int
    ) -> Success[RateLimitResult]:
        """Return the answer to a check that the storage decided."""
        requests = check.requests
        if len(requests) == 1:
            result = to_result(requests[0], verdict.levels[0], allowed=verdict.allowed)
        else:
            result = conclude(check, verdict)
        if self._observed:
            self._announce(check, identifier, result, started_us)
        return Success(result)

    def concluded_with_shadows(
        self, shadowed: ShadowedCheck, identifier: Identifier, outcomes: Sequence[Verdict | Exception], started_us: int
    ) -> Decision:
        """Return the answer to a check with rules in shadow mode.

        Args:
            shadowed: What was asked.
            identifier: Who asked.
            outcomes: What came of the requests of `requests_of`, in their order: a verdict, or what was raised.
            started_us: When it began.

        Raises:
            Exception: What the storage raised for the check that decides.
        """
        check = shadowed.check
        raised = self.shadows.watch(shadowed, identifier, outcomes if check is None else outcomes[1:])
        if check is None:
            if raised is not None:
                self.policy.count(reason_of(raised))
            disabled = shadowed.endpoint_rules.disabled
            return (
                Decision(disabled) if disabled else self._impossible(shadowed.endpoint_rules, identifier, shadowed.cost)
            )
        outcome = outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return decided(check, self.concluded(check, identifier, outcome, started_us).value, outcome)

    def failed(
        self, check: Check, identifier: Identifier, error: Exception, started_us: int
    ) -> Success[RateLimitResult]:
        """Return the answer to a check that the storage could not decide, and tell it loudly."""
        return Success(self.answered(check, identifier, error, started_us).result)

    def answered(self, check: Check, identifier: Identifier, error: Exception, started_us: int) -> Answer:
        """Do the same, and return the policy that answered as well."""
        reason = reason_of(error)
        answer = self.policy.answer(check, reason)
        self._notifier.warn_throttled(
            reason,
            "The storage could not decide a rate limit check; answered without it.",
            error=describe(error),
            policy=answer.policy,
            endpoint=check.endpoint_rules.endpoint,
            identifier=self._notifier.mask(identifier),
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
            if self._notifier.wants(type(event)):
                self._notifier.publish(event)
        return answer

    def peeked(self, check: Check, levels: tuple[BucketLevel, ...]) -> Success[RateLimitResult]:
        """Return what a check would answer, from levels that were only looked at."""
        pairs = zip(check.requests, levels, strict=True)
        allowed = all(bucket_level.level >= request.cost_units for request, bucket_level in pairs)
        return Success(conclude(check, Verdict(allowed, levels)))

    def not_peeked(self, check: Check, error: Exception) -> Success[RateLimitResult]:
        """Return what a peek answers while the storage fails: full buckets."""
        reason = reason_of(error)
        self.policy.count(reason)
        self._notifier.warn_throttled(
            reason,
            "The storage could not be asked for the tokens that remain; answered with the capacity.",
            error=describe(error),
            endpoint=check.endpoint_rules.endpoint,
        )
        full = min(limit_.rule.max_tokens for limit_ in check.endpoint_rules.limits)
        return Success(RateLimitResult(allowed=True, retry_after=0.0, remaining=full, limit=full, reset_seconds=0))

    def started_us(self) -> int:
        """Return the instant from which execution times count; 0 where nobody listens."""
        return self._clock.now_us() if self._observed else 0

    def _listed(self, answer: ListAnswer, cost: int) -> Decision:
        if self._observed and self._notifier.wants(RateLimitListed):
            self._notifier.publish(
                RateLimitListed(
                    endpoint=answer.endpoint,
                    identifier=answer.identifier,
                    scope=answer.listing.scope,
                    cost=cost,
                    allowed=answer.result.allowed,
                    listed=answer.listing.identifier,
                )
            )
        return Decision(answer.result)

    def _impossible(self, endpoint_rules: EndpointRules, identifier: Identifier, cost: int) -> Decision:
        result = impossible(endpoint_rules.max_cost)
        self._notifier.warn_throttled(
            f"impossible:{endpoint_rules.endpoint}",
            "A request costs more than its bucket can ever hold; denied.",
            endpoint=endpoint_rules.endpoint,
            cost=cost,
            max_tokens=endpoint_rules.max_cost,
        )
        if self._observed:
            check = Check(endpoint_rules, (), cost)
            started_us = self.started_us()
            if self._notifier.wants(RateLimitCheckAttempted):
                self._notifier.publish(RateLimitCheckAttempted(**self._facts(check, identifier)))  # type: ignore[arg-type]
            self._announce(check, identifier, result, started_us)
        rules = tuple([limit_.rule for limit_ in endpoint_rules.limits])
        return Decision(result, rules, min(rules, key=lambda rule: rule.max_tokens))

    def _announce(self, check: Check, identifier: Identifier, result: RateLimitResult, started_us: int) -> None:
        event: RateLimitEvent
        if result.allowed:
            if self._notifier.wants(RateLimitCheckAllowed):
                event = RateLimitCheckAllowed(
                    remaining_tokens=result.remaining,
                    execution_time_ms=self._elapsed_ms(started_us),
                    **self._facts(check, identifier),  # type: ignore[arg-type]
                )
                self._notifier.publish(event)
        elif self._notifier.wants(RateLimitCheckDenied):
            event = RateLimitCheckDenied(
                retry_after=result.retry_after,
                execution_time_ms=self._elapsed_ms(started_us),
                **self._facts(check, identifier),  # type: ignore[arg-type]
            )
            self._notifier.publish(event)

    def _facts(self, check: Check, identifier: Identifier) -> dict[str, object]:
        """Return what all events of a check have; scope and identifier are those of its first rule."""
        limit_ = check.endpoint_rules.limits[0]
        return {
            "endpoint": check.endpoint_rules.endpoint,
            "identifier": identifier_for(limit_, identifier),
            "scope": limit_.scope,
            "cost": check.cost or limit_.rule.cost,
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
    wall_clock: Callable[[], datetime] | None = None,
) -> CheckFlow:
    """Build what the async and the sync face share; see `TokenBucketAdapter` for the arguments."""
    clock = clock or SystemClock()
    key_format = KeyFormat(key_prefix, identifier_secret=identifier_secret, hash_tag=hash_tag)
    notifier = Notifier(event_bus, logger or StdlibLogger(), clock, log_identifiers=log_identifiers)
    wall_clock = wall_clock or utc_now
    return CheckFlow(
        in_force=LiveRules(rules, key_format, notifier, wall_clock),
        key_format=key_format,
        policy=FailurePolicy(on_storage_error, clock),
        notifier=notifier,
        clock=clock,
        utc_now=wall_clock,
        observed=event_bus is not None,
    )
