"""The limiter for code without an event loop: WSGI applications, scripts, worker threads."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial

from sluicegate.application.assembly import assemble, require_sync_resettable, require_traits
from sluicegate.application.budgets.sync_reservation_face import SyncReservationFace
from sluicegate.application.check import Check, result_of
from sluicegate.application.explained_check import ExplainedCheck, explained, unexplained
from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.application.sync_wait_queue import SyncWaitQueue
from sluicegate.domain.arguments import Cost, Identifier
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.protocols import (
    Clock,
    EventBusProtocol,
    LoggerProtocol,
    SyncReservationStorage,
    SyncStorageProtocol,
)
from sluicegate.domain.result import RateLimitResult, Result, Success
from sluicegate.domain.rules.rule import OnStorageError
from sluicegate.domain.rules.rule_book import Rules


class SyncTokenBucketAdapter(SyncReservationFace):
    """Decide whether requests may pass, in plain calls.

    The deadline is the storage's own: a plain call cannot be interrupted from outside.

    Args:
        storage: Where the buckets are: a `MemoryStorage`, or a storage with the verbs of `SyncStorageProtocol`.
        rules: Endpoints and their rules; or the `rules` of another limiter, which then hold for both.
        event_bus: Gets the events of every check; None: there are none.
        logger: Gets failures and administrative calls; None: `logging.getLogger("sluicegate")`.
        on_storage_error: What rules without a policy of their own answer while the storage fails.
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
        storage: SyncStorageProtocol,
        rules: Rules | LiveRules,
        event_bus: EventBusProtocol | None = None,
        logger: LoggerProtocol | None = None,
        on_storage_error: OnStorageError = "allow",
        key_prefix: str = "rate_limit",
        identifier_secret: bytes | None = None,
        log_identifiers: bool = False,
        clock: Clock | None = None,
        wall_clock: Callable[[], datetime] | None = None,
        enabled: bool = True,
    ) -> None:
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
            hash_tags=require_traits(storage, blocking=True).hash_tags,
        )
        self._like_this = partial(
            SyncTokenBucketAdapter,
            storage=storage,
            event_bus=event_bus,
            logger=logger,
            on_storage_error=on_storage_error,
            key_prefix=key_prefix,
            identifier_secret=identifier_secret,
            log_identifiers=log_identifiers,
            clock=clock,
            wall_clock=wall_clock,
            enabled=enabled,
        )
        super().__init__(
            checker,
            storage.take_blocking,
            reservations,
            storage if isinstance(storage, SyncReservationStorage) else None,
        )
        self._storage = storage
        self._wait_queue = SyncWaitQueue()
        self.rules = checker.live_rules
        """The rules in force: swap them, switch them off and on, read their version."""

    @property
    def storage(self) -> SyncStorageProtocol:
        """Where the buckets are."""
        return self._storage

    def wait(
        self, *, endpoint: str, identifier: Identifier, cost: Cost = 0, timeout_s: float | None = None
    ) -> RateLimitResult:
        """Take tokens as soon as there are enough, first come, first served among the threads that wait; it blocks until then.

        Raises:
            SlotTimeoutError: A `TimeoutError`, if there is no turn within `timeout_s` seconds (None: no end); no token was taken.
            InvalidInputError: If an argument is wrong.
        """
        return self._wait_queue.wait(
            partial(self._try_to_take, endpoint, identifier, cost), endpoint, identifier, timeout_s
        )

    def slot(
        self, *, endpoint: str, identifier: Identifier, cost: Cost = 0, timeout_s: float | None = None
    ) -> AbstractContextManager[RateLimitResult]:
        """Do what `wait` does on entering a `with`, whose body then makes the call."""
        return self._wait_queue.slot(
            partial(self._try_to_take, endpoint, identifier, cost), endpoint, identifier, timeout_s
        )

    def peek(self, *, endpoint: str, identifier: Identifier, cost: Cost = 0) -> Result[RateLimitResult, RateLimitError]:
        """Tell what `is_allowed` would answer now, and change nothing.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = self._administration.begin_peek(endpoint, identifier, cost)
        if not check.requests:
            return Success(result_of(check))
        try:
            return self._administration.finish_peek(check, self._storage.peek_blocking(check.requests))
        except Exception as error:  # noqa: BLE001 - a peek fails open, as a check does
            return self._administration.fail_peek(check, error)

    def explain(self, *, endpoint: str, identifier: Identifier, cost: Cost = 0) -> ExplainedCheck:
        """Tell which rules a check asks, why, and what their buckets hold now; see `is_allowed` for arguments and errors."""
        check, explanation = self._administration.begin_explanation(endpoint, identifier, cost)
        levels: tuple[BucketLevel, ...] = ()
        if check.requests:
            try:
                levels = self._storage.peek_blocking(check.requests)
                self._administration.finish_peek(check, levels)
            except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
                return unexplained(explanation, error)
        return explained(explanation, check, levels)

    def get_remaining(self, *, endpoint: str, identifier: Identifier) -> Result[int, RateLimitError]:
        """Return the whole tokens left in the bucket that binds: the capacity while the storage fails, 0 without a rule.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        peeked = self.peek(endpoint=endpoint, identifier=identifier)
        return Success(peeked.value.remaining) if isinstance(peeked, Success) else peeked

    def reset(self, *, endpoint: str, identifier: Identifier) -> Result[None, RateLimitError]:
        """Fill the endpoint's buckets of this identifier again, also while a kill switch is thrown. Never fails open.

        Returns:
            `Success` as well where there is nothing to reset, because no rule names the endpoint; `Failure` if the storage
            did not do it.
        """
        return self._administer("reset", self._storage.reset_blocking, endpoint, identifier, 0)

    def reset_all(self) -> Result[None, RateLimitError]:
        """Fill all buckets of all clients again, in bounded steps; see `TokenBucketAdapter.reset_all`.

        Returns:
            `Failure` if the storage did not do it: some buckets may be full then.
        """
        administration = self._administration
        prefixes = administration.all_prefixes()
        try:
            if prefixes:
                require_sync_resettable(self._storage).reset_all_blocking(prefixes)
            return administration.did_reset_all(prefixes)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return administration.did_not_reset_all(error)

    def refund(self, *, endpoint: str, identifier: Identifier, cost: Cost = 0) -> Result[None, RateLimitError]:
        """Put tokens back that a check took, also while a kill switch is thrown; never above the capacity. Never fails open.

        Returns:
            `Failure` if the storage did not do it or no rule names the endpoint.
        """
        return self._administer("refund", self._storage.refund_blocking, endpoint, identifier, cost)

    def close(self) -> None:
        """Close the storage, if it can be, then tell logger and listeners what they do not know yet, in a second at most."""
        close = getattr(self._storage, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._administration.notifier.flush()

    def with_rules(self, rules: Rules) -> "SyncTokenBucketAdapter":
        """Return a limiter with other rules that is like this one in all else, and shares its storage.

        This one's lists, overrides and kill switches hold for those rules too, also when they change.
        """
        return self._like_this(rules=self.rules.derive(rules))

    def _try_to_take(self, endpoint: str, identifier: Identifier, cost: Cost) -> RateLimitResult:
        return self.check(endpoint=endpoint, identifier=identifier, cost=cost).result

    def _administer(
        self,
        verb: str,
        call: Callable[[Sequence[BucketRequest]], object],
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
            call(check.requests)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._administration.failed(check, verb, error)
        self._administration.succeeded(check, verb)
        return Success(None)

    def __repr__(self) -> str:
        return f"SyncTokenBucketAdapter(storage={self._storage!r}, rules={self.rules.current().rules!r})"
