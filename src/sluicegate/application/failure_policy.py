"""The place where failure becomes an answer.

Whatever keeps a storage from deciding arrives here as an exception and leaves as a verdict: let pass, decide in this process, or
refuse. The local bucket starts full and has the same rule, so nobody within the limit is denied by it, and crashing the
storage does not lift the limit but at most doubles it per process.
"""

import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from threading import Lock

import msgspec

from sluicegate.application.check import Check
from sluicegate.domain.bucket_table import BucketTable
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError, StorageError
from sluicegate.domain.protocols import Clock
from sluicegate.domain.rule import ON_STORAGE_ERROR, OnStorageError
from sluicegate.domain.token_bucket import tightest

LOCAL_MAX_KEYS = 100_000
"""How many clients the local buckets of an outage tell apart; about 20 MB."""

RETRY_AFTER_REFUSAL = 1.0
"""Seconds that a client is asked to wait where the policy is to refuse: nobody knows when the storage will be back."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What to say while the storage cannot.

    Args:
        result: The client's answer.
        policy: The policy that decided.
    """

    result: RateLimitResult
    policy: OnStorageError


class FailurePolicy:
    """Answer checks that the storage could not decide, and count them.

    Args:
        default: What rules without a policy of their own do.
        clock: What time the local buckets go by.

    Raises:
        InvalidInputError: If the default is not one of `allow`, `local`, `deny`.
    """

    def __init__(self, default: OnStorageError, clock: Clock) -> None:
        if default not in ON_STORAGE_ERROR:
            raise InvalidInputError(f"on_storage_error={default!r}: expected one of {', '.join(ON_STORAGE_ERROR)}")
        self._default: OnStorageError = default
        self._clock = clock
        self._lock = Lock()
        self._buckets = BucketTable(LOCAL_MAX_KEYS)
        self.failures: Counter[str] = Counter()
        """How many checks were answered here, by reason."""

    def answer(self, check: Check, reason: str) -> Answer:
        """Decide a check without the storage: one refusing rule refuses, then local buckets decide, else it passes."""
        self.count(reason)
        policies = [limit_.rule.on_storage_error or self._default for limit_ in check.endpoint_rules.limits]
        limits = [limit_.rule.max_tokens for limit_ in check.endpoint_rules.limits]
        if "deny" in policies:
            limit = limits[policies.index("deny")]
            return Answer(RateLimitResult(False, RETRY_AFTER_REFUSAL, 0, limit, 0), "deny")  # noqa: FBT003
        requests = [request for request, policy in zip(check.requests, policies, strict=True) if policy == "local"]
        if requests:
            with self._lock:
                verdict = self._buckets.take(requests, self._clock.now_us())
            return Answer(tightest(requests, verdict), "local")
        full = min(limits)
        return Answer(RateLimitResult(True, 0.0, full, full, 0), "allow")  # noqa: FBT003

    def count(self, reason: str) -> None:
        """Count a call that the storage did not answer."""
        with self._lock:
            self.failures[reason] += 1

    def forget(self, check: Check) -> None:
        """Fill the local buckets of a check again: an operator's reset means these as well."""
        with self._lock:
            self._buckets.reset(check.requests)


def reason_of(error: Exception) -> str:
    """Return why a storage failed, in a word of a closed set that is fit for a metric's label."""
    if isinstance(error, StorageError):
        return error.reason
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError):
        return "connection"
    return "bug"


def describe(error: Exception) -> str:
    """Say what happened without repeating what a foreign exception's message may hold: identifiers, keys, passwords."""
    if isinstance(error, StorageError):
        return str(error)
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    place = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
