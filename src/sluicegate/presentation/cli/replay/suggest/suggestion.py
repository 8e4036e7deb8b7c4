"""What is suggested, and on which evidence. These structures are part of what `--json` prints."""

import msgspec


class FrontierPoint(msgspec.Struct, frozen=True):
    """A rate, and the burst that goes with it.

    Args:
        rate: The rate as rules write it: `20/minute`.
        per_minute: The same in tokens a minute.
        p50: The burst that half of the honest-looking clients needed at most.
        p90: What 90 % of them needed at most.
        p99: What 99 % of them needed at most.
        burst: The least burst that denies at most the chosen share of them.
        low: The lower end of its 90 % bootstrap interval.
        high: The upper end: what is suggested.
    """

    rate: str
    per_minute: float
    p50: int
    p90: int
    p99: int
    burst: int
    low: int
    high: int


class Verification(msgspec.Struct, frozen=True):
    """What replaying the suggested limit denied.

    Args:
        requests: Requests of the endpoint.
        denied: How many of them were denied.
        honest_clients: How many honest-looking clients asked for it.
        honest_clients_denied: How many of them were denied at least once.
        other_clients_denied: How many other clients were.
    """

    requests: int
    denied: int
    honest_clients: int
    honest_clients_denied: int
    other_clients_denied: int


class EndpointSuggestion(msgspec.Struct, frozen=True):
    """The limit that is suggested for an endpoint.

    Args:
        endpoint: The endpoint; `*` is all that no other one is for.
        policy: The policy's name in the rules file.
        limit: The rate and the burst as rules write them; None: no honest-looking client asked for it.
        requests: Requests of the clients that were watched.
        honest_clients: How many of them look honest.
        other_clients: How many do not, and set no limit.
        frontier: The burst at each rate, the slowest rate first; empty without honest-looking clients.
        chosen: The place of the suggested rate in it; -1 without one.
        confidence: `high`, `medium` or `low`; `low` comes with a warning.
        warnings: Why not to trust it.
        needs: What each honest-looking client needed at the suggested rate, ascending: pairs of a burst and how many clients.
        verified: What replaying it denied; None: the log could not be read twice.
    """

    endpoint: str
    policy: str
    limit: str | None
    requests: int
    honest_clients: int
    other_clients: int
    frontier: list[FrontierPoint]
    chosen: int
    confidence: str
    warnings: list[str]
    needs: list[tuple[int, int]]
    verified: Verification | None = None


class Suggestion(msgspec.Struct, frozen=True):
    """The limits that are suggested.

    Args:
        share: The share of honest-looking clients that may be denied at each endpoint, 0 to 1.
        window_s: The seconds in which a bucket is full again.
        scope: Whom the limits count.
        first: The time of the first request (ISO 8601, UTC).
        last: The time of the last one.
        requests: How many requests there were.
        clients: How many clients there were of each kind.
        watched: The part of the clients that was watched, 0 to 1.
        templates_given: Whether endpoints were given, not inferred.
        warnings: Why not to trust any of it.
        endpoints: The limits, in the order of precedence.
    """

    share: float
    window_s: int
    scope: str
    first: str
    last: str
    requests: int
    clients: dict[str, int]
    watched: float
    templates_given: bool
    warnings: list[str]
    endpoints: list[EndpointSuggestion]
