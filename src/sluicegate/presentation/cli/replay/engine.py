"""Replay requests: each of them becomes one real check, at the log's own time."""

from collections import Counter
from collections.abc import Iterable

from sluicegate.application.check import Decision
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.compiled_rules import CompiledRules, Rules
from sluicegate.infrastructure.memory_storage import MemoryStorage
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest
from sluicegate.presentation.cli.replay.log_clock import LogClock
from sluicegate.presentation.cli.replay.observers import CheckObserver, WarningCollector
from sluicegate.presentation.cli.replay.offenders import Offenders
from sluicegate.presentation.cli.replay.rule_needs import RuleNeeds
from sluicegate.presentation.cli.replay.tally import Tally
from sluicegate.presentation.cli.replay.timeline import Timeline
from sluicegate.presentation.web.identity.identifiers import identifier_text, identify

MAX_TALLIES = 1_000_000
"""How many pairs of rule and client are counted separately; later ones are counted as `OTHER_CLIENTS`."""

OTHER_CLIENTS = "(other clients)"
ALLOW_LIST = "(allow list)"
DENY_LIST = "(deny list)"
"""The endpoints that requests decided by a list are counted under."""

ALLOWED, DENIED = 0, 1
"""What `Replay.timeline` counts."""

_MAX_WITHOUT_RULE = 10_000  # endpoints without a rule that are counted separately
_LONGEST_SHOWN_PATH = 200  # characters
_CERTAINLY_SHORT = 256  # characters of an identifier that is certainly within the limiter's 1,024 bytes


class Replay:
    """Check requests with a limiter of its own, and count the answers.

    The buckets are in memory, whatever storage the settings name. A request's endpoint is found as the middleware finds it.

    Args:
        rules: Endpoints and their rules.
        scopes: The scopes that the log has identifiers for, in the order of `LoggedRequest.names`. In all others, and where
            a line names nobody, the address counts. Empty: the address counts in every scope.
        measure_needs: Whether to measure what burst each client needed at each rule.
        max_tallies: How many pairs of rule and client are counted separately. Later ones are counted as `OTHER_CLIENTS`.

    Raises:
        InvalidInputError: If a rule is invalid.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        scopes: tuple[str, ...] = (),
        measure_needs: bool = False,
        max_tallies: int = MAX_TALLIES,
    ) -> None:
        self.rule_set = CompiledRules(rules, KeyFormat())
        """The compiled rules."""
        self._clock = LogClock()
        self._storage = MemoryStorage(clock=self._clock)
        self._observer = CheckObserver()
        self._warnings = WarningCollector()
        tells_more = bool(self.rule_set.lists) or any(one.shadows for one in self.rule_set.all_rules)
        self._limiter = SyncTokenBucketAdapter(
            storage=self._storage,
            rules=rules,
            event_bus=self._observer if tells_more else None,  # a fifth of a check's time
            logger=self._warnings,
            clock=self._clock,
            wall_clock=self._clock.utc_now,
        )
        self._scopes = scopes
        self._max_tallies = max_tallies
        self.needs = RuleNeeds(self.rule_set) if measure_needs else None
        """What burst each client needed at each rule; None: that is not measured."""
        self.late = 0
        """How many requests were too far out of order to be put in order."""
        self.first_us: int | None = None
        """The time of the first request, in microseconds since 1970."""
        self.last_us: int | None = None
        """The time of the last request, in microseconds since 1970."""
        self.without_rule: Counter[tuple[str, str]] = Counter()
        """The methods and paths without a rule, and how many requests each had: the first 10,000."""
        self.requests_without_rule = 0
        """How many requests had no rule and no list entry."""
        self.tallies: dict[tuple[str, str], Tally] = {}
        """The outcome by endpoint (as its rule names it, or `ALLOW_LIST`, `DENY_LIST`) and client."""
        self.denied_by: dict[tuple[str, str], Tally] = {}
        """The denials by endpoint and the policy that denied; those in shadow are its `shadow_denied`."""
        self.timeline = Timeline(kinds=2)
        """The requests that a rule or a list decided, `ALLOWED` and `DENIED`, over time."""
        self.denials_of: dict[str, Timeline] = {}
        """The denials of each endpoint over time."""
        self.offenders = Offenders()
        """The denials of the most denied clients over time."""

    @property
    def warnings(self) -> list[str]:
        """The limiter's warnings, each once."""
        return self._warnings.messages

    @property
    def evicted_unfull(self) -> int:
        """How many buckets were evicted before they were full: their clients started again with a full one."""
        return self._storage.evicted_unfull

    def run(self, requests: Iterable[LoggedRequest]) -> None:
        """Check requests one after the other."""
        for request in requests:
            self.check(request)

    def check(self, request: LoggedRequest) -> bool | None:
        """Check a request.

        Returns:
            Whether it was allowed; None if no rule and no list was for it.
        """
        time_us = request.time_us
        self._note_time(time_us)
        endpoint = self._limiter.current_rules().match(request.method, request.path)
        if endpoint is None:
            self._count_without_rule(request)
            return None
        who = client_of(request)
        self._observer.clear()
        try:
            decision = self._limiter.check(
                endpoint=endpoint, identifier=self._identifier(endpoint, request) if self._scopes else who
            )
        except InvalidInputError:  # a rule asks for an identifier that the log does not have
            self._count_without_rule(request)
            return None
        listed = self._observer.listed
        if listed is not None:
            endpoint = ALLOW_LIST if listed.allowed else DENY_LIST
        elif self.rule_set.find(endpoint) is None:
            self._count_without_rule(request)
            return None
        elif self.needs is not None:
            self.needs.add(endpoint, who, time_us)
        self._count(endpoint, who, time_us, decision)
        return decision.result.allowed

    def _note_time(self, time_us: int) -> None:
        if not self._clock.advance_to(time_us):
            self.late += 1
        if self.first_us is None or self.last_us is None:
            self.first_us = self.last_us = time_us
        elif time_us > self.last_us:
            self.last_us = time_us
        elif time_us < self.first_us:
            self.first_us = time_us

    def _count(self, endpoint: str, who: str, time_us: int, decision: Decision) -> None:
        tally = self.tallies.get((endpoint, who))
        if tally is None:
            counted_as = who if len(self.tallies) < self._max_tallies else OTHER_CLIENTS
            tally = self.tallies.setdefault((endpoint, counted_as), Tally())
        if self._observer.shadow_denials:
            tally.shadow_denied += 1
            for policy in self._observer.shadow_denials:
                tally.blame(policy)
                self.denied_by.setdefault((endpoint, policy), Tally()).shadow_denied += 1
        result = decision.result
        if result.allowed:
            tally.allowed += 1
            self.timeline.add(time_us, ALLOWED)
            return
        policy = decision.binding.policy if decision.binding is not None else ""
        tally.deny(time_us, result.retry_after, policy)
        self.denied_by.setdefault((endpoint, policy), Tally()).deny(time_us, result.retry_after, policy)
        self.timeline.add(time_us, DENIED)
        self.denials_of.setdefault(endpoint, Timeline()).add(time_us)
        self.offenders.add(who, time_us)

    def _identifier(self, endpoint: str, request: LoggedRequest) -> str | dict[str, str]:
        named = dict(zip(self._scopes, request.names, strict=True))
        found = identify(self._limiter.current_rules().scopes_of(endpoint), request.client, named)
        return request.client if found is None else found  # type: ignore[return-value]

    def _count_without_rule(self, request: LoggedRequest) -> None:
        self.requests_without_rule += 1
        endpoint = request.method, request.path[:_LONGEST_SHOWN_PATH]
        if len(self.without_rule) < _MAX_WITHOUT_RULE or endpoint in self.without_rule:
            self.without_rule[endpoint] += 1


def client_of(request: LoggedRequest) -> str:
    """Return the client as reports name it: the first name that its line has, else its address."""
    for name in request.names:
        if name:
            return name
    client = request.client
    return client if len(client) <= _CERTAINLY_SHORT else identifier_text(client) or client
