"""The other processes of a service: what an operator changes in one is changed in all.

Each process listens on a Unix socket in a directory that only this user may enter. Buckets are in the storage that they share;
kill switches, overrides and the rules are in the memory of each.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from sluicegate.application.rules.live_rules import LiveRules
from sluicegate.domain.errors import InvalidInputError, StorageError
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book_entries import Override
from sluicegate.presentation.service.admin.bodies import State
from sluicegate.presentation.service.admin.client import AdminClient
from sluicegate.presentation.service.http.web import Call
from sluicegate.runtime.system_clock import utc_now

_TIMEOUT_S: Final = 2.0
_OK: Final = 200

_logger = logging.getLogger("sluicegate")


class Peers:
    """The processes that serve beside this one.

    Args:
        directory: Where their sockets are.
        index: The number of this one.
        is_late: Whether the others may serve already, and operators have changed something.
    """

    def __init__(self, directory: str, index: int, *, is_late: bool) -> None:
        self._is_late = is_late
        self._directory = Path(directory)
        self.own_socket = str(self._directory / f"{index}.sock")
        """Where this one listens."""

    async def pass_on(self, call: Call) -> None:
        """Make a call to all others as well. One that does not answer is starting: it asks for what changed by itself."""
        for path in self._others():
            try:
                await asyncio.to_thread(_client(path).call, call.method, call.path, call.body)
            except StorageError as error:
                _logger.warning("A worker was not told of an administrative call: %s", error)

    @property
    def own_name(self) -> str:
        """The name of this one among them."""
        return Path(self.own_socket).stem

    async def ask(self, path: str) -> dict[str, object]:
        """Return what the others answer to a path, by their names. Those that do not answer are left out."""

        async def ask_one(socket_path: str) -> tuple[str, object]:
            try:
                status, answer = await asyncio.to_thread(_client(socket_path).call, "GET", path)
            except StorageError as error:
                _logger.warning("A worker did not answer: %s", error)
                return "", None
            return Path(socket_path).stem if status == _OK else "", answer

        answers = await asyncio.gather(*[ask_one(socket_path) for socket_path in self._others()])
        return {name: answer for name, answer in answers if name}

    async def adopt(self, rules: LiveRules) -> None:
        """Take over what operators changed before this process began."""
        if not self._is_late:  # all begin together, and none could answer
            return
        for path in self._others():
            try:
                _, answer = await asyncio.to_thread(_client(path).call, "GET", "/v1/state")
            except StorageError:
                continue
            _adopt(rules, msgspec.convert(answer, State))
            return

    def _others(self) -> list[str]:
        return [str(path) for path in sorted(self._directory.glob("*.sock")) if str(path) != self.own_socket]


def _client(path: str) -> AdminClient:
    return AdminClient(f"unix:{path}", timeout_s=_TIMEOUT_S)


def _adopt(rules: LiveRules, state: State) -> None:
    """Put what another process told into force; what these rules do not know is left out."""
    for switch in state.thrown:
        for policy in switch.policies or ("",):
            with suppress(InvalidInputError):
                rules.switch_off(policy, for_seconds=_seconds_until(switch.until), reason=switch.reason)
    for one in state.overrides:
        with suppress(InvalidInputError):
            rule = RateLimitRule(
                one.max_tokens, one.refill_rate, rules.named_rule(one.policy).scope, enabled=one.enabled
            )
            rules.override(
                Override(policy=one.policy, identifier=one.identifier, rule=rule, until=one.until, reason=one.reason)
            )


def _seconds_until(until: datetime | None) -> float | None:
    return None if until is None else (until - utc_now()).total_seconds()
