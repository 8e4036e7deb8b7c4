"""A decorator that limits calls of any function or coroutine function."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from sluicegate.application.checked import Checked
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit, get_sync_rate_limit
from sluicegate.presentation.inline_rules import LimiterByName, RuleOrText, policies, read_rules
from sluicegate.presentation.web.client_address import identifier_text
from sluicegate.presentation.web.identifiers import EVERYBODY

F = TypeVar("F", bound=Callable[..., Any])


class RateLimitedError(Exception):
    """A call was denied, and the function not run.

    Args:
        name: What was limited.
        checked: What the limiter said; `retry_after` is in its result.
    """

    def __init__(self, name: str, checked: Checked) -> None:
        super().__init__(f"{name}: rate limited, {checked.result.retry_after:g} seconds to wait")
        self.name = name
        self.checked = checked

    @property
    def retry_after(self) -> float:
        """Seconds until the same call would pass; `math.inf`: never."""
        return self.checked.result.retry_after


def rate_limited(
    *rules: RuleOrText,
    identifier: Callable[..., object] | None = None,
    cost: int | Callable[..., int] = 0,
    name: str = "",
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter | None = None,
) -> Callable[[F], F]:
    """Limit the calls of a function.

    Args:
        rules: Rules, or texts such as `5/minute`. Without an `identifier` all calls are counted together.
        identifier: Called with the arguments of each call; returns for whom it counts.
        cost: Tokens that a call takes, or a function of its arguments; 0: the rule's cost.
        name: What stands in keys; by default the function's module and name. Functions of the same name and rules share buckets.
        limiter: Whose storage is used: a `TokenBucketAdapter` for coroutine functions, a `SyncTokenBucketAdapter` for others.
            None: that of the settings.

    Returns:
        A decorator. The decorated function raises `RateLimitedError` in place of running.

    Raises:
        InvalidInputError: If a rule cannot be read.
    """
    read = read_rules(rules)
    limiters = LimiterByName(read)

    def who(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        found = None if identifier is None else identifier_text(identifier(*args, **kwargs))
        return found or EVERYBODY

    def price(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        return cost(*args, **kwargs) if callable(cost) else cost

    def decorate(function: F) -> F:
        place = name or f"{function.__module__}.{function.__qualname__} {policies(read)}"

        @wraps(function)
        async def limited_coroutine(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
            asked = limiters.get(TokenBucketAdapter, place, lambda: limiter or get_rate_limit())
            checked = await asked.check(endpoint=place, identifier=who(args, kwargs), cost=price(args, kwargs))
            if not checked.result.allowed:
                raise RateLimitedError(place, checked)
            return await function(*args, **kwargs)

        @wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
            asked = limiters.get(SyncTokenBucketAdapter, place, lambda: limiter or get_sync_rate_limit())
            checked = asked.check(endpoint=place, identifier=who(args, kwargs), cost=price(args, kwargs))
            if not checked.result.allowed:
                raise RateLimitedError(place, checked)
            return function(*args, **kwargs)

        return cast("F", limited_coroutine if inspect.iscoroutinefunction(function) else limited)

    return decorate
