"""Tell honest-looking clients from robots, probers and scrapers, so that these do not set the limits.

What a client is follows from all of its requests, in this order:

1. `robot`: it named itself a robot or a program in its user agent, or asked for `/robots.txt`, which people do not.
2. `no agent`: it never named a user agent, in a log that has them. Browsers always do.
3. `prober`: of 10 requests or more, at least half were answered 400 to 499, 429 left out: it guesses paths or passwords.
4. `outlier`: it sent more requests than honest-looking clients do by far: beyond the far-out fence of Tukey's box plot, on
   the logarithm of the requests (the upper quartile and three times the quartiles' distance, at least a factor of eight).
   With fewer than 20 others there is no saying.
5. `honest`: none of these.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_NONE,
    AGENT_OTHER,
    AGENT_ROBOT,
    LoggedRequest,
)

HONEST: Final = "honest"
ROBOT: Final = "robot"
NO_AGENT: Final = "no agent"
PROBER: Final = "prober"
OUTLIER: Final = "outlier"
KINDS: Final = (HONEST, ROBOT, NO_AGENT, PROBER, OUTLIER)

MAX_PROFILES = 1_000_000
"""How many clients are told apart; about 150 bytes each. Later ones count as honest-looking."""

_MIN_ANSWERS = 10
_MIN_CLIENTS = 20
_CLIENT_ERRORS = range(400, 500)
_TOO_MANY_REQUESTS = 429


class _Profile(msgspec.Struct, gc=False):
    requests: int = 0
    answers: int = 0
    errors: int = 0
    robot: bool = False
    named_agent: bool = False
    without_agent: bool = False


class Clients:
    """Watch requests, then say what each client looks like.

    Args:
        max_profiles: How many clients are told apart.
    """

    def __init__(self, max_profiles: int = MAX_PROFILES) -> None:
        self._profiles: dict[str, _Profile] = {}
        self._max_profiles = max_profiles
        self._fence: float | None = None

    def observe(self, who: str, request: LoggedRequest) -> None:
        """Take a request into account.

        Args:
            who: The client as it is counted.
            request: Its request.
        """
        profile = self._profiles.get(who)
        if profile is None:
            if len(self._profiles) >= self._max_profiles:
                return
            profile = self._profiles[who] = _Profile()
        profile.requests += 1
        agent, status = request.agent, request.status
        if agent == AGENT_OTHER:
            profile.named_agent = True
        elif agent == AGENT_ROBOT:
            profile.robot = True
        elif agent == AGENT_NONE:
            profile.without_agent = True
        if status and status != _TOO_MANY_REQUESTS:
            profile.answers += 1
            if status in _CLIENT_ERRORS:
                profile.errors += 1
        if request.path == "/robots.txt":
            profile.robot = True
        self._fence = None

    def kind(self, who: str) -> str:
        """Return what a client looks like: one of `KINDS`."""
        profile = self._profiles.get(who)
        if profile is None:
            return HONEST
        if self._fence is None:
            self._fence = _far_out([one.requests for one in self._profiles.values() if _kind_alone(one) == HONEST])
        kind = _kind_alone(profile)
        return OUTLIER if kind == HONEST and profile.requests > self._fence else kind

    def counts(self) -> dict[str, int]:
        """Return how many clients there are of each kind."""
        found = Counter(self.kind(who) for who in self._profiles)
        return {kind: found[kind] for kind in KINDS}

    def __len__(self) -> int:
        return len(self._profiles)


def _kind_alone(profile: _Profile) -> str:
    """Return what a client looks like without a look at the others."""
    if profile.robot:
        return ROBOT
    if profile.without_agent and not profile.named_agent:
        return NO_AGENT
    if profile.answers >= _MIN_ANSWERS and 2 * profile.errors >= profile.answers:
        return PROBER
    return HONEST


def _far_out(requests: Iterable[int]) -> float:
    """Return the number of requests beyond which a client is far from the others; infinite if there are too few."""
    logarithms = [math.log2(number) for number in requests]
    if len(logarithms) < _MIN_CLIENTS:
        return math.inf
    lower, _, upper = statistics.quantiles(logarithms, n=4, method="inclusive")
    return math.exp2(upper + 3 * max(upper - lower, 1.0))
