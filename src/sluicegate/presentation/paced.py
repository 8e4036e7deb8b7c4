"""A decorator for functions that call somebody else's limited API."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.presentation.client.pacer import Call, Pacer
from sluicegate.presentation.client.steps import run, run_blocking
from sluicegate.presentation.decorated import dressed_as, name_of, require_function
from sluicegate.presentation.inline_rules import RuleOrText
from sluicegate.presentation.web.identity.identifiers import EVERYBODY
from sluicegate.presentation.web.request_reader import returns_coroutine

F = TypeVar("F", bound=Callable[..., Any])


def paced(  # noqa: PLR0913 - settings, given by name
    *rules: RuleOrText,
    identifier: Callable[..., object] | None = None,
    timeout_s: float | None = 60.0,
    name: str = "",
    limiter: TokenBucketAdapter | SyncTokenBucketAdapter | None = None,
    retries: int = 0,
    max_pause_s: float = 300.0,
) -> Callable[[F], F]:
    """Let each call of a function wait for its turn, and learn from what the function returns or raises.

    What is learned from has a status and fields: a response with `status_code` (or `status`) and `headers`, or an exception with
    them or with such a `response`, as httpx, requests and the libraries of model providers raise. See `RateLimitTransport`
    for what is made of them. A refusal is returned or raised as it came, unless the call is made again.

    Args:
        rules: Rules, or texts such as `10/second burst 1`.
        identifier: Called with the arguments of each call; returns what is counted separately. None: all calls together. A
            coroutine function only where the decorated function is one.
        timeout_s: The longest wait in seconds, of all attempts together; None: no end.
        name: What keys name in the place of an endpoint; empty: the function's module and name.
        limiter: The limiter whose storage is used: a `TokenBucketAdapter` for coroutine functions, a `SyncTokenBucketAdapter` for
            others. None: the process's.
        retries: How often a call that was refused is made again at most: only for functions that may be called twice.
        max_pause_s: The longest pause that a server may ask for, in seconds.

    Returns:
        A decorator. The decorated function raises `SlotTimeoutError` if there is no turn in time. To decorate raises
        `InvalidTypeError` if the limiter is of the wrong class or what is decorated is a class, a generator or cannot be called.

    Raises:
        InvalidInputError: If an argument is wrong.
    """
    given = limiter

    def pacer_of(asynchronous: bool, limiter: object) -> Pacer:
        return Pacer(
            rules,
            asynchronous=asynchronous,
            limiter=limiter,
            identifier=identifier,
            name=name,
            timeout_s=timeout_s,
            retries=retries,
            max_pause_s=max_pause_s,
            at_start=given is None,
        )

    pacer_of(asynchronous=True, limiter=None)  # raises what is wrong

    def decorate(function: F) -> F:
        require_function(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidTypeError(f"{name_of(function)}: a generator; decorate a function that makes one call")
        awaits = returns_coroutine(function)
        pacer = pacer_of(asynchronous=awaits, limiter=limiter)
        return cast("F", dressed_as(function, (_waiting if awaits else _blocking)(function, pacer)))

    return decorate


def _waiting(function: Callable[..., Any], pacer: Pacer) -> Callable[..., Any]:
    async def paced_function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        async def send() -> _Outcome:
            try:
                return _Outcome(await function(*args, **kwargs), None)
            except Exception as error:  # noqa: BLE001 - raised again, here or when it has been read
                return _refused(error)

        call = Call(send=send, read=_read, discard=_aclose, repeatable=True)
        return _result(await run(pacer.steps(name_of(function), call, EVERYBODY, args, kwargs)))

    return paced_function


def _blocking(function: Callable[..., Any], pacer: Pacer) -> Callable[..., Any]:
    def paced_function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        def send() -> _Outcome:
            try:
                return _Outcome(function(*args, **kwargs), None)
            except Exception as error:  # noqa: BLE001 - raised again, here or when it has been read
                return _refused(error)

        call = Call(send=send, read=_read, discard=_close, repeatable=True)
        return _result(run_blocking(pacer.steps(name_of(function), call, EVERYBODY, args, kwargs)))

    return paced_function


class _Outcome(NamedTuple):
    value: Any
    error: Exception | None


def _refused(error: Exception) -> _Outcome:
    """Return an exception that carries a server's answer, and raise any other one."""
    if _answer_of(error) is None:
        raise error
    return _Outcome(None, error)


def _result(outcome: _Outcome) -> Any:  # noqa: ANN401 - the function's own
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _read(outcome: _Outcome) -> tuple[int, Mapping[str, str]] | None:
    return _answer_of(outcome.value if outcome.error is None else outcome.error)


def _answer_of(source: object) -> tuple[int, Mapping[str, str]] | None:
    """Return the status and the fields of a response, or of an exception that has one; None if there are none."""
    for answer in (source, getattr(source, "response", None)):
        status = getattr(answer, "status_code", getattr(answer, "status", None))
        fields: object = getattr(answer, "headers", None)
        if isinstance(status, int) and isinstance(fields, Mapping):
            items = cast("Mapping[object, object]", fields).items()
            return int(status), {name: text for name, text in items if isinstance(name, str) and isinstance(text, str)}
    return None


async def _aclose(outcome: _Outcome) -> None:
    close = getattr(outcome.value, "aclose", None)
    if close is not None:
        await close()
    else:
        _close(outcome)


def _close(outcome: _Outcome) -> None:
    close = getattr(outcome.value, "close", None)
    if close is not None:
        close()
