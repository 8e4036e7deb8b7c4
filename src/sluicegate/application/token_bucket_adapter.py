"""The limiter. It adapts the port that applications call (`RateLimitProtocol`) to the port that storages implement.

By its dependencies it is application, whatever its suffix: it performs no I/O of its own. The way of a check is in `AsyncFace`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import cast

from sluicegate.application.assembly import assemble, require_deadline, require_resettable, require_traits
from sluicegate.application.check import Check, result_of
from sluicegate.application.explained_check import ExplainedCheck
from sluicegate.application.inspection import Inspection
from sluicegate.application.joint_face import JointFace
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.application.wait_queue import WaitQueue
from sluicegate.domain.arguments import Cost, Identifier
from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.events import RateLimitAdministered
from sluicegate.domain.protocols import (
    Clock,
    DeadlineStorage,
    EventBusProtocol,
    LoggerProtocol,
    StorageProtocol,
)
from sluicegate.domain.result import RateLimitResult, Result, Success
from sluicegate.domain.rules.rule import OnStorageError
from sluicegate.domain.rules.rule_book import Rules

DEFAULT_DEADLINE_MS = 50

_RESET_ALL_S = 30.0  # a storage that hangs must not keep the caller for ever


class TokenBucketAdapter(JointFace):
    """Decide whether requests may pass.

    Args:
        storage: Where the buckets are.
        rules: Endpoints and their rules; or the `rules` of another limiter, which then hold for both.
        event_bus: Gets the events of every check; None: there are none.
        logger: Gets failures and administrative calls; None: `logging.getLogger("sluicegate")`.
        deadline_ms: The longest that a check may take, 1 to 60,000; then the failure policy answers.
        on_storage_error: What rules without a policy of their own answer while the storage fails: `allow`, `local` (a bucket in
            this process) or `deny`.
        key_prefix: What every key begins with.
        identifier_secret: If given, keys carry keyed hashes in place of identifiers, and log lines carry the same ones in all
            processes that have it. 1 to 64 bytes.
        log_identifiers: Whether log lines carry identifiers as they are.
        clock: What measures execution times and drives the local buckets; the monotonic clock if None.
        wall_clock: What ends dated overrides, list entries and kill switches; UTC of this machine if None.
        enabled: False: every check passes, and nothing is counted.

    Raises:
        InvalidInputError: If an argument or a rule is wrong.
    """

    def __init__(  # noqa: PLR0913 - collaborators and settings, given by name
        self,
        *,
        storage: StorageProtocol,
        rules: Rules | LiveRules,
        event_bus: EventBusProtocol | None = None,
        logger: LoggerProtocol | None = None,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
        on_storage_error: OnStorageError = "allow",
        key_prefix: str = "rate_limit",
        identifier_secret: bytes | None = None,
        log_identifiers: bool = False,
        clock: Clock | None = None,
        wall_clock: Callable[[], datetime] | None = None,
        enabled: bool = True,
    ) -> None:
        deadline_s = require_deadline(deadline_ms) / 1000
        traits = require_traits(storage, blocking=False)
        if traits.deadline_s is not None and traits.deadline_s > deadline_s:
            storage = cast("StorageProtocol", cast("DeadlineStorage", storage).with_deadline(deadline_s))
        checker, self._administration, reservations = assemble(
            rules=rules,
            event_bus=event_bus,
            logger=logger,
            on_storage_error=on_storage_error,
            key_prefix=key_prefix,
            identifier_secret=identifier_secret,
            log_identifiers=log_identifiers,
            clock=clock,
            wall_clock=wall_clock,
            enabled=enabled,
            storage=storage,
            hash_tags=traits.hash_tags,
        )
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
            enabled=enabled,
        )
        super().__init__(checker, reservations, storage, deadline_s)
        self._wait_queue = WaitQueue()
        self.rules = checker.live_rules
        """The rules in force: swap them, switch them off and on, read their version."""

    @property
    def storage(self) -> StorageProtocol:
        """Where the buckets are."""
        return self._storage

    async def wait(
        self, *, endpoint: str, identifier: Identifier, cost: Cost = 0, timeout_s: float | None = None
    ) -> RateLimitResult:
        """Take tokens as soon as there are enough, first come, first served; see `is_allowed` for the arguments.

        Raises:
            SlotTimeoutError: A `TimeoutError`, if there is no turn within `timeout_s` seconds (None: no end); no token was taken.
            InvalidInputError: If an argument is wrong.
        """
        return await self._wait_queue.wait(
            partial(self._try_to_take, endpoint, identifier, cost), endpoint, identifier, timeout_s
        )

    def slot(
        self, *, endpoint: str, identifier: Identifier, cost: Cost = 0, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[RateLimitResult]:
        """Do what `wait` does on entering an `async with`, whose body then makes the call."""
        return self._wait_queue.slot(
            partial(self._try_to_take, endpoint, identifier, cost), endpoint, identifier, timeout_s
        )

    async def peek(
        self, *, endpoint: str, identifier: Identifier, cost: Cost = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Tell what `is_allowed` would answer now, and change nothing.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = self._administration.begin_peek(endpoint, identifier, cost)
        if not check.requests:
            return Success(result_of(check))
        try:
            return self._administration.finish_peek(check, await self._in_time(self._storage.peek, check.requests))
        except Exception as error:  # noqa: BLE001 - a peek fails open, as a check does
            return self._administration.fail_peek(check, error)

    async def get_remaining(self, *, endpoint: str, identifier: Identifier) -> Result[int, RateLimitError]:
        """Return the whole tokens left in the bucket that binds: the capacity while the storage fails, 0 without a rule.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        peeked = await self.peek(endpoint=endpoint, identifier=identifier)
        return Success(peeked.value.remaining) if isinstance(peeked, Success) else peeked

    async def reset(self, *, endpoint: str, identifier: Identifier) -> Result[None, RateLimitError]:
        """Fill the endpoint's buckets of this identifier again, also while a kill switch is thrown. Never fails open.

        Returns:
            `Success` as well where there is nothing to reset, because no rule names the endpoint; `Failure` if the storage
            did not do it.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        return await self._administer("reset", self._storage.reset, endpoint, identifier, 0)

    async def reset_all(self) -> Result[None, RateLimitError]:
        """Fill all buckets of all clients again, in bounded steps, as `reset` does one client's. Never fails open.

        That is every bucket whose key begins with this limiter's prefix and a scope of its rules, or of rules that follow them:
        those of dependencies, decorators and middlewares of the process too. No other key is touched.

        Returns:
            `Failure` if the storage did not do it: some buckets may be full then.
        """
        administration, storage = self._administration, self._storage
        prefixes = administration.all_prefixes()
        try:
            if prefixes:
                async with asyncio.timeout(_RESET_ALL_S):
                    await require_resettable(storage).reset_all(prefixes)
            return administration.did_reset_all(prefixes)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return administration.did_not_reset_all(error)

    async def refund(self, *, endpoint: str, identifier: Identifier, cost: Cost = 0) -> Result[None, RateLimitError]:
        """Put tokens back that a check took, also while a kill switch is thrown; never above the capacity. Never fails open.

        Returns:
            `Failure` if the storage did not do it or no rule names the endpoint.

        Raises:
            InvalidInputError: If an argument is wrong, or the cost is one that no check could have taken.
        """
        return await self._administer("refund", self._storage.refund, endpoint, identifier, cost)

    async def explain(self, *, endpoint: str, identifier: Identifier, cost: Cost = 0) -> ExplainedCheck:
        """Tell which rules a check asks, why, and what their buckets hold now; see `is_allowed` for arguments and errors."""
        return await self._inspect().explain(endpoint, identifier, cost)

    async def storage_fault(self) -> str | None:
        """Return why the storage does not answer, in one word; None if it does. Looks at one bucket."""
        return await self._inspect().storage_fault()

    def record(self, event: RateLimitAdministered) -> None:
        """Tell observers and the log what an operator did."""
        self._administration.record(event)

    def with_rules(self, rules: Rules) -> "TokenBucketAdapter":
        """Return a limiter with other rules that is like this one in all else, and shares its storage.

        This one's lists, overrides and kill switches hold for those rules too, also when they change.
        """
        return self._like_this(rules=self.rules.derive(rules))

    async def aclose(self) -> None:
        """Close the storage, then let logger and listeners have what they were not yet told, for a second at most."""
        try:
            await self._storage.aclose()
        finally:
            await self._administration.notifier.flush_from_loop()

    async def _try_to_take(self, endpoint: str, identifier: Identifier, cost: Cost) -> RateLimitResult:
        return (await self.check(endpoint=endpoint, identifier=identifier, cost=cost)).result

    async def _administer(
        self,
        verb: str,
        call: Callable[[Sequence[BucketRequest]], Awaitable[object]],
        endpoint: str,
        identifier: Identifier,
        cost: Cost,
    ) -> Result[None, RateLimitError]:
        check = self._administration.find(endpoint, identifier, cost, verb)
        if not isinstance(check, Check):
            return check
        if not check.requests:
            return Success(None)
        try:
            await self._in_time(call, check.requests)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._administration.failed(check, verb, error)
        self._administration.succeeded(check, verb)
        return Success(None)

    def _inspect(self) -> Inspection:
        return Inspection(self._administration, partial(self._in_time, self._storage.peek))

    def __repr__(self) -> str:
        return f"TokenBucketAdapter(storage={self._storage!r}, rules={self.rules.current().rules!r})"
