"""Reset and refund: which buckets they mean, and what is told of them. They never fail open."""

from collections.abc import Callable
from datetime import datetime

from sluicegate.application.check import Check, ShadowedCheck, prepare
from sluicegate.application.failure_policy import FailurePolicy, describe, reason_of
from sluicegate.application.lists_and_overrides import ListAnswer
from sluicegate.application.live_rules import LiveRules
from sluicegate.application.notifier import Notifier
from sluicegate.application.shadow_rules import with_all_buckets
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.compiled_rules import EndpointRules
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.result import Failure


class Administration:
    """Prepare administrative calls and tell what became of them.

    Args:
        in_force: The rules in force.
        key_format: How buckets are named.
        policy: What has local buckets as well.
        notifier: Whom to tell.
        utc_now: The wall clock.
    """

    def __init__(
        self,
        in_force: LiveRules,
        key_format: KeyFormat,
        policy: FailurePolicy,
        notifier: Notifier,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._in_force = in_force
        self._key_format = key_format
        self._policy = policy
        self._notifier = notifier
        self._utc_now = utc_now

    def find(
        self, endpoint: str, identifier: Identifier, cost: int, verb: str
    ) -> Check | EndpointRules | Failure[RateLimitError]:
        """Return the buckets that an administrative call means; a failure where no rule names the endpoint.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check = prepare(
            self._in_force.now.rules, self._key_format, endpoint, identifier, cost, now=self._utc_now, heed_lists=False
        )
        if isinstance(check, ShadowedCheck):
            check = with_all_buckets(check)
        if check is None or isinstance(check, ListAnswer):
            error = RateLimitError("no_rule", f"No rate limit rule names the endpoint {endpoint!r}.", endpoint)
            self._notifier.log("error", f"A rate limit {verb} was not done.", reason=error.reason, endpoint=endpoint)
            return Failure(error)
        if isinstance(check, EndpointRules) and check.disabled is None:
            raise InvalidInputError(f"cost={cost}: exceeds max_tokens={check.max_cost} of {check.endpoint!r}")
        return check

    def administered(self, check: Check, identifier: Identifier, verb: str) -> None:
        """Note that an administrative call was carried out."""
        if verb == "reset":
            self._policy.forget(check)
        self._notifier.log(
            "info",
            f"Rate limit {verb} done.",
            endpoint=check.endpoint_rules.endpoint,
            identifier=self._notifier.mask(identifier),
        )

    def not_administered(
        self, check: Check, identifier: Identifier, verb: str, error: Exception
    ) -> Failure[RateLimitError]:
        """Return the failure of an administrative call, which never fails open."""
        reason = reason_of(error)
        self._notifier.log(
            "error",
            f"A rate limit {verb} was not done.",
            reason=reason,
            error=describe(error),
            endpoint=check.endpoint_rules.endpoint,
            identifier=self._notifier.mask(identifier),
        )
        message = f"The storage did not {verb} the bucket ({reason}): {describe(error)}"
        return Failure(RateLimitError(reason, message, check.endpoint_rules.endpoint))
