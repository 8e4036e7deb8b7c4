"""Compare two rules files on the same requests."""

from collections import Counter

import msgspec

from sluicegate.presentation.cli.replay.engine import Replay, client_of
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest

_MAX_CLIENTS = 1_000_000


class ComparedClient(msgspec.Struct, frozen=True):
    """A client that one file denies more often than the other.

    Args:
        client: The client.
        denied: How many of its requests the rules deny.
        denied_against: How many the other rules deny.
    """

    client: str
    denied: int
    denied_against: int


class Comparison:
    """Ask two replays about each request.

    Args:
        replay: The rules.
        against: The other rules.
    """

    def __init__(self, replay: Replay, against: Replay) -> None:
        self._replay = replay
        self._against = against
        self.against = against
        """The replay of the other rules."""
        self.only_here = 0
        """How many requests only the rules deny."""
        self.only_against = 0
        """How many requests only the other rules deny."""
        self.both = 0
        """How many requests both deny."""
        self._denied: Counter[str] = Counter()
        self._denied_against: Counter[str] = Counter()

    def check(self, request: LoggedRequest) -> None:
        """Check a request by both."""
        here = self._replay.check(request) is False
        there = self._against.check(request) is False
        if not here and not there:
            return
        who = client_of(request)
        if len(self._denied) + len(self._denied_against) >= _MAX_CLIENTS and who not in self._denied:
            who = "(other clients)"
        if here:
            self._denied[who] += 1
        if there:
            self._denied_against[who] += 1
        self.both += here and there
        self.only_here += here and not there
        self.only_against += there and not here

    def clients(self) -> list[ComparedClient]:
        """Return the clients whose denials differ, the greatest difference first."""
        found = [
            ComparedClient(who, self._denied[who], self._denied_against[who])
            for who in self._denied.keys() | self._denied_against.keys()
            if self._denied[who] != self._denied_against[who]
        ]
        return sorted(found, key=lambda one: (-abs(one.denied - one.denied_against), one.client))

    @property
    def clients_only_here(self) -> int:
        """How many clients only the rules deny."""
        return len(self._denied.keys() - self._denied_against.keys())

    @property
    def clients_only_against(self) -> int:
        """How many clients only the other rules deny."""
        return len(self._denied_against.keys() - self._denied.keys())
