"""Calls that keep to rules and to what the server says of its own."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.sync_wait_queue import SyncWaitQueue
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.application.wait_queue import WaitQueue, require_timeout
from sluicegate.container import get_rate_limit, get_sync_rate_limit
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import ReservationStorage, SyncReservationStorage
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.client.adaptation import Adaptation, RetryBudget
from sluicegate.presentation.client.server_fields import ServerWord, read_answer
from sluicegate.presentation.client.steps import Steps, run, run_blocking
from sluicegate.presentation.inline_rules import InlineRules, RuleOrText
from sluicegate.presentation.web.identity.identifiers import identifier_text, is_name
from sluicegate.presentation.web.request_limiter import require_plain
from sluicegate.presentation.web.request_reader import require_functions
from sluicegate.runtime.mutex import new_mutex
from sluicegate.runtime.system_clock import monotonic_s, utc_now

R = TypeVar("R")

# A pause is a reservation of one token until it ends. Who finds one missing waits: the longest pause holds for all workers,
# and none is lost if the worker that heard of it is. Nothing flows in meanwhile that would matter.
_PLACES: Final = 64
_PAUSES: Final = RateLimitRule(_PLACES, 1 / 1440, "ip", on_expiry="release")
_POLL_S: Final = 0.1  # how late a worker sees the end of a pause that another one has heard of
_KNOWN_SERVERS: Final = 1024
_LONGEST_PAUSE_S: Final = 86_400
_FIRST_BACKOFF_S: Final = 0.5


@dataclass(frozen=True)
class Call(Generic[R]):
    """A call to somebody else's service.

    Args:
        send: Makes it; may return an awaitable.
        read: Returns the status and the fields of what `send` returned, or None if it has none.
        discard: Releases an answer that nobody will see; may return an awaitable.
        repeatable: Whether it may be made again after a refusal.
    """

    send: Callable[[], Any]
    read: Callable[[R], tuple[int, Mapping[str, str]] | None]
    discard: Callable[[R], object]
    repeatable: bool


class _Server:
    """What is known of a server in this process."""

    __slots__ = ("adaptation", "next_s", "paused_until_s")

    def __init__(self) -> None:
        self.adaptation = Adaptation()
        self.next_s = 0.0
        self.paused_until_s = 0.0


class Pacer:
    """Make calls at no more than a rate, and as the server's answers tell.

    What a server says is a floor for all later calls, of all workers that share the limiter's storage, but never for longer
    than `max_pause_s`. Each attempt of a call waits for its turn and takes tokens.

    Args:
        rules: Rules, or texts such as `10/second burst 1`.
        asynchronous: Whether calls are awaited.
        limiter: The limiter; None: the process's.
        name: What keys name in the place of an endpoint; empty: the place.
        timeout_s: The longest wait for turns in seconds; None: no end.
        retries: How often a call that was refused is made again at most.
        max_pause_s: The longest pause that a server may ask for, in seconds.
        identifier: Returns whose limit a call counts for; a coroutine function only where calls are awaited. None: `steps` tells.
        at_start: See `InlineRules`.

    Raises:
        InvalidInputError: If an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - settings, given by name
        self,
        rules: Sequence[RuleOrText],
        *,
        asynchronous: bool,
        limiter: object,
        identifier: Callable[..., object] | None,
        name: str,
        timeout_s: float | None,
        retries: int,
        max_pause_s: float,
        at_start: bool = True,
    ) -> None:
        require_functions({"identifier": identifier}, awaits=asynchronous)
        require_timeout(timeout_s)
        if type(retries) is not int:
            raise InvalidTypeError(f"retries={retries!r:.80}: expected a whole number")
        if not 0 <= retries <= 100:  # noqa: PLR2004 - said in the message
            raise InvalidInputError(f"retries={retries}: expected 0 to 100")
        if isinstance(max_pause_s, bool) or not isinstance(max_pause_s, int | float):
            raise InvalidTypeError(f"max_pause_s={max_pause_s!r:.80}: expected seconds")
        if not 0 < max_pause_s <= _LONGEST_PAUSE_S:
            raise InvalidInputError(f"max_pause_s={max_pause_s!r}: expected more than 0, and at most 86400 seconds")
        kind: Any = TokenBucketAdapter if asynchronous else SyncTokenBucketAdapter
        find: Callable[[], Any] = get_rate_limit if asynchronous else get_sync_rate_limit
        self._rules: InlineRules[Any] = InlineRules(rules, kind, limiter, find, name=name, at_start=at_start)
        self._pauses: InlineRules[Any] = InlineRules((_PAUSES,), kind, limiter, find, at_start=False)
        self._run: Callable[[Steps[Any]], Any] = run if asynchronous else run_blocking
        self._sleep: Callable[[float], Any] = asyncio.sleep if asynchronous else time.sleep
        self._queue: Any = WaitQueue() if asynchronous else SyncWaitQueue()
        self._identifier = identifier
        self._timeout_s = timeout_s
        self._retries = retries
        self._max_pause_s = max_pause_s
        self._budget = RetryBudget()
        self._servers: dict[str, _Server] = {}
        self._mutex = new_mutex()

    def steps(
        self, place: str, call: Call[R], otherwise: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Steps[R]:
        """Wait for a turn and make a call, again if it was refused and may be.

        Args:
            place: What keys name, if the pacer has no name.
            call: The call.
            otherwise: Whose limit it counts for where no function tells, or it returns None: such as a host.
            arguments: What the function of the identifier gets.
            keywords: The same, by name.

        Returns:
            What the last attempt returned, a refusal as well.

        Raises:
            SlotTimeoutError: If there is no turn in time; the call was not made, or was refused before.
            InvalidTypeError: If the function of the identifier returned something that is no identifier; the call was not made.
        """
        identifier = otherwise
        if self._identifier is not None:
            name = require_plain((yield partial(self._identifier, *arguments, **keywords)))
            if not is_name(name):
                raise InvalidTypeError(f"identifier: returned a {type(name).__name__}, expected str, int, UUID or None")
            identifier = identifier_text(name) or otherwise
        endpoint, limiter = self._rules.at(place)
        deadline_s = None if self._timeout_s is None else monotonic_s() + self._timeout_s
        attempt = 0
        while True:
            timeout_s = None if deadline_s is None else max(0.0, deadline_s - monotonic_s())
            ask = partial(self._ask, endpoint, limiter, identifier)
            yield partial(self._queue.wait, lambda ask=ask: self._run(ask()), endpoint, identifier, timeout_s)
            response: R = yield call.send
            answer = call.read(response)
            if answer is None:
                return response
            word = read_answer(*answer, utc_now())
            yield from self._learn(endpoint, limiter, identifier, word)
            wait_s = self._wait_before_retry(word, attempt)
            late = deadline_s is not None and monotonic_s() + wait_s > deadline_s
            more = word.refused and word.may_retry is not False and call.repeatable and attempt < self._retries
            if not more or late or wait_s > self._max_pause_s or not self._budget.take():
                return response
            yield partial(call.discard, response)
            if word.pause_s is None:  # else the queue waits
                yield partial(self._sleep, wait_s)
            attempt += 1

    def _ask(self, endpoint: str, limiter: Any, identifier: str) -> Steps[RateLimitResult]:  # noqa: ANN401 - of either kind
        server, now_s = self._server(identifier), monotonic_s()
        free_s = max(server.next_s, server.paused_until_s)
        if free_s > now_s:
            return _denied(free_s - now_s)
        if _shares(limiter):
            pauses, _ = self._pauses.at(f"{endpoint} pauses")
            peeked = yield partial(limiter.peek, endpoint=pauses, identifier=identifier, cost=_PLACES)
            if not peeked.value.allowed:
                return _denied(_POLL_S)
        decision = yield partial(limiter.check, endpoint=endpoint, identifier=identifier)
        result: RateLimitResult = decision.result
        if result.allowed and server.adaptation.share < 1:
            server.next_s = monotonic_s() + server.adaptation.spacing_s(_slowest(limiter, endpoint))
        return result

    def _learn(self, endpoint: str, limiter: Any, identifier: str, word: ServerWord) -> Steps[None]:  # noqa: ANN401
        server, now_s = self._server(identifier), monotonic_s()
        pause_s = min(word.pause_s or 0.0, self._max_pause_s)
        with self._mutex:
            if not word.refused:
                self._budget.note_success()
                server.adaptation.note_success(now_s)
            elif word.pause_s is None:
                server.adaptation.note_refusal(now_s)
            news = now_s + pause_s > server.paused_until_s + _POLL_S / 2
            server.paused_until_s = max(server.paused_until_s, now_s + pause_s)
        if news and pause_s >= _POLL_S / 2 and _shares(limiter):
            pauses, _ = self._pauses.at(f"{endpoint} pauses")
            yield partial(limiter.reserve, endpoint=pauses, identifier=identifier, cost=1, ttl_seconds=pause_s)
        remaining = word.remaining_calls
        if remaining is not None:
            yield from _take_surplus(endpoint, limiter, identifier, remaining)

    def _wait_before_retry(self, word: ServerWord, attempt: int) -> float:
        if word.pause_s is not None:
            return word.pause_s
        longest_s: float = min(self._max_pause_s, _FIRST_BACKOFF_S * float(1 << attempt))
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - so that those refused together do not return together

    def _server(self, identifier: str) -> _Server:
        with self._mutex:
            server = self._servers.pop(identifier, None) or _Server()
            self._servers[identifier] = server  # the one that was called last stands last
            if len(self._servers) > _KNOWN_SERVERS:
                del self._servers[next(iter(self._servers))]
        return server


def _take_surplus(endpoint: str, limiter: Any, identifier: str, remaining: int) -> Steps[None]:  # noqa: ANN401
    """Take from the bucket what the server says is not there: others have used it."""
    rules: tuple[RateLimitRule, ...] = limiter.current_rules().rules_of(endpoint)
    left = remaining * max([rule.cost for rule in rules], default=1)
    if left >= min([rule.max_tokens for rule in rules], default=0):
        return
    peeked = yield partial(limiter.peek, endpoint=endpoint, identifier=identifier)
    if peeked.value.remaining > left:
        yield partial(limiter.check, endpoint=endpoint, identifier=identifier, cost=peeked.value.remaining - left)


def _denied(retry_after: float) -> RateLimitResult:
    return RateLimitResult(allowed=False, retry_after=retry_after, remaining=0, limit=0, reset_seconds=0)


def _slowest(limiter: Any, endpoint: str) -> float:  # noqa: ANN401
    rules: tuple[RateLimitRule, ...] = limiter.current_rules().rules_of(endpoint)
    return max([rule.seconds_per_token * rule.cost for rule in rules], default=0.0)


def _shares(limiter: Any) -> bool:  # noqa: ANN401
    return isinstance(limiter.storage, ReservationStorage | SyncReservationStorage)
