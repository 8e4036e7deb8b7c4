"""The commands that ask a limiter one thing: `check`, `remaining`, `reset`. Each returns its exit status."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_rate_limit
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.result import Failure, RateLimitResult, Result, Success
from sluicegate.infrastructure.settings import Settings, read_settings
from sluicegate.presentation.cli.terminal import encodable, write_complaint, write_json, write_line

T = TypeVar("T")

DONE = 0
NOT_DONE = 1


class Answer(msgspec.Struct, frozen=True):
    """What `check` and `remaining` print as JSON.

    Args:
        endpoint: What was asked for.
        identifier: Who asked.
        allowed: The verdict.
        retry_after: Seconds until the same request would pass; 0 when allowed; null if no wait helps.
        remaining: Whole tokens left.
        limit: The bucket's capacity; 0 where no rule applies.
        reset_seconds: Whole seconds until the bucket is full again.
        storage_failure: Why the storage did not decide, in a word; null if it did.
    """

    endpoint: str
    identifier: str
    allowed: bool
    retry_after: float
    remaining: int
    limit: int
    reset_seconds: int
    storage_failure: str | None


class ResetAnswer(msgspec.Struct, frozen=True):
    """What `reset` prints as JSON: whether it was done, and if not, why in a word."""

    endpoint: str
    identifier: str
    done: bool
    reason: str | None


class _Complaints:
    """A logger that passes on to the user what a command does not say itself: how a storage failed."""

    inline = True

    def debug(self, message: str, /, **context: object) -> None:
        """Leave it out."""

    def info(self, message: str, /, **context: object) -> None:
        """Leave it out."""

    def warning(self, message: str, /, **context: object) -> None:
        """Write one line, if something broke: a cost that never fits is in the answer."""
        if "error" in context:
            write_complaint(f"{message} ({context['error']})")

    def error(self, message: str, /, **context: object) -> None:
        """Leave it out."""


def check(endpoint: str, identifier: str, cost: int, rules_path: Path | None, *, as_json: bool) -> int:
    """Take a request's tokens and print the answer.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is wrong.
    """

    def ask(limiter: TokenBucketAdapter) -> Awaitable[Result[RateLimitResult, RateLimitError]]:
        return limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)

    result, failure = _ask(rules_path, ask)
    answer = _answer(endpoint, identifier, result, failure)
    if as_json:
        write_json(answer)
    elif answer.allowed:
        write_line(f"allowed: {_left(answer)}")
    elif answer.retry_after == float("inf"):
        write_line(f"denied: no wait would help, the bucket holds {answer.limit}")
    else:
        write_line(f"denied: retry after {_seconds(answer.retry_after)} s, {_left(answer)}")
    return DONE if answer.allowed else NOT_DONE


def remaining(endpoint: str, identifier: str, rules_path: Path | None, *, as_json: bool) -> int:
    """Print how many tokens are left.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is wrong.
    """

    def ask(limiter: TokenBucketAdapter) -> Awaitable[Result[RateLimitResult, RateLimitError]]:
        return limiter.peek(endpoint=endpoint, identifier=identifier)

    result, failure = _ask(rules_path, ask)
    answer = _answer(endpoint, identifier, result, failure)
    if as_json:
        write_json(answer)
    else:
        write_line(_left(answer))
    return DONE


def reset(endpoint: str, identifier: str, rules_path: Path | None, *, as_json: bool) -> int:
    """Fill the buckets of an identifier again.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is wrong.
    """

    def ask(limiter: TokenBucketAdapter) -> Awaitable[Result[None, RateLimitError]]:
        return limiter.reset(endpoint=endpoint, identifier=identifier)

    result, _ = _ask(rules_path, ask)
    error = result.error if isinstance(result, Failure) else None
    if error is not None:
        write_complaint(f"not reset: {error.message}")
    if as_json:
        reason = error.reason if error else None
        write_json(ResetAnswer(encodable(endpoint), encodable(identifier), error is None, reason))
    elif error is None:
        write_line("reset: the buckets are full")
    return DONE if error is None else NOT_DONE


def settings_with_rules(rules_path: Path | None) -> Settings:
    """Return the environment's settings, with a rules file for certain, which is not watched.

    Args:
        rules_path: What the command line names; None: what the environment does.

    Raises:
        InvalidInputError: If a setting is wrong, or neither names a rules file.
    """
    settings = msgspec.structs.replace(read_settings(), rules_watch="off")
    if rules_path is not None:
        settings = msgspec.structs.replace(settings, rules_path=str(rules_path))
    if not settings.rules_path:
        raise InvalidInputError("no rules file: give --rules FILE or set SLUICEGATE_RULES")
    return settings


def _ask(
    rules_path: Path | None, call: Callable[[TokenBucketAdapter], Awaitable[Result[T, RateLimitError]]]
) -> tuple[Result[T, RateLimitError], str | None]:
    """Return what a limiter, wired from the settings, answers, and why its storage did not decide."""
    settings = settings_with_rules(rules_path)

    async def run() -> tuple[Result[T, RateLimitError], str | None]:
        limiter = build_rate_limit(settings, logger=_Complaints())
        try:
            return await call(limiter), next(iter(limiter.failures), None)
        finally:
            await limiter.aclose()

    return asyncio.run(run())


def _answer(
    endpoint: str, identifier: str, result: Result[RateLimitResult, RateLimitError], failure: str | None
) -> Answer:
    match result:
        case Success(value=value):
            return Answer(
                endpoint=encodable(endpoint),
                identifier=encodable(identifier),
                allowed=value.allowed,
                retry_after=value.retry_after,
                remaining=value.remaining,
                limit=value.limit,
                reset_seconds=value.reset_seconds,
                storage_failure=failure,
            )
        case Failure(error=error):  # a check and a peek are always answered
            raise InvalidInputError(error.message)


def _left(answer: Answer) -> str:
    if answer.limit == 0:
        return f"no rule names the endpoint {answer.endpoint!r}"
    if answer.storage_failure:
        return f"the storage did not decide ({answer.storage_failure})"
    full = f", full again in {answer.reset_seconds:,} s" if answer.reset_seconds else ""
    return f"{answer.remaining:,} of {answer.limit:,} left{full}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
