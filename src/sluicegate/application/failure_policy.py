"""The place where failure becomes an answer.

Whatever keeps a storage from deciding arrives here as an exception and leaves as a verdict: let pass, decide in this process, or
refuse. The local bucket starts full and has the same rule, so no client within the limit is denied by it, and crashing the
storage does not lift the limit but at most doubles it per process.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sluicegate.application.check import Check
from sluicegate.application.outage import Outage
from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_store import SHARDS
from sluicegate.domain.buckets.bucket_table import BucketTable, interrupting
from sluicegate.domain.buckets.token_bucket import binding, full, result_at
from sluicegate.domain.errors import StorageError
from sluicegate.domain.protocols import Clock
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.compiled_rules import EndpointRules
from sluicegate.domain.rules.rule import OnStorageError, RateLimitRule, require_policy
from sluicegate.runtime.mutex import held_here, new_mutex

MAX_LOCAL_KEYS: Final = 100_000
"""How many clients the local buckets of an outage tell apart; 30 MB at most, keys included."""

RETRY_AFTER_REFUSAL: Final = 1.0
"""Seconds that a client is asked to wait where the policy is to refuse: when the storage will be back is not known."""


class FallbackAnswer:
    """The answer to a check while the storage cannot give one.

    Args:
        result: The client's answer.
        policy: The policy that decided.
        rule: The rule that the answer describes.
    """

    __slots__ = ("policy", "result", "rule")

    def __init__(self, result: RateLimitResult, policy: OnStorageError, rule: RateLimitRule) -> None:
        self.result: Final = result
        self.policy: Final[OnStorageError] = policy
        self.rule: Final = rule


class FailurePolicy:
    """Answer checks that the storage could not decide, and count them.

    Args:
        default: What rules without a policy of their own do.
        clock: What time the local buckets go by.
        max_local_keys: How many clients the local buckets of an outage tell apart.

    Raises:
        InvalidInputError: If the default is not one of `allow`, `local`, `deny`.
    """

    # Any default is taken and checked here: compiled code would refuse another type with an error that names no field.
    def __init__(self, default: object, clock: Clock, *, max_local_keys: int = MAX_LOCAL_KEYS) -> None:
        self._default: OnStorageError = require_policy("on_storage_error", default)
        self._clock = clock
        self._mutex = new_mutex()
        self._buckets = BucketTable(max_local_keys)
        self.failures: Counter[str] = Counter()
        """How many checks were answered here, by reason."""
        self.outage: Outage = Outage(clock)

    def policy_of(self, rule: RateLimitRule) -> OnStorageError:
        """Return what a rule does while the storage fails."""
        return rule.on_storage_error or self._default

    def answer(self, check: Check, rules: EndpointRules, reason: str) -> FallbackAnswer:
        """Decide a check without the storage: one refusing rule refuses, then local buckets decide, else it passes.

        Args:
            check: What the storage was asked.
            rules: The check's rules.
            reason: Why the storage did not answer.
        """
        self.count(reason)
        requests = check.requests
        local: list[BucketRequest] = []
        local_rules: list[RateLimitRule] = []
        terms: list[ClaimTerms] = []
        for at, rule in enumerate(rules.rules):
            policy = self.policy_of(rule)
            if policy == "deny":
                refused = RateLimitResult(
                    allowed=False, retry_after=RETRY_AFTER_REFUSAL, remaining=0, limit=rule.max_tokens, reset_seconds=0
                )
                return FallbackAnswer(refused, "deny", rule)
            if policy == "local":
                local.append(requests[at])
                local_rules.append(rule)
                if check.terms:
                    terms.append(check.terms[at])
        if local:
            asked = tuple(local)
            try:
                verdict = self._take(asked, check.number, terms)
                at = binding(asked, verdict)
                return FallbackAnswer(result_at(asked, verdict, at), "local", local_rules[at])
            except Exception:  # noqa: BLE001 - whatever it is, it is not the client's fault
                self.count("bug")
        smallest = min(rules.rules, key=_capacity)
        return FallbackAnswer(full(smallest.max_tokens), "allow", smallest)

    def _take(self, requests: tuple[BucketRequest, ...], number: int, terms: list[ClaimTerms]) -> Verdict:
        now_us = self._clock.now_us()
        if held_here(self._mutex):  # a signal handler or a finaliser, while this thread is below
            return self._buckets.take_within(requests, now_us)
        with self._mutex:
            if not terms:
                return self._buckets.take(requests, now_us)
            return self._buckets.reserve(requests, number, terms, now_us)

    def settle(
        self, requests: tuple[BucketRequest, ...], number: int, max_debts: tuple[int, ...]
    ) -> tuple[BucketSettlement, ...]:
        """Settle what was reserved in the local buckets."""
        with self._mutex:
            return self._buckets.settle(requests, number, max_debts, self._clock.now_us())

    def extend(self, requests: tuple[BucketRequest, ...], number: int, ttls_us: tuple[int, ...]) -> int:
        """Extend what was reserved in the local buckets, and return in how many there was something."""
        with self._mutex:
            return self._buckets.extend(requests, number, ttls_us, self._clock.now_us())

    @property
    def local_keys(self) -> int:
        """How many local buckets there are."""
        return len(self._buckets)

    def count(self, reason: str) -> None:
        """Count a call that the storage did not answer."""
        with self._mutex:
            self.failures[reason] += 1

    def forget(self, check: Check) -> None:
        """Fill the local buckets of a check again: an operator's reset means these as well."""
        now_us = self._clock.now_us()
        if held_here(self._mutex):
            self._buckets.reset_within(check.requests, now_us)
            return
        with self._mutex:
            self._buckets.reset(check.requests, now_us)

    def forget_all(self, prefixes: Iterable[str]) -> None:
        """Fill the local buckets whose keys begin with one of some prefixes.

        Raises:
            StorageError: If it is asked in the midst of another call of this thread.
        """
        several = tuple(prefixes)
        if held_here(self._mutex):
            raise interrupting()
        for shard in range(SHARDS if len(self._buckets) else 0):
            with self._mutex:
                self._buckets.reset_shard(shard, several, self._clock.now_us())


def _capacity(rule: RateLimitRule) -> int:
    return rule.max_tokens


def reason_of(error: Exception) -> str:
    """Return why a storage failed, in a word of a closed set that is fit for a metric's label."""
    if isinstance(error, StorageError):
        try:
            return str(error.reason)
        except Exception:  # noqa: BLE001 - a storage's own class of error
            return "bug"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError):
        return "connection"
    return "bug"
