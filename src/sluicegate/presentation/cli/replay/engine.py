"""Replaying an access log: each of its requests becomes one real check, at the log's own time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import cast

import msgspec

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.compiled_rules import CompiledRules, Rules
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import Success
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.presentation.cli.replay.access_log import LoggedRequest, MalformedLine, parse_line
from sluicegate.presentation.cli.replay.log_clock import LogClock
from sluicegate.presentation.cli.replay.notes import CheckNotes, WarningNotes
from sluicegate.presentation.web.client_address import ClientAddresses

DEFAULT_REORDER_LINES = 100_000
"""How many requests are held back to put a log in order of time; about 30 MB where all differ."""

MAX_REORDER_LINES = 10_000_000

SHOWN_MALFORMED_LINES = 5

MAX_TALLIES = 1_000_000
"""How many pairs of rule and client are counted one by one; about 500 MB. Later ones are counted under `OTHER_CLIENTS`."""

OTHER_CLIENTS = "(other clients)"
ALLOW_LIST = "(allow list)"
DENY_LIST = "(deny list)"
"""What requests are counted under that a list decided, whatever their endpoint."""

_MAX_UNRULED = 10_000  # endpoints without a rule that are counted one by one


class Tally(msgspec.Struct, gc=False):
    """What became of some requests.

    Args:
        allowed: How many passed.
        denied: How many did not.
        first_denied_s: When the first was denied, in seconds since 1970; None if none was.
        longest_wait_s: The longest `retry_after` that one was given; infinite on a deny list without an end.
        shadow_denied: How many a rule in shadow mode would have denied.
    """

    allowed: int = 0
    denied: int = 0
    first_denied_s: int | None = None
    longest_wait_s: float = 0.0
    shadow_denied: int = 0

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.allowed + self.denied

    @property
    def denied_share(self) -> float:
        """The part that was denied, 0 to 1."""
        return self.denied / self.requests if self.requests else 0.0

    def add(self, other: "Tally") -> None:
        """Count what another tally has counted."""
        self.allowed += other.allowed
        self.denied += other.denied
        self.shadow_denied += other.shadow_denied
        self.longest_wait_s = max(self.longest_wait_s, other.longest_wait_s)
        firsts = [first for first in (self.first_denied_s, other.first_denied_s) if first is not None]
        self.first_denied_s = min(firsts, default=None)


class MalformedSample(msgspec.Struct, frozen=True):
    """A line that could not be replayed.

    Args:
        line: Its number, from 1.
        reason: What is wrong with it.
        text: Its beginning.
    """

    line: int
    reason: str
    text: str


class Replay:
    """Send requests through a limiter of their own and count the answers.

    Nothing outside this object is asked or changed: the buckets are in memory, whatever storage the settings name. A client is
    what it is for `RateLimitMiddleware` by default: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        rules: Endpoints and their rules.
        reorder_lines: How many requests are held back to put the log in order of time, 0 to 10,000,000. A request that
            comes later still is late: it is checked at the time that the clock has reached, and counted in `late`.
        max_tallies: How many pairs of rule and client are counted one by one, at least 1; further clients are counted together.

    Raises:
        InvalidInputError: If a rule or `reorder_lines` is wrong.
    """

    def __init__(
        self, rules: Rules, *, reorder_lines: int = DEFAULT_REORDER_LINES, max_tallies: int = MAX_TALLIES
    ) -> None:
        if not 0 <= reorder_lines <= MAX_REORDER_LINES:
            raise InvalidInputError(f"reorder={reorder_lines}: expected 0 to {MAX_REORDER_LINES}")
        self._max_tallies = max_tallies
        self._clock = LogClock()
        self._storage = MemoryStorage(clock=self._clock)
        self._notes = CheckNotes()
        self._warnings = WarningNotes()
        self._limiter = SyncTokenBucketAdapter(
            storage=self._storage,
            rules=rules,
            event_bus=self._notes,
            logger=self._warnings,
            clock=self._clock,
            wall_clock=self._clock.utc_now,
        )
        self._rule_set = CompiledRules(rules, KeyFormat())
        self._client_of = ClientAddresses().client
        self._reorder_lines = reorder_lines
        self.lines = 0
        """How many lines there were, blank ones aside."""
        self.malformed = 0
        """How many of them could not be replayed."""
        self.malformed_samples: list[MalformedSample] = []
        """The first few of those."""
        self.late = 0
        """How many were further out of order than could be put right."""
        self.first_s: int | None = None
        """The time of the first request, in seconds since 1970."""
        self.last_s: int | None = None
        """The time of the last."""
        self.unruled: Counter[str] = Counter()
        """Endpoints that no rule names, and their requests."""
        self.unruled_requests = 0
        """How many requests no rule counted."""
        self.tallies: dict[tuple[str, str], Tally] = {}
        """What became of the requests of a client at an endpoint, as its rule names it, or with a list."""

    @property
    def rule_set(self) -> CompiledRules:
        """The rules, as they are looked up."""
        return self._rule_set

    @property
    def warnings(self) -> list[str]:
        """What the limiter warned of, each warning once."""
        return self._warnings.messages

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were forgotten for want of room before they were full: each let its client start anew."""
        return self._storage.evicted_unfull

    def run(self, lines: Iterable[bytes]) -> None:
        """Replay lines to their end."""
        for line_number, request in in_order(self._requests(lines), self._reorder_lines):
            self._check(line_number, request)

    def _requests(self, lines: Iterable[bytes]) -> Iterator[tuple[int, LoggedRequest]]:
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            self.lines += 1
            read = parse_line(line)
            if isinstance(read, MalformedLine):
                self._malformed(line_number, read.reason, line.decode("utf-8", "backslashreplace").strip())
            else:
                yield line_number, read

    def _check(self, line_number: int, request: LoggedRequest) -> None:
        time_s, endpoint = request.time_s, request.endpoint
        client = self._client_of(request.address) or request.address
        if not self._clock.advance_to(time_s * 1_000_000):
            self.late += 1
        self._notes.forget()
        try:
            answer = self._limiter.is_allowed(endpoint=endpoint, identifier=client)
        except InvalidInputError as error:
            self._malformed(line_number, str(error), f"{client} {endpoint}")
            return
        self.first_s = time_s if self.first_s is None else min(time_s, self.first_s)
        self.last_s = time_s if self.last_s is None else max(time_s, self.last_s)
        decided_by = self._decided_by(endpoint)
        if decided_by is None:
            self.unruled_requests += 1
            if len(self.unruled) < _MAX_UNRULED or endpoint in self.unruled:
                self.unruled[endpoint] += 1
            return
        tally = self.tallies.get((decided_by, client))
        if tally is None:
            counted_as = client if len(self.tallies) < self._max_tallies else OTHER_CLIENTS
            tally = self.tallies.setdefault((decided_by, counted_as), Tally())
        tally.shadow_denied += self._notes.shadow_denials > 0
        result = cast("Success[RateLimitResult]", answer).value
        if result.allowed:
            tally.allowed += 1
        else:
            tally.denied += 1
            tally.longest_wait_s = max(tally.longest_wait_s, result.retry_after)
            if tally.first_denied_s is None:
                tally.first_denied_s = time_s

    def _decided_by(self, endpoint: str) -> str | None:
        """Return what the latest check is counted under: a list, or the endpoint as its rule names it; None if nothing."""
        listed = self._notes.listed
        if listed is not None:
            return ALLOW_LIST if listed.allowed else DENY_LIST
        endpoint_rules = self._rule_set.find(endpoint)
        return None if endpoint_rules is None else endpoint_rules.endpoint

    def _malformed(self, line_number: int, reason: str, text: str) -> None:
        self.malformed += 1
        if len(self.malformed_samples) < SHOWN_MALFORMED_LINES:
            self.malformed_samples.append(MalformedSample(line_number, reason, text[:200]))


def in_order(requests: Iterable[tuple[int, LoggedRequest]], reorder_lines: int) -> Iterator[tuple[int, LoggedRequest]]:
    """Put requests in order of time, those of one second in the order in which they stand.

    Servers write a line when a request ends, with the time at which it began: a log is out of order by as much as its longest
    request, and far more where several logs were put together.

    Args:
        requests: Line numbers, which rise, and requests.
        reorder_lines: How many requests are held back at most. What comes later than that is passed on out of order.
    """
    held: list[tuple[int, int, LoggedRequest]] = []
    for line_number, request in requests:
        heappush(held, (request.time_s, line_number, request))
        if len(held) > reorder_lines:
            yield heappop(held)[1:]
    while held:
        yield heappop(held)[1:]
