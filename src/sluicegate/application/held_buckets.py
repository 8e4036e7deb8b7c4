"""The short ways of a check to a storage that answers at once: the buckets of clients who ask often are at hand."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from sluicegate.application.quick_check import MAX_REMEMBERED, PlainChecks, QuickCheck, QuickChecks, no_quick_check
from sluicegate.domain.bucket_at_hand import Bucket, Timekeeping
from sluicegate.domain.bucket_request import BucketRequest
from sluicegate.domain.bucket_table import TakeOne
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.protocols import SyncStorageProtocol
from sluicegate.domain.quick_take import build_take, build_take_all
from sluicegate.domain.result import Success
from sluicegate.domain.token_bucket import result_at, tightest

_ONE_IN = 32
"""Without room one in so many of those who come is taken to hand: to make room in a crowd costs as much as three checks."""


class QuickStorage(SyncStorageProtocol, Protocol):
    """A storage that answers at once.

    Args:
        take_one_now: Does what `take_now` does for one bucket, with no objects in between.
        timekeeping: When the buckets that `hold_now` returned may be used.
    """

    take_one_now: TakeOne
    timekeeping: Timekeeping

    def hold_now(self, requests: Sequence[BucketRequest], /) -> tuple[Bucket, ...] | None:
        """Return the requests' buckets to be kept at hand, if all of them are there."""
        ...


def build_quick_checks(plain: PlainChecks, storage: QuickStorage) -> QuickChecks:
    """Build the short ways to a storage that answers at once.

    Args:
        plain: What is asked for.
        storage: Where the buckets are.
    """
    held = _HeldBuckets(storage)
    return {endpoint: _quick_check(endpoint, plain, storage, held) for endpoint in plain.endpoints}


class _HeldBuckets:
    """What checks have at hand, of all endpoints together: the buckets of clients who ask often.

    Args:
        storage: Where they are.
    """

    def __init__(self, storage: QuickStorage) -> None:
        self._hold = storage.hold_now
        self._clients: deque[tuple[dict[str, Any], str, int]] = deque()  # in the order in which they came to be known
        self._room = MAX_REMEMBERED
        self._passed_over = 0

    def welcome(self) -> bool:
        """Return whether to take another client to hand: while there is room, and without room now and then."""
        if self._room > 0:
            return True
        self._passed_over = self._passed_over + 1 & _ONE_IN - 1
        return not self._passed_over

    def keep(self, known: dict[str, Any], identifier: str, requests: tuple[BucketRequest, ...]) -> None:
        """Keep a client's buckets at hand, in place of the oldest ones where there is no room.

        Args:
            known: Where the buckets of the endpoint's clients are kept: by the identifier a bucket, or a tuple of several.
            identifier: The client.
            requests: What names the buckets.
        """
        size = len(requests)
        buckets = self._hold(requests)
        if buckets is None:
            known.pop(identifier, None)
            return
        if identifier not in known:
            self._clients.append((known, identifier, size))
            self._room -= size
            while self._room < 0:
                others, other, freed = self._clients.popleft()
                others.pop(other, None)
                self._room += freed
        known[identifier] = buckets if size > 1 else buckets[0]


def _quick_check(endpoint: str, plain: PlainChecks, storage: QuickStorage, held: _HeldBuckets) -> QuickCheck:
    limits = plain.limits(endpoint)
    if not limits:
        return no_quick_check
    known: dict[str, Any] = {}
    otherwise = (_take_one_named if len(limits) == 1 else _take_all_named)(endpoint, plain, storage, held, known)
    if not all(limit_.spec.units_per_second for limit_ in limits):
        return otherwise
    if len(limits) == 1:
        return build_take(limits[0].spec, limits[0].cost_units, known.get, otherwise, storage.timekeeping)
    return build_take_all(known.get, otherwise, storage.timekeeping)


def _take_one_named(
    endpoint: str, plain: PlainChecks, storage: QuickStorage, held: _HeldBuckets, known: dict[str, Any]
) -> QuickCheck:
    """Build a check of a bucket that is not at hand: of many clients, hence without objects in between as well."""
    (limit_,) = plain.limits(endpoint)
    spec, cost_units, key_of = limit_.spec, limit_.cost_units, plain.namer(endpoint)
    take_one, welcome, keep = storage.take_one_now, held.welcome, held.keep

    def take_named(identifier: str) -> Success[RateLimitResult] | None:
        key = key_of(identifier)
        if key is None:
            return None
        allowed, level, effective_in_us = take_one(key, spec, cost_units)
        if welcome():
            keep(known, identifier, (BucketRequest(key, spec, cost_units),))
        return Success(result_at(spec, cost_units, level, effective_in_us, allowed))

    return take_named


def _take_all_named(
    endpoint: str, plain: PlainChecks, storage: QuickStorage, held: _HeldBuckets, known: dict[str, Any]
) -> QuickCheck:
    take_all, requests_of = storage.take_now, plain.requests

    def take_named(identifier: str) -> Success[RateLimitResult] | None:
        requests = requests_of(endpoint, identifier)
        if requests is None:
            return None
        verdict = take_all(requests)
        if held.welcome():
            held.keep(known, identifier, requests)
        return Success(tightest(requests, verdict))

    return take_named
