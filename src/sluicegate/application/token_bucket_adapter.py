"""The limiter. It adapts the port that applications call (`RateLimitProtocol`) to the port that storages implement.

By its dependencies it is application, whatever its suffix: it performs no I/O of its own. A check goes through
`CheckFlow.begin`, the storage, and `CheckFlow.concluded`; an exception on the way goes to `CheckFlow.failed`, and nowhere else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import TypeVar, cast

from sluicegate.application.check import RULES_OWN, Check, Decision, ShadowedCheck
from sluicegate.application.checked import decided, degraded
from sluicegate.application.checker import build_flow
from sluicegate.application.shadow_rules import requests_of, with_all_buckets
from sluicegate.application.wait_queue import WaitQueue
from sluicegate.domain.bucket_request import BucketRequest, Verdict
from sluicegate.domain.compiled_rules import Rules
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError, RateLimitError
from sluicegate.domain.protocols import (
    Clock,
    EventBusProtocol,
    Identifier,
    LoggerProtocol,
    StorageProtocol,
    SyncStorageProtocol,
)
from sluicegate.domain.result import Failure, Result, Success
from sluicegate.domain.rule import OnStorageError

DEFAULT_DEADLINE_MS = 50

T = TypeVar("T")


class TokenBucketAdapter:
    """Decide whether requests may pass.

    Args:
        storage: Where the buckets are.
        rules: Endpoints and their rules.
        event_bus: Who is told of every check; None: nobody.
        logger: Who is told of failures and administrative calls; None: `logging.getLogger("sluicegate")`.
        deadline_ms: The longest that a check may take, 1 to 60,000; then the failure policy answers.
        on_storage_error: What rules without a policy of their own answer while the storage fails: `allow`, `local` (a bucket in
            this process) or `deny`.
        key_prefix: What every key begins with.
        identifier_secret: If given, keys carry keyed hashes in place of identifiers.
        log_identifiers: Whether log lines carry identifiers as they are.
        clock: What measures execution times and drives the local buckets; the monotonic clock if None.
        wall_clock: What ends dated overrides, list entries and kill switches; UTC of this machine if None.

    Raises:
        InvalidInputError: If an argument or a rule is wrong.
    """

    def __init__(  # noqa: PLR0913 - collaborators and settings, given by name
        self,
        *,
        storage: StorageProtocol,
        rules: Rules,
        event_bus: EventBusProtocol | None = None,
        logger: LoggerProtocol | None = None,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
        on_storage_error: OnStorageError = "allow",
        key_prefix: str = "rate_limit",
        identifier_secret: bytes | None = None,
        log_identifiers: bool = False,
        clock: Clock | None = None,
        wall_clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._flow = build_flow(
            rules=rules,
            event_bus=event_bus,
            logger=logger,
            on_storage_error=on_storage_error,
            key_prefix=key_prefix,
            identifier_secret=identifier_secret,
            log_identifiers=log_identifiers,
            clock=clock,
            wall_clock=wall_clock,
            hash_tag=bool(getattr(storage, "hash_tags", False)),
        )
        self._storage = storage
        self._slots = WaitQueue()
        self._like_this = partial(
            TokenBucketAdapter,
            storage=storage,
            event_bus=event_bus,
            logger=logger,
            deadline_ms=deadline_ms,
            on_storage_error=on_storage_error,
            key_prefix=key_prefix,
            identifier_secret=identifier_secret,
            log_identifiers=log_identifiers,
            clock=clock,
            wall_clock=wall_clock,
        )
        self.immediate = bool(getattr(storage, "immediate", False))
        """Whether the storage never waits."""
        self._take_now = cast("SyncStorageProtocol", storage).take_now if self.immediate else None
        self._deadline_s = require_deadline(deadline_ms) / 1000
        self._observed = event_bus is not None
        self._flow.quicken(storage)
        self.rules = self._flow.in_force
        """The rules in force: swap them, switch them off and on, read their version."""
        # A storage that keeps a deadline of its own needs no timer here, unless this limiter's is the shorter one.
        bounded = getattr(storage, "bounded_wait", False) and getattr(storage, "deadline_s", 0) <= self._deadline_s
        self._take: Callable[[Sequence[BucketRequest]], Awaitable[Verdict]] = (
            storage.take if bounded else self._take_in_time
        )

    async def is_allowed(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Take tokens if all of the endpoint's rules have them; if one does not, none is charged.

        Args:
            endpoint: Method and path template, such as `POST /api/v1/sessions`.
            identifier: Who is asking, 1 to 1024 bytes; a mapping from scope to identifier where the rules' scopes differ.
            cost: Tokens to take; 0: the rule's own cost.

        Returns:
            `Success` always: while the storage fails, the answer of the failure policy.

        Raises:
            InvalidInputError: A `ValueError`, if an argument is wrong; nothing has changed then.
        """
        if cost is RULES_OWN and type(identifier) is str:
            try:
                if (answer := self.rules.quick_checks[endpoint](identifier)) is not None:
                    return answer
            except Exception:  # noqa: BLE001, S110 - no such endpoint, or a failure that the long way meets too, and answers
                pass
        flow = self._flow
        check = flow.begin(endpoint, identifier, cost)
        if type(check) is not Check:
            if type(check) is ShadowedCheck:
                check = await self._with_shadows(check, identifier)
            return Success(cast("Decision", check).result)
        started_us = flow.started_us() if self._observed else 0
        try:
            take_now = self._take_now
            verdict = await self._take(check.requests) if take_now is None else take_now(check.requests)
            return flow.concluded(check, identifier, verdict, started_us)
        except Exception as error:  # noqa: BLE001 - the one place where a failed check becomes an answer
            return flow.failed(check, identifier, error, started_us)

    async def check(self, *, endpoint: str, identifier: Identifier, cost: int = 0) -> Decision:
        """Do what `is_allowed` does, and tell which rules were asked and whether the storage answered.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
        """
        flow = self._flow
        quick_checks, only_rules = self.rules.short_way
        try:
            rule = only_rules.get(endpoint) if cost is RULES_OWN else None
            if rule and type(identifier) is str and (answer := quick_checks[endpoint](identifier)):
                return Decision(answer.value, (rule,), rule)
        except Exception:  # noqa: BLE001, S110 - as in `is_allowed`
            pass
        check = flow.begin(endpoint, identifier, cost)
        if isinstance(check, ShadowedCheck):
            return await self._with_shadows(check, identifier)
        if isinstance(check, Decision):
            return check
        started_us = flow.started_us()
        try:
            take_now = self._take_now
            verdict = await self._take(check.requests) if take_now is None else take_now(check.requests)
            result = flow.concluded(check, identifier, verdict, started_us).value
            return decided(check, result, verdict)
        except Exception as error:  # noqa: BLE001 - the same place as in `is_allowed`
            return degraded(check, flow.answered(check, identifier, error, started_us))

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint that a request belongs to; None if there is nothing to ask; see `CompiledRules.match`.

        Args:
            method: The request's method in capitals, or `WEBSOCKET`.
            path: The path, decoded, without the query.
        """
        return self._flow.rules.match(method, path)

    @property
    def scopes(self) -> frozenset[str]:
        """Whom the rules count, all together."""
        return self._flow.rules.scopes

    def scopes_of(self, endpoint: str) -> tuple[str, ...]:
        """Return whose identifiers a check of an endpoint needs, each scope once; empty if no rule is for it.

        These are the scopes of its rules, and those of the allow and deny lists.
        """
        return self._flow.rules.scopes_of(endpoint)

    async def wait(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0, timeout_s: float | None = None
    ) -> RateLimitResult:
        """Take tokens as soon as there are enough, first come, first served; see `is_allowed` for the arguments.

        Raises:
            SlotTimeoutError: A `TimeoutError`, if there is no turn within `timeout_s` seconds (None: no end); no token was taken.
            InvalidInputError: If an argument is wrong.
        """
        return await self._slots.wait(partial(self._ask, endpoint, identifier, cost), endpoint, identifier, timeout_s)

    def slot(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[RateLimitResult]:
        """Do what `wait` does on entering an `async with`, whose body then makes the call."""
        return self._slots.slot(partial(self._ask, endpoint, identifier, cost), endpoint, identifier, timeout_s)

    async def _ask(self, endpoint: str, identifier: Identifier, cost: int) -> RateLimitResult:
        return (await self.check(endpoint=endpoint, identifier=identifier, cost=cost)).result

    async def peek(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Tell what `is_allowed` would answer now, and change nothing.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = self._flow.look(endpoint, identifier, cost)
        if not isinstance(check, Check):
            return check
        try:
            return self._flow.peeked(check, await self._in_time(self._storage.peek, check.requests))
        except Exception as error:  # noqa: BLE001 - a peek answers as the check would
            return self._flow.not_peeked(check, error)

    async def get_remaining(self, *, endpoint: str, identifier: Identifier) -> Result[int, RateLimitError]:
        """Return the whole tokens left in the tightest bucket: the capacity while the storage fails, 0 without a rule.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        match await self.peek(endpoint=endpoint, identifier=identifier):
            case Success(value=result):
                return Success(result.remaining)
            case Failure(error=error):
                return Failure(error)

    async def reset(self, *, endpoint: str, identifier: Identifier) -> Result[None, RateLimitError]:
        """Fill the endpoint's buckets of this identifier again. Never fails open.

        Returns:
            `Failure` if the storage did not do it or no rule names the endpoint.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        return await self._administer("reset", self._storage.reset, endpoint, identifier, 0)

    async def refund(self, *, endpoint: str, identifier: Identifier, cost: int = 0) -> Result[None, RateLimitError]:
        """Put tokens back that a check took, never above the capacity. Never fails open.

        Args:
            endpoint: As in the check.
            identifier: As in the check.
            cost: As in the check; 0: the rule's own cost.

        Returns:
            `Failure` if the storage did not do it or no rule names the endpoint.

        Raises:
            InvalidInputError: If an argument is wrong, or the cost is one that no check could have taken.
        """
        return await self._administer("refund", self._storage.refund, endpoint, identifier, cost)

    def with_rules(self, rules: Rules) -> "TokenBucketAdapter":
        """Return a limiter with other rules that is like this one in all else, and shares its storage."""
        return self._like_this(rules=rules)

    async def aclose(self) -> None:
        """Close the storage."""
        await self._storage.aclose()

    @property
    def shadow_denials(self) -> dict[str, int]:
        """How many requests each rule in shadow mode would have denied, by its name."""
        return dict(self._flow.shadows.denials)

    @property
    def failures(self) -> dict[str, int]:
        """How many checks the storage could not decide, by reason."""
        return dict(self._flow.policy.failures)

    async def _administer(
        self,
        verb: str,
        call: Callable[[Sequence[BucketRequest]], Awaitable[object]],
        endpoint: str,
        identifier: Identifier,
        cost: int,
    ) -> Result[None, RateLimitError]:
        check = self._flow.administration.find(endpoint, identifier, cost, verb)
        if isinstance(check, Failure):
            return check
        if not isinstance(check, Check):
            return Success(None)
        try:
            await self._in_time(call, check.requests)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._flow.administration.not_administered(check, identifier, verb, error)
        self._flow.administration.administered(check, identifier, verb)
        return Success(None)

    async def _with_shadows(self, shadowed: ShadowedCheck, identifier: Identifier) -> Decision:
        flow = self._flow
        started_us = flow.started_us()
        # Started together: a storage that sends its commands in batches carries them in one round trip.
        outcomes = await asyncio.gather(*map(self._outcome, requests_of(shadowed)))
        try:
            return flow.concluded_with_shadows(shadowed, identifier, outcomes, started_us)
        except Exception as error:  # noqa: BLE001 - as in a check without shadows
            check = shadowed.check or with_all_buckets(shadowed)
            return degraded(check, flow.answered(check, identifier, error, started_us))

    async def _outcome(self, requests: Sequence[BucketRequest]) -> Verdict | Exception:
        try:
            return await self._take(requests)
        except Exception as error:  # noqa: BLE001 - each is a check of its own
            return error

    async def _take_in_time(self, requests: Sequence[BucketRequest], /) -> Verdict:
        return await self._in_time(self._storage.take, requests)

    async def _in_time(
        self, call: Callable[[Sequence[BucketRequest]], Awaitable[T]], requests: Sequence[BucketRequest]
    ) -> T:
        async with asyncio.timeout(self._deadline_s):
            return await call(requests)

    def __repr__(self) -> str:
        return f"TokenBucketAdapter(storage={self._storage!r}, rules={self._flow.rules!r})"


def require_deadline(deadline_ms: object) -> int:
    """Return a deadline in milliseconds, or raise the error that names the field.

    Raises:
        InvalidInputError: If it is not a whole number of 1 to 60,000.
    """
    if type(deadline_ms) is not int:
        raise InvalidTypeError(f"deadline_ms={deadline_ms!r}: expected whole milliseconds")
    if not 1 <= deadline_ms <= 60_000:  # noqa: PLR2004 - the bound is stated in the message
        raise InvalidInputError(f"deadline_ms={deadline_ms}: expected 1 to 60000")
    return deadline_ms
