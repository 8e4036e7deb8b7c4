"""A decorator that limits calls of functions, coroutine functions and asynchronous generators."""

import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeAlias, TypeVar, cast

from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import get_rate_limit, get_sync_rate_limit
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.decorated import dressed_as, name_of, require_function, require_unregistered
from sluicegate.presentation.inline_rules import InlineRule, InlineRules, require_kind
from sluicegate.presentation.web.answer import Answer
from sluicegate.presentation.web.identity.identifiers import EVERYBODY
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.request_claims import RequestClaims
from sluicegate.presentation.web.request_limiter import RequestLimiter
from sluicegate.presentation.web.request_reader import require_functions, returns_coroutine
from sluicegate.presentation.web.request_record import claims_in

F = TypeVar("F", bound=Callable[..., Any])

_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def rate_limited(  # noqa: PLR0913 - options, given by name
    *rules: InlineRule,
    identifier: Callable[..., object] | None = None,
    cost: int | Callable[..., Any] = 0,
    count_when: Callable[[Any], bool] | None = None,
    answer_cost: Callable[[Any], Any] | None = None,
    name: str = "",
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter | None = None,
    enabled: bool = True,
) -> Callable[[F], F]:
    """Limit the calls of a function.

    If `identifier` or `cost` raise, an error is logged, and the call counts with those that have no identifier, or at the
    rule's cost. The decorator stands next to the function: below one that registers it, such as `@app.get`.

    Args:
        rules: Rules, texts such as `5/minute`, names of policies of the rules file, or functions of the call's arguments that
            return them. Without an `identifier` all calls are counted together.
        identifier: Called with the arguments of each call; returns what the call counts for, or None. A coroutine function only
            where the decorated function is one.
        cost: Tokens that a call takes; 0: the rule's cost. Or a function of the call's arguments, whose 0 means none.
        count_when: Returns whether a call counts, as a function of what it returned; None: all count. A call that raises counts.
        answer_cost: Returns what a call cost in the end, as a function of what it returned; None: its `cost`, which is reserved
            meanwhile. Calls that raise cost that. A generator returns nothing: these functions get None.
        name: What keys name in the place of an endpoint; empty: the function's module and name. Functions of the same name and
            rules share buckets.
        limiter: The limiter whose storage and lists are used: a `TokenBucketAdapter` for coroutine functions and asynchronous
            generators, a `SyncTokenBucketAdapter` for others. None: the process's.
        enabled: False: no call is counted.

    Returns:
        A decorator. The decorated function raises `RateLimitedError` instead of running; a generator, when its first item is
        asked for. To decorate raises `InvalidTypeError` if the limiter is of the wrong class or what is decorated is a class or
        cannot be called, and `InvalidInputError` if it is registered already, so that nobody would call what is decorated.

    Raises:
        InvalidInputError: If a rule cannot be read, the cost is wrong, or a setting is, where no limiter is given.
    """

    def requests_of(*, awaits: bool) -> RequestLimiter:
        return RequestLimiter(
            identifier=None if identifier is None else _spread(identifier, "identifier", awaits=awaits),
            cost=_spread(cost, "cost", awaits=awaits) if callable(cost) else None,
            fixed_cost=0 if callable(cost) else cost,
            count_when=_of_value(count_when, "count_when"),
            answer_cost=_of_value(answer_cost, "answer_cost"),
            enabled=enabled,
            awaits=awaits,
        )

    InlineRules(
        rules, TokenBucketAdapter, None, get_rate_limit, requests=requests_of(awaits=True), at_start=limiter is None
    )  # raises what is wrong

    def decorate(function: F) -> F:
        if isinstance(function, classmethod | staticmethod):
            method = cast("Any", function)
            return cast("F", method.__class__(decorate(method.__func__)))
        require_function(function)
        require_unregistered(function)
        place = name_of(function)
        awaits = returns_coroutine(function) or inspect.isasyncgenfunction(function)
        requests = requests_of(awaits=awaits)
        if limiter is not None:
            require_kind(limiter, TokenBucketAdapter if awaits else SyncTokenBucketAdapter)
        if not awaits:
            sync = InlineRules(
                rules, SyncTokenBucketAdapter, limiter, get_sync_rate_limit, name=name, requests=requests
            )
            sync.note(place)
            return cast("F", _limit_calls(function, place, sync, requests))
        inline = InlineRules(rules, TokenBucketAdapter, limiter, get_rate_limit, name=name, requests=requests)
        inline.note(place)
        limit = _limit_generators if inspect.isasyncgenfunction(function) else _limit_coroutines
        return cast("F", limit(function, place, inline, requests))

    return decorate


def _limit_coroutines(
    function: Callable[..., Any], place: str, rules: InlineRules[TokenBucketAdapter], requests: RequestLimiter
) -> Callable[..., Any]:
    async def limited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        claims = await _check(rules, requests, place, args, kwargs)
        if claims is None:
            return await function(*args, **kwargs)
        try:
            value = await function(*args, **kwargs)
            claims.returned(value)
        finally:
            await claims.settle()
        return value

    return dressed_as(function, limited)


def _limit_generators(
    function: Callable[..., Any], place: str, rules: InlineRules[TokenBucketAdapter], requests: RequestLimiter
) -> Callable[..., Any]:
    async def limited(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: ANN401 - the function's own
        claims = await _check(rules, requests, place, args, kwargs)
        generator = function(*args, **kwargs)
        try:
            item = await anext(generator)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the generator's to handle
                    item = await generator.athrow(error)
                else:
                    item = await generator.asend(sent)
        except StopAsyncIteration:
            if claims is not None:
                claims.returned(None)
            return
        finally:
            try:
                await generator.aclose()
            finally:
                if claims is not None:
                    await claims.settle()

    return dressed_as(function, limited)


def _limit_calls(
    function: Callable[..., Any], place: str, rules: InlineRules[SyncTokenBucketAdapter], requests: RequestLimiter
) -> Callable[..., Any]:
    def limited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        endpoint, limiter = rules.at(place, *args, **kwargs)
        call = _call_as_request(
            place, (args, kwargs), requests.reserves or limiter.current_rules().counts_calls(endpoint)
        )
        decision = requests.check_blocking(limiter, call, endpoint)
        if decision is not None and not decision.result.allowed:
            raise RateLimitedError(rules.shown_at(place), decision)
        claims = claims_in(call.notes)
        if claims is None:
            return function(*args, **kwargs)
        try:
            value = function(*args, **kwargs)
            claims.returned(value)
        finally:
            claims.settle_blocking()
        return value

    return dressed_as(function, limited)


async def _check(
    rules: InlineRules[TokenBucketAdapter],
    requests: RequestLimiter,
    place: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> RequestClaims | None:
    """Check a call; return what is settled when it ends, None if nothing is."""
    endpoint, limiter = rules.at(place, *args, **kwargs)
    call = _call_as_request(place, (args, kwargs), requests.reserves or limiter.current_rules().counts_calls(endpoint))
    decision = await requests.check(limiter, call, endpoint)
    if decision is not None and not decision.result.allowed:
        raise RateLimitedError(rules.shown_at(place), decision)
    return claims_in(call.notes)


def _spread(function: Callable[..., Any], option: str, *, awaits: bool) -> Callable[[_Arguments], Any]:
    """Return a function of a call's arguments, given as one value."""
    require_functions({option: function})
    if not awaits and returns_coroutine(function):
        raise InvalidTypeError(f"{option}={function!r:.80}: a coroutine function, but what is decorated is none")
    return lambda arguments: function(*arguments[0], **arguments[1])


def _call_as_request(place: str, arguments: _Arguments, claims: bool) -> IncomingRequest:
    """Return a call as a request, from the peer that all callers without an identifier share; `claims`: it may claim."""
    return IncomingRequest("CALL", place, place, EVERYBODY, arguments, notes={} if claims else None)


def _of_value(function: Callable[[Any], Any] | None, option: str) -> Callable[[Answer], Any] | None:
    """Return a function of what a call returned as one of its answer."""
    if function is None:
        return None
    require_functions({option: function}, awaits=False)
    given = function
    return lambda answer: given(answer.value)
