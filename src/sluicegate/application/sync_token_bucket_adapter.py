"""The limiter for code without an event loop: WSGI applications, scripts, worker threads."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import cast

from sluicegate.application.check import RULES_OWN, Check, Decision, ShadowedCheck
from sluicegate.application.checked import decided, degraded
from sluicegate.application.checker import build_flow
from sluicegate.application.shadow_rules import requests_of, with_all_buckets
from sluicegate.domain.bucket_request import BucketRequest, Verdict
from sluicegate.domain.compiled_rules import Rules
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.protocols import Clock, EventBusProtocol, Identifier, LoggerProtocol, SyncStorageProtocol
from sluicegate.domain.result import Failure, Result, Success
from sluicegate.domain.rule import OnStorageError


class SyncTokenBucketAdapter:
    """Decide whether requests may pass, in plain calls.

    Arguments and answers are those of `TokenBucketAdapter`. The deadline is the storage's own: a plain call cannot be
    interrupted from outside.

    Args:
        storage: Where the buckets are: a `MemoryStorage`, or a storage with the verbs of `SyncStorageProtocol`.
        rules: Endpoints and their rules.
        event_bus: Who is told of every check; None: nobody.
        logger: Who is told of failures and administrative calls; None: `logging.getLogger("sluicegate")`.
        on_storage_error: What rules without a policy of their own answer while the storage fails.
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
        storage: SyncStorageProtocol,
        rules: Rules,
        event_bus: EventBusProtocol | None = None,
        logger: LoggerProtocol | None = None,
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
        )
        self._take_now = storage.take_now
        self._observed = event_bus is not None
        self._flow.quicken(storage)
        self.rules = self._flow.in_force
        """The rules in force: swap them, switch them off and on, read their version."""

    def is_allowed(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Take tokens if all of the endpoint's rules have them; see `TokenBucketAdapter.is_allowed`."""
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
                check = self._with_shadows(check, identifier)
            return Success(cast("Decision", check).result)
        started_us = flow.started_us() if self._observed else 0
        try:
            return flow.concluded(check, identifier, self._take_now(check.requests), started_us)
        except Exception as error:  # noqa: BLE001 - the one place where a failed check becomes an answer
            return flow.failed(check, identifier, error, started_us)

    def check(self, *, endpoint: str, identifier: Identifier, cost: int = 0) -> Decision:
        """Do what `is_allowed` does, and tell more of it; see `TokenBucketAdapter.check`."""
        quick_checks, only_rules = self.rules.short_way
        try:
            rule = only_rules.get(endpoint) if cost is RULES_OWN else None
            if rule and type(identifier) is str and (answer := quick_checks[endpoint](identifier)):
                return Decision(answer.value, (rule,), rule)
        except Exception:  # noqa: BLE001, S110 - as in `is_allowed`
            pass
        flow = self._flow
        check = flow.begin(endpoint, identifier, cost)
        if isinstance(check, ShadowedCheck):
            return self._with_shadows(check, identifier)
        if isinstance(check, Decision):
            return check
        started_us = flow.started_us()
        try:
            verdict = self._take_now(check.requests)
            result = flow.concluded(check, identifier, verdict, started_us).value
            return decided(check, result, verdict)
        except Exception as error:  # noqa: BLE001 - the same place as in `is_allowed`
            return degraded(check, flow.answered(check, identifier, error, started_us))

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint that a request belongs to; see `TokenBucketAdapter.match`."""
        return self._flow.rules.match(method, path)

    def with_rules(self, rules: Rules) -> "SyncTokenBucketAdapter":
        """Return a limiter with other rules that is like this one in all else, and shares its storage."""
        return self._like_this(rules=rules)

    @property
    def scopes(self) -> frozenset[str]:
        """Whom the rules count, all together."""
        return self._flow.rules.scopes

    def scopes_of(self, endpoint: str) -> tuple[str, ...]:
        """Return whose identifiers a check of an endpoint needs, each scope once; empty if no rule is for it.

        These are the scopes of its rules, and those of the allow and deny lists.
        """
        return self._flow.rules.scopes_of(endpoint)

    def peek(self, *, endpoint: str, identifier: Identifier, cost: int = 0) -> Result[RateLimitResult, RateLimitError]:
        """Tell what `is_allowed` would answer now, and change nothing."""
        check = self._flow.look(endpoint, identifier, cost)
        if not isinstance(check, Check):
            return check
        try:
            return self._flow.peeked(check, self._storage.peek_now(check.requests))
        except Exception as error:  # noqa: BLE001 - a peek answers as the check would
            return self._flow.not_peeked(check, error)

    def get_remaining(self, *, endpoint: str, identifier: Identifier) -> Result[int, RateLimitError]:
        """Return the whole tokens left in the tightest bucket: the capacity while the storage fails, 0 without a rule."""
        match self.peek(endpoint=endpoint, identifier=identifier):
            case Success(value=result):
                return Success(result.remaining)
            case Failure(error=error):
                return Failure(error)

    def reset(self, *, endpoint: str, identifier: Identifier) -> Result[None, RateLimitError]:
        """Fill the endpoint's buckets of this identifier again. Never fails open."""
        return self._administer("reset", self._storage.reset_now, endpoint, identifier, 0)

    def refund(self, *, endpoint: str, identifier: Identifier, cost: int = 0) -> Result[None, RateLimitError]:
        """Put tokens back that a check took, never above the capacity. Never fails open."""
        return self._administer("refund", self._storage.refund_now, endpoint, identifier, cost)

    @property
    def shadow_denials(self) -> dict[str, int]:
        """How many requests each rule in shadow mode would have denied, by its name."""
        return dict(self._flow.shadows.denials)

    @property
    def failures(self) -> dict[str, int]:
        """How many checks the storage could not decide, by reason."""
        return dict(self._flow.policy.failures)

    def _with_shadows(self, shadowed: ShadowedCheck, identifier: Identifier) -> Decision:
        flow = self._flow
        started_us = flow.started_us()
        outcomes: list[Verdict | Exception] = []
        for requests in requests_of(shadowed):
            try:
                outcomes.append(self._take_now(requests))
            except Exception as error:  # noqa: BLE001 - each is a check of its own
                outcomes.append(error)
        try:
            return flow.concluded_with_shadows(shadowed, identifier, outcomes, started_us)
        except Exception as error:  # noqa: BLE001 - as in a check without shadows
            check = shadowed.check or with_all_buckets(shadowed)
            return degraded(check, flow.answered(check, identifier, error, started_us))

    def _administer(
        self,
        verb: str,
        call: Callable[[Sequence[BucketRequest]], object],
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
            call(check.requests)
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return self._flow.administration.not_administered(check, identifier, verb, error)
        self._flow.administration.administered(check, identifier, verb)
        return Success(None)

    def __repr__(self) -> str:
        return f"SyncTokenBucketAdapter(storage={self._storage!r}, rules={self._flow.rules!r})"
