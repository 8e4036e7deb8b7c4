"""The commands `check`, `remaining` and `reset`: one call of a limiter each. They return the exit status."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from sluicegate.application.check import NO_RULE
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_rate_limit
from sluicegate.domain.arguments import require_text
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.result import Failure, RateLimitResult, Result, Success
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.infrastructure.settings import Settings
from sluicegate.presentation.cli.declared_rules import DeclaredRules, Limiter, declared_by
from sluicegate.presentation.cli.environment import settings_of_environment
from sluicegate.presentation.cli.terminal import encodable, write_error, write_json, write_line

T = TypeVar("T")

DONE = 0
NOT_DONE = 1


class CheckOutput(msgspec.Struct, frozen=True):
    """What `check` and `remaining` print as JSON.

    Args:
        endpoint: The endpoint from the command line.
        identifier: The identifier from the command line.
        allowed: Whether the request is allowed.
        retry_after: Seconds until the same request would be allowed; 0 if it is allowed; null if no wait would help.
        remaining: Whole tokens left.
        limit: The bucket's capacity; 0 if no rule applies.
        reset_seconds: Whole seconds until the bucket is full again.
        storage_failure: Why the storage did not decide, in one word; null if it did.
    """

    endpoint: str
    identifier: str
    allowed: bool
    retry_after: float
    remaining: int
    limit: int
    reset_seconds: int
    storage_failure: str | None


class ResetOutput(msgspec.Struct, frozen=True):
    """What `reset` prints as JSON.

    Args:
        endpoint: The endpoint from the command line.
        identifier: The identifier from the command line.
        done: Whether the buckets were filled.
        reason: Why not, in one word; null if they were.
    """

    endpoint: str
    identifier: str
    done: bool
    reason: str | None


class _StorageErrorLogger:
    """A logger that shows the user storage errors, which the output of a command does not contain."""

    inline = True

    def debug(self, message: str, /, **context: object) -> None:
        """Ignore it."""

    def info(self, message: str, /, **context: object) -> None:
        """Ignore it."""

    def warning(self, message: str, /, **context: object) -> None:
        """Write one line if there was an error. Other warnings, such as a cost above the capacity, show in the output."""
        if "error" in context:
            write_error(f"{message} ({context['error']})")

    def error(self, message: str, /, **context: object) -> None:
        """Ignore it."""


def check(endpoint: str, identifier: str, cost: int, rules_path: Path | None, *, as_json: bool) -> int:
    """Take a request's tokens and print the result.

    Args:
        endpoint: The endpoint.
        identifier: The client.
        cost: Tokens to take; 0: the rules' own cost.
        rules_path: The rules file; None: that of the environment.
        as_json: Whether to print JSON.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is invalid.
    """

    def call(limiter: TokenBucketAdapter) -> Awaitable[Result[RateLimitResult, RateLimitError]]:
        return limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)

    result, failure = _call_limiter(rules_path, call)
    output = _to_output(endpoint, identifier, result, failure)
    if as_json:
        write_json(output)
    elif output.allowed:
        write_line(f"allowed: {_describe_remaining(output)}")
    elif output.retry_after == float("inf"):
        write_line(f"denied: no wait would help, the bucket holds {output.limit}")
    else:
        write_line(f"denied: retry after {_seconds(output.retry_after)} s, {_describe_remaining(output)}")
    return DONE if output.allowed else NOT_DONE


def remaining(endpoint: str, identifier: str, rules_path: Path | None, app: str, *, as_json: bool) -> int:
    """Print how many tokens are left.

    Args:
        endpoint: The endpoint.
        identifier: The client.
        rules_path: The rules file; None: that of the environment.
        app: The application whose code declares rules, as `module:attribute`; empty: the rules file alone.
        as_json: Whether to print JSON.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is invalid.
    """
    if app:
        declared = declared_by(app, rules_path)
        result, failure = asyncio.run(_peek_declared(declared, endpoint, identifier))
    else:

        def call(limiter: TokenBucketAdapter) -> Awaitable[Result[RateLimitResult, RateLimitError]]:
            return limiter.peek(endpoint=endpoint, identifier=identifier)

        result, failure = _call_limiter(rules_path, call)
    output = _to_output(endpoint, identifier, result, failure)
    if as_json:
        write_json(output)
    elif output.limit:
        write_line(_describe_remaining(output))
    if output.limit:
        return DONE
    write_error(_unknown(endpoint, app))
    return NOT_DONE


def reset(endpoint: str, identifier: str, rules_path: Path | None, app: str, *, as_json: bool) -> int:
    """Fill the buckets of an identifier.

    It is not done where the buckets are in the memory of each process, which another process cannot reach, or where no rule
    names the endpoint, which is a typing error rather than a wish. Arguments are those of `remaining`.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is invalid.
    """
    require_text("endpoint", endpoint)
    if app:
        result = asyncio.run(_reset_declared(declared_by(app, rules_path), endpoint, identifier, app))
    else:

        async def call(limiter: TokenBucketAdapter) -> Result[None, RateLimitError]:
            if limiter.rules.current().rules.find(endpoint) is None:
                return Failure(RateLimitError("no_rule", _unknown(endpoint, app), endpoint))
            return await _reset(limiter, endpoint, identifier)

        result, _ = _call_limiter(rules_path, call)
    error = result.error if isinstance(result, Failure) else None
    if error is not None:
        write_error(f"not reset: {error.message}")
    if as_json:
        reason = error.reason if error else None
        write_json(ResetOutput(encodable(endpoint), encodable(identifier), error is None, reason))
    elif error is None:
        write_line("reset: the buckets are full")
    return DONE if error is None else NOT_DONE


def _unknown(endpoint: str, app: str) -> str:
    where = "" if app else "; --app MODULE:APP finds those that code declares"
    return f"no rule names the endpoint {encodable(endpoint)!r}{where}"


async def _reset(limiter: Limiter, endpoint: str, identifier: str) -> Result[None, RateLimitError]:
    if isinstance(limiter.storage, MemoryStorage):
        return Failure(
            RateLimitError(
                "not_shared",
                "the buckets are in memory://, where each process has buckets of its own: this command cannot reach those of"
                " another process; call `reset` of its limiter there",
                endpoint,
            )
        )
    done = limiter.reset(endpoint=endpoint, identifier=identifier)
    return await done if isinstance(done, Awaitable) else done


async def _reset_declared(
    declared: DeclaredRules, endpoint: str, identifier: str, app: str
) -> Result[None, RateLimitError]:
    """Fill the buckets of all limiters that name an endpoint; return the first failure, if there is one."""
    limiters = declared.naming(endpoint)
    if not limiters:
        return Failure(RateLimitError("no_rule", _unknown(endpoint, app), endpoint))
    results = [await _reset(limiter, endpoint, identifier) for limiter in limiters]
    return next((one for one in results if isinstance(one, Failure)), Success(None))


async def _peek_declared(
    declared: DeclaredRules, endpoint: str, identifier: str
) -> tuple[Result[RateLimitResult, RateLimitError], str | None]:
    """Return what the limiters that name an endpoint would answer: of several, what leaves the least."""
    found: list[RateLimitResult] = []
    failure: str | None = None
    for limiter in declared.naming(endpoint):
        asked = limiter.peek(endpoint=endpoint, identifier=identifier)
        answer = await asked if isinstance(asked, Awaitable) else asked
        if isinstance(answer, Success):
            found.append(answer.value)
        failure = failure or next(iter(limiter.failures), None)
    least = min(found, key=lambda one: (one.allowed, one.remaining), default=NO_RULE)
    return Success(least), failure


def settings_with_rules(rules_path: Path | None) -> Settings:
    """Return the settings of the environment, with a rules file, which is not watched.

    Args:
        rules_path: The rules file; None: that of the environment.

    Raises:
        InvalidInputError: If a setting is invalid, or there is no rules file.
    """
    settings = msgspec.structs.replace(settings_of_environment(), rules_watch="off")
    if rules_path is not None:
        settings = msgspec.structs.replace(settings, rules_path=str(rules_path))
    if not settings.rules_path:
        raise InvalidInputError("no rules file: give --rules FILE or set SLUICEGATE_RULES")
    return settings


def _call_limiter(
    rules_path: Path | None, call: Callable[[TokenBucketAdapter], Awaitable[Result[T, RateLimitError]]]
) -> tuple[Result[T, RateLimitError], str | None]:
    """Call a limiter built from the settings. Return its result, and why its storage did not decide (None: it did)."""
    settings = settings_with_rules(rules_path)

    async def run() -> tuple[Result[T, RateLimitError], str | None]:
        limiter = build_rate_limit(settings, logger=_StorageErrorLogger())
        try:
            return await call(limiter), next(iter(limiter.failures), None)
        finally:
            await limiter.aclose()

    return asyncio.run(run())


def _to_output(
    endpoint: str, identifier: str, result: Result[RateLimitResult, RateLimitError], failure: str | None
) -> CheckOutput:
    match result:
        case Success(value=value):
            return CheckOutput(
                endpoint=encodable(endpoint),
                identifier=encodable(identifier),
                allowed=value.allowed,
                retry_after=value.retry_after,
                remaining=value.remaining,
                limit=value.limit,
                reset_seconds=value.reset_seconds,
                storage_failure=failure,
            )
        case Failure(error=error):  # does not happen: checks and peeks always succeed
            raise InvalidInputError(error.message)


def _describe_remaining(output: CheckOutput) -> str:
    if output.limit == 0:
        return f"no rule names the endpoint {output.endpoint!r}"
    if output.storage_failure:
        return f"the storage did not decide ({output.storage_failure})"
    full = f", full again in {output.reset_seconds:,} s" if output.reset_seconds else ""
    return f"{output.remaining:,} of {output.limit:,} left{full}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
