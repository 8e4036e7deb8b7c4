"""Collect from a log what limits are suggested from: endpoints, needs, and what each client looks like."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fractions import Fraction

from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.template import parse_endpoint
from sluicegate.domain.rules.compiled_rules import UNMATCHED, CompiledRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.cli.replay.clients import HONEST, Clients
from sluicegate.presentation.cli.replay.engine import client_of
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest
from sluicegate.presentation.cli.replay.suggest.frontier import RATES, suggest
from sluicegate.presentation.cli.replay.suggest.need_table import MAX_PAIRS, NeedTable
from sluicegate.presentation.cli.replay.suggest.path_templates import infer
from sluicegate.presentation.cli.replay.suggest.suggestion import EndpointSuggestion, Suggestion

LEARNED_REQUESTS = 100_000
"""How many requests, from the first on, the templates are inferred from."""

MAX_ENDPOINTS = 200

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_NEARLY = 0.95  # of a day or a week whose first and last minutes are quiet
_ANY = RateLimitRule(1, 1, "ip")  # what stands for the limits while the endpoints are told apart


class SuggestionOptions:
    """What to suggest.

    Args:
        share: The share of honest-looking clients that may be denied at each endpoint, 0 to below 1.
        window_s: The seconds in which a bucket is full again, 1 to 86,400.
        endpoints: Templates that are given, in the order of precedence; the rest is inferred.
        max_endpoints: How many endpoints get a limit of their own, the most requested first; 0: 200.
        scope: Whom the limits count.

    Raises:
        InvalidInputError: If a value is out of range, or an endpoint is no route.
    """

    def __init__(
        self,
        *,
        share: Fraction = Fraction(1, 100),
        window_s: int = 600,
        endpoints: Sequence[str] = (),
        max_endpoints: int = 10,
        scope: str = "ip",
    ) -> None:
        if not 0 <= share < 1:
            raise InvalidInputError(f"share={float(100 * share):g}: expected a percentage from 0 to below 100")
        if not 1 <= window_s <= _DAY_S:
            raise InvalidInputError(f"window={window_s}: expected 1 to {_DAY_S} seconds")
        for endpoint in endpoints:
            if endpoint != UNMATCHED and parse_endpoint(endpoint) is None:
                raise InvalidInputError(
                    f"endpoint={endpoint!r}: expected a method and a path, such as 'GET /users/{{id}}'"
                )
        self.share = share
        self.window_s = window_s
        self.endpoints = tuple(dict.fromkeys(endpoint for endpoint in endpoints if endpoint != UNMATCHED))
        self.max_endpoints = min(max_endpoints or MAX_ENDPOINTS, MAX_ENDPOINTS)
        self.scope = scope


class SuggestionCollector:
    """Take requests in the order of time, then suggest.

    The first 100,000 requests are held until the endpoints have been inferred from them.

    Args:
        options: What to suggest.
        max_pairs: How many pairs of endpoint and client are watched; see `NeedTable`.
    """

    def __init__(self, options: SuggestionOptions, *, max_pairs: int = MAX_PAIRS) -> None:
        self._options = options
        self._held: list[LoggedRequest] = []
        self._endpoints: CompiledRules | None = None
        self._needs = NeedTable(RATES, max_pairs)
        self._requests: Counter[str] = Counter()
        self._first_us: int | None = None
        self._last_us = 0
        self.clients = Clients()
        """What each client looks like."""

    def run(self, requests: Iterable[LoggedRequest]) -> None:
        """Take all requests."""
        for request in requests:
            if self._endpoints is not None:
                self._add(request, self._endpoints)
                continue
            self._held.append(request)
            if len(self._held) >= LEARNED_REQUESTS:
                self._learn()
        if self._endpoints is None:
            self._learn()

    def _learn(self) -> None:
        given = CompiledRules(dict.fromkeys(self._options.endpoints, _ANY), KeyFormat())
        paths = Counter((one.method, one.path) for one in self._held if given.match(one.method, one.path) is None)
        inferred = infer(paths)
        busiest = sorted(inferred, key=lambda one: -one.requests)[: self._options.max_endpoints]
        kept = {one.endpoint for one in busiest}
        names = [*self._options.endpoints, *(one.endpoint for one in inferred if one.endpoint in kept), UNMATCHED]
        self._endpoints = CompiledRules(dict.fromkeys(names, _ANY), KeyFormat())
        held, self._held = self._held, []
        for request in held:
            self._add(request, self._endpoints)

    def _add(self, request: LoggedRequest, endpoints: CompiledRules) -> None:
        who = client_of(request)
        endpoint = endpoints.match(request.method, request.path) or UNMATCHED
        self.clients.observe(who, request)
        self._requests[endpoint] += 1
        self._needs.add(endpoint, who, request.time_us)
        if self._first_us is None:
            self._first_us = request.time_us
        self._last_us = max(self._last_us, request.time_us)

    def suggestion(self) -> Suggestion:
        """Return what is suggested."""
        assert self._endpoints is not None  # noqa: S101 - `run` has run
        needs: dict[str, list[tuple[int, ...]]] = {}
        others: Counter[str] = Counter()
        for endpoint, who, need in self._needs.items():
            if self.clients.kind(who) == HONEST:
                needs.setdefault(endpoint, []).append(need.needs(RATES))
            else:
                others[endpoint] += 1
        names = _policy_names([one.endpoint for one in self._endpoints.all_rules])
        options = self._options
        endpoints: list[EndpointSuggestion] = [
            suggest(
                endpoint,
                policy,
                needs.get(endpoint, ()),
                self._requests[endpoint],
                others[endpoint],
                options.share,
                options.window_s,
            )
            for endpoint, policy in names.items()
            if self._requests[endpoint]
        ]
        first_us = self._first_us or 0
        return Suggestion(
            share=float(options.share),
            window_s=options.window_s,
            scope=options.scope,
            first=_iso(first_us),
            last=_iso(self._last_us),
            requests=self._requests.total(),
            clients=self.clients.counts(),
            watched=0.5**self._needs.halvings,
            templates_given=bool(options.endpoints),
            warnings=_span_warnings((self._last_us - first_us) // 1_000_000),
            endpoints=endpoints,
        )


def _policy_names(endpoints: Iterable[str]) -> dict[str, str]:
    """Return a name for the policy of each endpoint: its letters and digits, made unique."""
    names: dict[str, str] = {}
    for endpoint in endpoints:
        name = re.sub(r"[^a-z0-9]+", "-", re.sub(r":\w+\}", "}", endpoint.lower())).strip("-")[:48]
        name = "everything-else" if endpoint == UNMATCHED else name
        unique, number = name, 1
        while unique in names.values():
            number += 1
            unique = f"{name}-{number}"
        names[endpoint] = unique
    return names


def _span_warnings(span_s: int) -> list[str]:
    if span_s < _NEARLY * _DAY_S:
        return ["the log is shorter than a day: it does not show the busy hours of others"]
    if span_s < _NEARLY * _WEEK_S:
        return ["the log is shorter than a week: it may not show the busiest day"]
    return []


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
