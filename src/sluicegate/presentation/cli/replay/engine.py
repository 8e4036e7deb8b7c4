"""Replay an access log: each of its requests becomes one real check, at the log's own time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import cast

import msgspec

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.compiled_rules import CompiledRules, Rules
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import RateLimitResult, Success
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.presentation.cli.replay.access_log import LoggedRequest, MalformedLine, parse_line
from sluicegate.presentation.cli.replay.log_clock import LogClock
from sluicegate.presentation.cli.replay.observers import CheckObserver, WarningCollector
from sluicegate.presentation.cli.replay.tally import Tally
from sluicegate.presentation.cli.replay.time_order import DEFAULT_REORDER_LINES, MAX_REORDER_LINES, in_order
from sluicegate.presentation.web.client_address import ClientAddresses

SHOWN_MALFORMED_LINES = 5

MAX_TALLIES = 1_000_000
"""How many pairs of rule and client are counted separately; about 500 MB. Later ones are counted as `OTHER_CLIENTS`."""

OTHER_CLIENTS = "(other clients)"
ALLOW_LIST = "(allow list)"
DENY_LIST = "(deny list)"
"""The endpoints that requests decided by a list are counted under."""

_MAX_WITHOUT_RULE = 10_000  # endpoints without a rule that are counted separately


class MalformedSample(msgspec.Struct, frozen=True):
    """A line that could not be replayed.

    Args:
        line: Its number, from 1.
        reason: What is wrong with it.
        text: The line's first characters.
    """

    line: int
    reason: str
    text: str


class Replay:
    """Check each request of a log with a limiter of its own, and count the answers.

    The buckets are in memory, whatever storage the settings name. A client is what `RateLimitMiddleware` counts by default:
    an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        rules: Endpoints and their rules.
        reorder_lines: How many requests are held back to put the log in order of time, 0 to 10,000,000. A request that
            comes later than that is checked at the time that the clock has reached, and counted in `late`.
        max_tallies: How many pairs of rule and client are counted separately. Later ones are counted as `OTHER_CLIENTS`.

    Raises:
        InvalidInputError: If a rule or `reorder_lines` is invalid.
    """

    def __init__(
        self, rules: Rules, *, reorder_lines: int = DEFAULT_REORDER_LINES, max_tallies: int = MAX_TALLIES
    ) -> None:
        if not 0 <= reorder_lines <= MAX_REORDER_LINES:
            raise InvalidInputError(f"reorder={reorder_lines}: expected 0 to {MAX_REORDER_LINES}")
        self._clock = LogClock()
        self._storage = MemoryStorage(clock=self._clock)
        self._observer = CheckObserver()
        self._warnings = WarningCollector()
        self._limiter = SyncTokenBucketAdapter(
            storage=self._storage,
            rules=rules,
            event_bus=self._observer,
            logger=self._warnings,
            clock=self._clock,
            wall_clock=self._clock.utc_now,
        )
        self._rule_set = CompiledRules(rules, KeyFormat())
        self._client_of = ClientAddresses().client
        self._reorder_lines = reorder_lines
        self._max_tallies = max_tallies
        self.lines = 0
        """How many lines were not blank."""
        self.malformed = 0
        """How many lines could not be replayed."""
        self.malformed_samples: list[MalformedSample] = []
        """The first few lines that could not be replayed."""
        self.late = 0
        """How many requests were too far out of order to be put in order."""
        self.first_s: int | None = None
        """The time of the first request, in seconds since 1970."""
        self.last_s: int | None = None
        """The time of the last request, in seconds since 1970."""
        self.without_rule: Counter[str] = Counter()
        """The endpoints without a rule, and how many requests each had."""
        self.requests_without_rule = 0
        """How many requests had no rule and no list entry."""
        self.tallies: dict[tuple[str, str], Tally] = {}
        """The outcome by endpoint (as its rule names it, or `ALLOW_LIST`, `DENY_LIST`) and client."""

    @property
    def rule_set(self) -> CompiledRules:
        """The compiled rules."""
        return self._rule_set

    @property
    def warnings(self) -> list[str]:
        """The limiter's warnings, each once."""
        return self._warnings.messages

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were evicted before they were full: their clients started again with a full one."""
        return self._storage.evicted_unfull

    def run(self, lines: Iterable[bytes]) -> None:
        """Replay all lines."""
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
        self._observer.clear()
        try:
            answer = self._limiter.is_allowed(endpoint=endpoint, identifier=client)
        except InvalidInputError as error:
            self._malformed(line_number, str(error), f"{client} {endpoint}")
            return
        self.first_s = time_s if self.first_s is None else min(time_s, self.first_s)
        self.last_s = time_s if self.last_s is None else max(time_s, self.last_s)
        decided_by = self._decided_by(endpoint)
        if decided_by is None:
            self.requests_without_rule += 1
            if len(self.without_rule) < _MAX_WITHOUT_RULE or endpoint in self.without_rule:
                self.without_rule[endpoint] += 1
            return
        tally = self.tallies.get((decided_by, client))
        if tally is None:
            counted_as = client if len(self.tallies) < self._max_tallies else OTHER_CLIENTS
            tally = self.tallies.setdefault((decided_by, counted_as), Tally())
        tally.shadow_denied += self._observer.shadow_denials > 0
        result = cast("Success[RateLimitResult]", answer).value
        if result.allowed:
            tally.allowed += 1
        else:
            tally.denied += 1
            tally.longest_wait_s = max(tally.longest_wait_s, result.retry_after)
            if tally.first_denied_s is None:
                tally.first_denied_s = time_s

    def _decided_by(self, endpoint: str) -> str | None:
        """Return what to count the latest check under: a list, or the endpoint as its rule names it; None if no rule applied."""
        listed = self._observer.listed
        if listed is not None:
            return ALLOW_LIST if listed.allowed else DENY_LIST
        endpoint_rules = self._rule_set.find(endpoint)
        return None if endpoint_rules is None else endpoint_rules.endpoint

    def _malformed(self, line_number: int, reason: str, text: str) -> None:
        self.malformed += 1
        if len(self.malformed_samples) < SHOWN_MALFORMED_LINES:
            self.malformed_samples.append(MalformedSample(line_number, reason, text[:200]))
