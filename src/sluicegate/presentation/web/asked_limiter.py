"""What the way of a request needs of a limiter. All questions of one request are about the same rules.

Rules may be replaced at any time, by another thread or while a function of the application is awaited. An endpoint that old
rules named may be none of the new ones, and a check of it would let the request pass uncounted.
"""

from typing import Protocol, TypeVar

from sluicegate.application.check import Decision
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.result import RateLimitResult, Result
from sluicegate.domain.rules.compiled_rules import Keys
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.web.routes.endpoint_finder import Routes


class RulesToAsk(Routes, Protocol):
    """What rules tell beside the endpoints."""

    def rules_of(self, endpoint: str, /) -> tuple[RateLimitRule, ...]:
        """Return the rules of an endpoint."""
        ...

    def keys_of(self, endpoint: str, /) -> Keys:
        """Return the keys of an endpoint's rules, without identifiers."""
        ...

    def counts_calls(self, endpoint: str, also: tuple[str, ...], /) -> bool:
        """Return whether endpoints have rules of calls in flight."""
        ...


R = TypeVar("R", bound=RulesToAsk)


class AskedLimiter(Protocol[R]):
    """What both ways of a request need of a limiter. All questions of one request are about the same rules."""

    def current_rules(self) -> R:
        """Return the rules in force."""
        ...

    def ask_lists(self, *, endpoint: str, identifier: Identifier, rules: R) -> Decision | None:
        """Return what the allow and deny lists say."""
        ...


class AwaitedLimiter(AskedLimiter[R], Protocol[R]):
    """What `check` needs of a limiter, such as `TokenBucketAdapter`."""

    async def check(
        self,
        *,
        endpoint: str,
        identifier: Identifier,
        cost: int = 0,
        also: tuple[str, ...] = (),
        rules: R | None = None,
    ) -> Decision | None:
        """Take tokens; None if there is nothing to tell."""
        ...

    async def peek(self, *, endpoint: str, identifier: Identifier) -> Result[RateLimitResult, RateLimitError]:
        """Tell what is left."""
        ...


class BlockingLimiter(AskedLimiter[R], Protocol[R]):
    """What `check_blocking` needs of a limiter, such as `SyncTokenBucketAdapter`."""

    def check(
        self,
        *,
        endpoint: str,
        identifier: Identifier,
        cost: int = 0,
        also: tuple[str, ...] = (),
        rules: R | None = None,
    ) -> Decision:
        """Take tokens."""
        ...

    def peek(self, *, endpoint: str, identifier: Identifier) -> Result[RateLimitResult, RateLimitError]:
        """Tell what is left."""
        ...
