"""Decide a request of the Envoy rate limit protocol, and say of each descriptor what its client should know."""

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from sluicegate.application.check import Check, Decision, decision_of
from sluicegate.application.joint_check import JointCheck, Part
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.descriptors import Window
from sluicegate.presentation.service.after_the_fact import AfterTheFact
from sluicegate.presentation.service.descriptor_request import (
    UNCOUNTED,
    Descriptor,
    DescriptorReader,
    Target,
    told_window,
)

UNLIMITED_REMAINING: Final = 2**32 - 1


class Status(msgspec.Struct, frozen=True):
    """What is said of a descriptor.

    Args:
        is_over: Whether it lacks tokens.
        window: Its limit; None: there is none to tell.
        remaining: Tokens left.
        reset_seconds: Whole seconds, rounded up, until the same request may pass if it is over, else until the bucket is full;
            None: never, or nothing counts it.
    """

    is_over: bool = False
    window: Window | None = None
    remaining: int = 0
    reset_seconds: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request.

    Args:
        is_over: Whether it is denied.
        statuses: One for each descriptor.
        binding: The decision that clients are told of; None: there is no limit.
        is_degraded: Whether a failure policy answered in the storage's place.
    """

    is_over: bool
    statuses: tuple[Status, ...]
    binding: Decision | None
    is_degraded: bool


class DescriptorLimiter:
    """Decide requests.

    Args:
        limiter: The limiter.
        rules_domain: See `DescriptorReader`.
        is_independent: Whether each descriptor is counted whatever becomes of the others, as the reference server does; if not, a
            denied request charges none of them.
    """

    def __init__(self, limiter: TokenBucketAdapter, *, rules_domain: str, is_independent: bool = False) -> None:
        self._limiter = limiter
        self._reader = DescriptorReader(rules_domain)
        self._after_the_fact = AfterTheFact(limiter)
        self._is_independent = is_independent

    def current_rules(self) -> RulesSnapshot:
        """Return the rules in force, by which descriptors mean something."""
        return self._limiter.current_rules()

    async def decide(self, rules: RulesSnapshot, targets: Sequence[Target], timeout_s: float | None = None) -> Answer:
        """Decide a request.

        Args:
            rules: The rules by which the descriptors were read.
            targets: What its descriptors mean, from `read`.
            timeout_s: The longest that it may take, where that is less than the limiter's deadline; None: that deadline.
        """
        parts: list[Part] = []
        refused = owed = False
        for target in targets:
            if target.is_owed:
                owed = True
            elif target.part is not None:
                parts.append(target.part)
            elif target.is_refused:
                refused = True
        if owed:
            await self._charge(targets)
        if not parts:
            return Answer(refused, tuple([_uncounted_status(target) for target in targets]), None, is_degraded=False)
        checks, allowed = await self._check(rules, parts, refused, timeout_s)
        return self._answer(targets, checks, is_over=refused or not allowed)

    def read(self, rules: RulesSnapshot, domain: str, descriptors: Sequence[Descriptor], hits: int) -> list[Target]:
        """Return what the descriptors of a request mean.

        Args:
            rules: The rules in force.
            domain: The request's domain.
            descriptors: Its descriptors, at least one.
            hits: Tokens that descriptors ask for which do not say; 0: the rules' own cost.

        Raises:
            InvalidInputError: If something in it is wrong.
        """
        return self._reader.read(rules, domain, descriptors, hits)

    async def report(self, domain: str, descriptors: Sequence[Descriptor], hits: int) -> None:
        """Charge descriptors for what was done already; arguments and exceptions are those of `read`."""
        targets = self.read(self.current_rules(), domain, descriptors, hits)
        await self._charge([msgspec.structs.replace(target, is_owed=True) for target in targets])

    async def _charge(self, targets: Sequence[Target]) -> None:
        await self._after_the_fact.charge([one.part for one in targets if one.part is not None and one.is_owed])

    async def _check(
        self, rules: RulesSnapshot, parts: list[Part], refused: bool, timeout_s: float | None
    ) -> tuple[tuple[Check, ...], bool]:
        check_together = partial(self._limiter.check_together, timeout_s=timeout_s, rules=rules)
        if not self._is_independent or len(parts) == 1:
            joint = await check_together(parts, denied=refused and not self._is_independent)
            return joint.checks, joint.allowed
        joints: list[JointCheck] = await asyncio.gather(*[check_together((part,)) for part in parts])
        return tuple([joint.checks[0] for joint in joints]), all(joint.allowed for joint in joints)

    def _answer(self, targets: Sequence[Target], checks: tuple[Check, ...], *, is_over: bool) -> Answer:
        statuses: list[Status] = []
        binding: Decision | None = None
        degraded = False
        following = iter(checks)
        for target in targets:
            if target.part is None or target.is_owed:
                statuses.append(_uncounted_status(target))
                continue
            check = next(following)
            decision = decision_of(check)
            statuses.append(_status(target, check, decision))
            degraded = degraded or check.degraded is not None
            if check.shadows and not (check.requests or check.degraded):
                continue
            if binding is None or _binds_more(decision.result, binding.result):
                binding = decision
        return Answer(is_over, tuple(statuses), binding, degraded)


def _uncounted_status(target: Target) -> Status:
    if target.is_unlimited:
        return Status(remaining=UNLIMITED_REMAINING)
    if target is UNCOUNTED or target.is_owed:
        return Status()
    return Status(target.is_refused, target.window, 0, None)


def _status(target: Target, check: Check, decision: Decision) -> Status:
    if check.degraded is not None and check.degraded != "local":  # a full quota would be made up
        return Status(is_over=not decision.result.allowed)
    shadow = check.shadows[0] if check.shadows else None
    if shadow is not None and not check.requests and check.listed is None and shadow.result is not None:
        result, rule = shadow.result, None if shadow.rules is None else shadow.rules.rules[0]
        is_over = False
    else:
        result, rule = decision.result, decision.binding
        is_over = not result.allowed
    if result.limit == 0:
        return Status(is_over)
    window = target.window if rule is None else told_window(rule, target.window)
    return Status(is_over, window, result.remaining, _reset_seconds(result))


def _reset_seconds(result: RateLimitResult) -> int | None:
    if result.allowed:
        return result.reset_seconds
    return None if math.isinf(result.retry_after) else max(1, math.ceil(result.retry_after))


def _binds_more(one: RateLimitResult, other: RateLimitResult) -> bool:
    """Return whether a result is nearer to its limit: denied for longer, else with fewer tokens left."""
    if one.allowed != other.allowed:
        return other.allowed
    if not one.allowed:
        return one.retry_after > other.retry_after
    return one.limit > 0 and (other.limit == 0 or one.remaining < other.remaining)
