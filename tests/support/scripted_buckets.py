"""Buckets in a real Redis, on a clock that the test sets."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import redis

from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.infrastructure.redis.calls import LEND, Call, LeaseTerms, Loan
from sluicegate.infrastructure.redis.script import arguments, read, settle
from support.clocked_script import clocked_script
from support.redis_servers import RedisServer


class _Instant:
    """A clock that shows what it is set to."""

    instant_us = 0

    def now_us(self) -> int:
        """Return the instant in microseconds."""
        return self.instant_us


class ScriptedBuckets:
    """Call the script at instants that the test names.

    Args:
        server: Where the script runs.
    """

    def __init__(self, server: RedisServer) -> None:
        self.client: redis.Redis = server.client()
        self._clock = _Instant()
        self.script = clocked_script(self._clock)
        self.client.script_load(self.script.text)

    def call(self, steps: Sequence[tuple[int, Sequence[BucketRequest]]], now_us: int) -> list[Any]:
        """Carry several steps out in one script call."""
        return self.send([Call(verb, requests, Future(), 0.0) for verb, requests in steps], now_us)

    def lend(  # noqa: PLR0913 - a loan's terms
        self, request: BucketRequest, now_us: int, *, lease_id: int, returned: int = 0, kept: int = 0, wanted: int = 0
    ) -> Loan:
        """Pay for a request and borrow for one lease, whose number is counted from one."""
        terms = LeaseTerms(lease_id + 1, returned, kept, wanted)
        loan: Loan = self.send([Call(LEND, [request], Future(), 0.0, terms)], now_us)[0]
        return loan

    def send(self, calls: Sequence[Call], now_us: int) -> list[Any]:
        """Carry calls out in one script call."""
        self._clock.instant_us = now_us
        correlation_id = self.script.next_id()
        return evaluate(self.client, "EVALSHA", self.script.digest, calls, correlation_id)


def evaluate(
    client: redis.Redis, command: str, script: str, calls: Sequence[Call], correlation_id: int = 7
) -> list[Any]:
    """Send a script call by EVAL or EVALSHA, and return the calls' answers."""
    reply = undecoded(client, command, script, *arguments(calls, correlation_id))
    settle(calls, read(calls, correlation_id, reply))
    return [call.future.result() for call in calls]


def undecoded(client: redis.Redis, *command: object) -> object:
    """Send a command whose reply is not text."""
    return client.execute_command(*command, NEVER_DECODE=True)  # type: ignore[no-untyped-call]
