"""A throttle for Django REST framework: `throttle_classes = [throttle("5/minute per user")]`."""

import math
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.container import get_sync_rate_limit
from sluicegate.presentation.inline_rules import InlineLimiters, RuleOrText, read_rules, require_kind
from sluicegate.presentation.web.environ import EnvironRequest
from sluicegate.presentation.web.request_limiter import RequestLimiter


class RateLimitThrottle(BaseThrottle):
    """Throttle a view; `throttle` makes it. The framework answers a denied request with its own 429 and `Retry-After`."""

    limiters: ClassVar[InlineLimiters[SyncTokenBucketAdapter]]
    requests: ClassVar[RequestLimiter]
    retry_after: float = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:  # noqa: ANN401 - the framework's
        """Return whether a request may pass."""
        place = f"throttle {type(view).__module__}.{type(view).__qualname__}"
        endpoint, limiter = self.limiters.at(place)
        incoming = EnvironRequest(request.META, request.path_info, request.path_info, request, view.kwargs)
        decision = self.requests.check_blocking(limiter, incoming, endpoint)
        if decision is None:
            return True
        self.retry_after = decision.result.retry_after
        return decision.result.allowed

    def wait(self) -> float | None:
        """Return the seconds to wait, rounded up: the framework cuts off fractions. None if no wait helps."""
        return None if math.isinf(self.retry_after) else max(1, math.ceil(self.retry_after))


def throttle(
    *rules: RuleOrText,
    name: str = "",
    limiter: SyncTokenBucketAdapter | None = None,
    trusted_proxies: tuple[str, ...] = (),
) -> type[RateLimitThrottle]:
    """Return a throttle for a view's `throttle_classes`.

    Args:
        rules: Rules, or texts such as `5/minute per user`; a text without `per` counts addresses.
        name: What keys name in the place of an endpoint; empty: the view's class. Views of the same name and rules share buckets.
        limiter: The limiter whose storage is used; None: that of the settings.
        trusted_proxies: See `ClientAddresses`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """
    read = read_rules(rules)
    if limiter is not None:
        require_kind(limiter, SyncTokenBucketAdapter)
    requests = RequestLimiter(
        scopes=[str(rule.scope) for rule in read],
        trusted_proxies=trusted_proxies,
        identifiers={"user": _signed_in_user},
    )
    limiters = InlineLimiters(read, SyncTokenBucketAdapter, lambda: limiter or get_sync_rate_limit(), name=name)
    return type("Throttle", (RateLimitThrottle,), {"limiters": limiters, "requests": requests})


def _signed_in_user(request: Request) -> object:
    return request.user.pk if getattr(request.user, "is_authenticated", False) else None
