"""A throttle for Django REST framework: `throttle_classes = [throttle("5/minute per user")]`."""

import math
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.container import get_sync_rate_limit
from sluicegate.domain.rule import RateLimitRule
from sluicegate.presentation.inline_rules import LimiterByName, RuleOrText, policies, read_rules
from sluicegate.presentation.web.client_address import ClientAddresses
from sluicegate.presentation.web.identifiers import identify, needed_names, require_names


class RateLimitThrottle(BaseThrottle):
    """Throttle a view; made by `throttle`. The framework answers a denial with its own 429 and `Retry-After`."""

    rules: ClassVar[tuple[RateLimitRule, ...]]
    limiters: ClassVar[LimiterByName]
    limiter: ClassVar[SyncTokenBucketAdapter | None]
    addresses: ClassVar[ClientAddresses]
    name: ClassVar[str]
    retry_after: float = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:  # noqa: ANN401 - the framework's
        """Return whether a request may pass."""
        scopes = tuple(dict.fromkeys(str(rule.scope) for rule in self.rules if rule.enabled))
        meta = request.META
        header = "HTTP_" + self.addresses.header.upper().replace("-", "_")
        address = self.addresses.client(meta.get("REMOTE_ADDR"), [meta[header]] if header in meta else [])
        user = request.user.pk if getattr(request.user, "is_authenticated", False) else None
        named = dict.fromkeys(needed_names(scopes), user) if "user" in needed_names(scopes) else {}
        named.pop("ip", None)
        identifier = identify(scopes, address, named, str(view.kwargs.get("provider", ""))) if scopes else "*"
        if identifier is None:
            return True
        name = self.name or f"throttle {type(view).__module__}.{type(view).__qualname__} {policies(self.rules)}"
        limiter = self.limiters.get(SyncTokenBucketAdapter, name, lambda: self.limiter or get_sync_rate_limit())
        checked = limiter.check(endpoint=name, identifier=identifier)
        self.retry_after = checked.result.retry_after
        return checked.result.allowed

    def wait(self) -> float | None:
        """Return the seconds to wait, whole and rounded up: the framework cuts off what follows the point."""
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
        name: What stands in keys; by default the view's class. Views of the same name and rules share buckets.
        limiter: Whose storage is used; None: that of the settings.
        trusted_proxies: See `ClientAddresses`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """
    read = read_rules(rules)
    require_names((str(rule.scope) for rule in read), ())
    return type(
        "Throttle",
        (RateLimitThrottle,),
        {
            "rules": read,
            "limiters": LimiterByName(read),
            "limiter": limiter,
            "addresses": ClientAddresses(trusted_proxies),
            "name": name,
        },
    )
