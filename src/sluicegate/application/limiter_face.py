"""The way of a check through a limiter: async and sync side by side, which differ only in how they wait.

These classes are compiled. `TokenBucketAdapter` and `SyncTokenBucketAdapter`, which users see, mock and subclass, add all that is
not on the way of a check.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from mypy_extensions import mypyc_attr

from sluicegate.application.check import Check, Decision, decision_of
from sluicegate.application.checker import Checker
from sluicegate.application.rules.lists_and_overrides import find_listed
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Cost, Endpoint, Identifier, require_identifier
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.result import RateLimitResult, Result, Success

_success: Final = Success  # compiled code finds it without a look-up in the module's names


@mypyc_attr(allow_interpreted_subclasses=True)
class LimiterFace:
    """What both kinds of limiter do alike.

    Args:
        checker: Prepares checks, decides those that need no waiting, and finishes them.
    """

    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    def __copy__(self) -> "LimiterFace":
        """Return the same limiter: a copy shares its storage and its rules."""
        return self

    def __deepcopy__(self, _: object) -> "LimiterFace":
        """Return the same limiter, as `__copy__` does: frameworks copy routes with all that hangs on them."""
        return self

    @property
    def events_dropped(self) -> int:
        """How many events and log lines were lost so far, because an observer raised or could not keep up."""
        return self._checker.notifier.dropped

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that the rules count, all together."""
        return self._checker.current().rules.scopes

    @property
    def shadow_denials(self) -> dict[str, int]:
        """How many requests each rule in shadow mode would have denied, by its name."""
        return dict(self._checker.shadow_rules.denials)

    @property
    def failures(self) -> dict[str, int]:
        """How many checks the storage could not decide, by reason."""
        return dict(self._checker.failure_policy.failures)

    def current_rules(self) -> RulesSnapshot:
        """Return the rules in force, for all that one request asks of them: they may be replaced between two questions."""
        return self._checker.current()

    def ask_lists(self, *, endpoint: str, identifier: Identifier, rules: RulesSnapshot) -> Decision | None:
        """Return what the allow and deny lists say of a client; None if they do not have it. No rule is asked.

        Args:
            endpoint: As in `is_allowed`.
            identifier: As in `is_allowed`.
            rules: The rules that named the endpoint; see `current_rules`.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        compiled = rules.rules
        if not compiled.lists:
            return None
        listed = find_listed(
            compiled.lists, compiled.find(endpoint), endpoint, require_identifier(identifier), self._checker.utc_now
        )
        if listed is None:
            return None
        self._checker.announcer.listed(listed, 0)
        return Decision(listed.result)


@mypyc_attr(allow_interpreted_subclasses=True)
class AsyncFace(LimiterFace):
    """Decide checks for code with an event loop.

    Args:
        checker: Prepares checks, decides those that need no waiting, and finishes them.
        take: Asks the storage, and keeps the deadline.
    """

    def __init__(self, checker: Checker, take: Callable[[Sequence[BucketRequest]], Awaitable[Verdict]]) -> None:
        super().__init__(checker)
        self._take = take

    async def is_allowed(
        self, *, endpoint: Endpoint, identifier: Identifier, cost: Cost = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Take tokens if all of the endpoint's rules have them; if one does not, none is charged.

        Args:
            endpoint: Method and path template, such as `POST /api/v1/sessions`.
            identifier: The client, 1 to 1024 bytes; a mapping from scope to identifier where the rules' scopes differ.
            cost: Tokens to take; 0: the rule's own cost.

        Returns:
            `Success` always: while the storage fails, the answer of the failure policy.

        Raises:
            InvalidInputError: A `ValueError`, if an argument is wrong; nothing has changed then.
        """
        check = self._checker.check_nowait(endpoint, identifier, cost)
        if check.waits:
            await _wait(check, self._take)
            self._checker.finish(check)
        result = check.result
        assert result is not None  # noqa: S101 - the check is done
        return _success(result)

    async def check(
        self,
        *,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost = 0,
        also: tuple[str, ...] = (),
        rules: RulesSnapshot | None = None,
    ) -> Decision:
        """Do what `is_allowed` does, and tell which rules were asked and whether the storage answered.

        Args:
            endpoint: As in `is_allowed`.
            identifier: As in `is_allowed`.
            cost: As in `is_allowed`.
            also: Other endpoints, as the rules name them, whose rules must have the tokens as well. A bucket that several of
                them share is charged once.
            rules: The rules that named the endpoints; see `current_rules`. None: those in force.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
        """
        check = self._checker.check_nowait(endpoint, identifier, cost, also, rules)
        if check.waits:
            await _wait(check, self._take)
            self._checker.finish(check)
        return decision_of(check)


@mypyc_attr(allow_interpreted_subclasses=True)
class SyncFace(LimiterFace):
    """Decide checks for code without an event loop.

    Args:
        checker: Prepares checks, decides those that need no waiting, and finishes them.
        take: Asks the storage, which keeps the deadline.
    """

    def __init__(self, checker: Checker, take: Callable[[Sequence[BucketRequest]], Verdict]) -> None:
        super().__init__(checker)
        self._take = take

    def is_allowed(
        self, *, endpoint: Endpoint, identifier: Identifier, cost: Cost = 0
    ) -> Result[RateLimitResult, RateLimitError]:
        """Take tokens if all of the endpoint's rules have them; if one does not, none is charged.

        Args:
            endpoint: Method and path template, such as `POST /api/v1/sessions`.
            identifier: The client, 1 to 1024 bytes; a mapping from scope to identifier where the rules' scopes differ.
            cost: Tokens to take; 0: the rule's own cost.

        Returns:
            `Success` always: while the storage fails, the answer of the failure policy.

        Raises:
            InvalidInputError: A `ValueError`, if an argument is wrong; nothing has changed then.
        """
        check = self._checker.check_nowait(endpoint, identifier, cost)
        if check.waits:
            _block(check, self._take)
            self._checker.finish(check)
        result = check.result
        assert result is not None  # noqa: S101 - the check is done
        return _success(result)

    def check(
        self,
        *,
        endpoint: Endpoint,
        identifier: Identifier,
        cost: Cost = 0,
        also: tuple[str, ...] = (),
        rules: RulesSnapshot | None = None,
    ) -> Decision:
        """Do what `is_allowed` does, and tell which rules were asked and whether the storage answered.

        Args:
            endpoint: As in `is_allowed`.
            identifier: As in `is_allowed`.
            cost: As in `is_allowed`.
            also: Other endpoints, as the rules name them, whose rules must have the tokens as well. A bucket that several of
                them share is charged once.
            rules: The rules that named the endpoints; see `current_rules`. None: those in force.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
        """
        check = self._checker.check_nowait(endpoint, identifier, cost, also, rules)
        if check.waits:
            _block(check, self._take)
            self._checker.finish(check)
        return decision_of(check)


async def _wait(check: Check, take: Callable[[Sequence[BucketRequest]], Awaitable[Verdict]]) -> None:
    """Ask the storage what it could not decide at once: for the check, and for the rules in shadow mode beside it."""
    if not check.shadows:
        await decide(check, take)
    else:  # started together: a storage that sends its commands in batches carries them in one round trip
        await asyncio.gather(*[decide(one, take) for one in (check, *check.shadows) if one.is_open])


async def decide(check: Check, take: Callable[[Sequence[BucketRequest]], Awaitable[Verdict]]) -> None:
    """Ask the storage for one check, and keep what it raises with the check."""
    try:
        check.conclude(await take(check.requests))
    except Exception as error:  # noqa: BLE001 - `Checker.finish` makes it an answer
        check.error = error


def _block(check: Check, take: Callable[[Sequence[BucketRequest]], Verdict]) -> None:
    for one in (check, *check.shadows):
        if check.error is not None and one is not check:
            one.error = check.error  # not asked, or a server that hangs would take a deadline for each of them
        elif one.is_open:
            try:
                one.conclude(take(one.requests))
            except Exception as error:  # noqa: BLE001 - `Checker.finish` makes it an answer
                one.error = error
