"""A decorator that limits calls of any function or coroutine function."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias, TypeVar, cast

from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit, get_sync_rate_limit
from sluicegate.presentation.inline_rules import InlineLimiters, RuleOrText, read_rules, require_kind
from sluicegate.presentation.web.identifiers import EVERYBODY, names_to_ask
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.request_limiter import RequestLimiter

F = TypeVar("F", bound=Callable[..., Any])

_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def rate_limited(
    *rules: RuleOrText,
    identifier: Callable[..., object] | None = None,
    cost: int | Callable[..., Any] = 0,
    name: str = "",
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter | None = None,
) -> Callable[[F], F]:
    """Limit the calls of a function.

    If `identifier` or `cost` raise, a warning is logged, and the call counts with those that have no identifier, or at the
    rule's cost.

    Args:
        rules: Rules, or texts such as `5/minute`. Without an `identifier` all calls are counted together.
        identifier: Called with the arguments of each call; returns what the call counts for, or None. A coroutine function only
            where the decorated function is one.
        cost: Tokens that a call takes, or a function of its arguments; 0: the rule's cost.
        name: What keys name in the place of an endpoint; empty: the function's module and name. Functions of the same name and
            rules share buckets.
        limiter: The limiter whose storage is used: a `TokenBucketAdapter` for coroutine functions, a `SyncTokenBucketAdapter` for
            others. None: that of the settings.

    Returns:
        A decorator. The decorated function raises `RateLimitedError` instead of running. To decorate raises `InvalidTypeError`
        if the limiter is of the wrong class.

    Raises:
        InvalidInputError: If a rule cannot be read or the cost is wrong.
    """
    read = read_rules(rules)
    scopes = tuple(dict.fromkeys(str(rule.scope) for rule in read))
    by_arguments = {} if identifier is None else dict.fromkeys(names_to_ask(scopes), _spread(identifier))
    requests = RequestLimiter(
        scopes=scopes if identifier is None else (),
        identifiers=by_arguments,
        cost=_spread(cost) if callable(cost) else None,
        fixed_cost=0 if callable(cost) else cost,
    )

    def decorate(function: F) -> F:
        place = f"{function.__module__}.{function.__qualname__}"
        if inspect.iscoroutinefunction(function):
            decorated = _limit_coroutines(function, place, _limiters(TokenBucketAdapter, get_rate_limit), requests)
        else:
            decorated = _limit_calls(function, place, _limiters(SyncTokenBucketAdapter, get_sync_rate_limit), requests)
        return cast("F", decorated)

    def _limiters(kind: Any, otherwise: Callable[[], object]) -> InlineLimiters[Any]:  # noqa: ANN401 - one of two classes
        if limiter is not None:
            require_kind(limiter, kind)
        return InlineLimiters(read, kind, lambda: limiter or otherwise(), name=name)

    return decorate


def _limit_coroutines(
    function: Callable[..., Any], place: str, limiters: InlineLimiters[TokenBucketAdapter], requests: RequestLimiter
) -> Callable[..., Any]:
    @wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        endpoint, limiter = limiters.at(place)
        decision = await requests.check(limiter, _call_as_request(place, (args, kwargs)), endpoint)
        if decision is not None and not decision.result.allowed:
            raise RateLimitedError(endpoint, decision)
        return await function(*args, **kwargs)

    return limited


def _limit_calls(
    function: Callable[..., Any],
    place: str,
    limiters: InlineLimiters[SyncTokenBucketAdapter],
    requests: RequestLimiter,
) -> Callable[..., Any]:
    @wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        endpoint, limiter = limiters.at(place)
        decision = requests.check_blocking(limiter, _call_as_request(place, (args, kwargs)), endpoint)
        if decision is not None and not decision.result.allowed:
            raise RateLimitedError(endpoint, decision)
        return function(*args, **kwargs)

    return limited


def _spread(function: Callable[..., Any]) -> Callable[[_Arguments], Any]:
    """Return a function of a call's arguments, given as one value."""
    return lambda arguments: function(*arguments[0], **arguments[1])


def _call_as_request(place: str, arguments: _Arguments) -> IncomingRequest:
    """Return a call as a request, from the peer that all callers without an identifier share."""
    return IncomingRequest("CALL", place, place, EVERYBODY, arguments)
