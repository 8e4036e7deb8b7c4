"""Tests that every storage with reservations and holds must pass."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, Protocol, cast
from unittest import SkipTest

from sluicegate.domain.buckets.bucket_request import BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.claims.claim import AS_RESERVED, CHARGE, HOLD, IN_TIME, LATE, NOT_FOUND, PAID, RELEASE
from sluicegate.domain.errors import StorageError
from sluicegate.domain.protocols import ReservationStorage, ResettableStorage, StorageProtocol
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.testing.contract_runner import ContractRunner, new_key, peeked, request_of, wait_of

_DAILY: Final = RateLimitRule.per_day(100)  # refills too slowly to show in a test
_TWO: Final = RateLimitRule.in_flight(2)
_numbers: Final = count(1)


class _Storage(StorageProtocol, ReservationStorage, Protocol):
    """Both ports."""


class ReservationContract(ContractRunner):
    """The tests; see `StorageContract`, which includes them."""

    def test_what_is_reserved_is_gone_until_it_is_settled(self) -> None:
        """Nobody else gets it; a settlement of less gives the rest back, once."""

        async def scenario(storage: _Storage) -> None:
            key, number = new_key(), next(_numbers)
            assert (await _reserve(storage, number, key, 80)).allowed
            assert not (await storage.take([request_of(_DAILY, key, cost=30)])).allowed
            assert await _settle(storage, number, key, 50) == (IN_TIME, 50, 30)
            assert await peeked(storage, request_of(_DAILY, key)) == [50]
            assert await _settle(storage, number, key, 20) == (NOT_FOUND, 0, 0)
            assert await peeked(storage, request_of(_DAILY, key)) == [50]

        self._run_reserving(scenario)

    def test_a_denied_reservation_changes_nothing(self) -> None:
        """In none of its buckets; and there is nothing to settle."""

        async def scenario(storage: _Storage) -> None:
            one, other, number = new_key(), new_key(), next(_numbers)
            await storage.take([request_of(_DAILY, one, cost=50)])
            for keys in ((one, other), (other, one)):
                requests = [request_of(_DAILY, key, cost=60) for key in keys]
                assert not (await storage.reserve(requests, number, [_terms(CHARGE)] * 2)).allowed
                settled = await storage.settle(requests, number, [0, 0])
                assert [one.found for one in settled] == [NOT_FOUND, NOT_FOUND]
            assert await peeked(storage, request_of(_DAILY, one), request_of(_DAILY, other)) == [50, 100]

        self._run_reserving(scenario)

    def test_what_exceeds_a_reservation_becomes_debt_up_to_its_bound(self) -> None:
        """Nothing is admitted while there is debt, not even what costs nothing; the wait counts it."""

        async def scenario(storage: _Storage) -> None:
            key, number, other = new_key(), next(_numbers), next(_numbers)
            await _reserve(storage, number, key, 80)
            await _reserve(storage, other, key, 20)
            assert await _settle(storage, number, key, 110, max_debt=50) == (IN_TIME, 110, 0)
            (settled,) = await storage.settle([request_of(_DAILY, key, cost=60)], other, [50 * _DAILY_TOKEN])
            assert settled.charged_units // _DAILY_TOKEN == 40  # noqa: PLR2004
            assert settled.level.level // _DAILY_TOKEN == -50  # noqa: PLR2004
            denied = await storage.take([request_of(_DAILY, key, cost=0)])
            assert not denied.allowed
            assert 43_000 < wait_of(request_of(_DAILY, key, cost=0), denied.levels[0]) <= 43_200  # noqa: PLR2004 - half a day

        self._run_reserving(scenario)

    def test_an_unsettled_reservation_is_charged_or_released_at_its_end(self) -> None:
        """A commit after that charges what is not charged yet, and returns nothing."""

        async def scenario(storage: _Storage) -> None:
            for kind, left, charged in ((CHARGE, 70, 30), (RELEASE, 100, 20)):
                key, number = new_key(), next(_numbers)
                await _reserve(storage, number, key, 30, kind, ttl_s=0.3)
                assert await peeked(storage, request_of(_DAILY, key)) == [70]
                await self.advance(0.31)
                assert await peeked(storage, request_of(_DAILY, key)) == [left]
                assert await _settle(storage, number, key, 20) == (LATE, charged, 0)
                assert await peeked(storage, request_of(_DAILY, key)) == [100 - charged]
                assert await _settle(storage, number, key, 20) == (NOT_FOUND, 0, 0)

        self._run_reserving(scenario)

    def test_a_reservation_can_be_extended_until_it_ends_and_not_after(self) -> None:
        """What has ended is not revived."""

        async def scenario(storage: _Storage) -> None:
            key, number = new_key(), next(_numbers)
            await _reserve(storage, number, key, 30, RELEASE, ttl_s=0.4)
            assert await storage.extend([request_of(_DAILY, key)], number, [1_000_000]) == 1
            await self.advance(0.5)
            assert await peeked(storage, request_of(_DAILY, key)) == [70]
            await self.advance(0.6)
            assert await storage.extend([request_of(_DAILY, key)], number, [1_000_000]) == 0
            assert await peeked(storage, request_of(_DAILY, key)) == [100]
            assert await storage.extend([request_of(_DAILY, new_key())], number, [1_000_000]) == 0

        self._run_reserving(scenario)

    def test_a_return_never_lifts_a_full_bucket(self) -> None:
        """What found no room beside a reservation while the bucket refilled does not come back after it."""

        async def scenario(storage: _Storage) -> None:
            rule, key, number = RateLimitRule.per_second(1_000), new_key(), next(_numbers)
            requests = [request_of(rule, key, cost=400)]
            await storage.reserve(requests, number, [_terms(CHARGE)])
            await self.advance(0.5)
            assert (await storage.take([request_of(rule, key, cost=1_000)])).allowed
            (settled,) = await storage.settle([request_of(rule, key, cost=0)], number, [0])
            assert (settled.found, settled.returned_units) == (IN_TIME, 0)
            assert settled.level.level < 900 * rule.spec.units_per_token

        self._run_reserving(scenario)

    def test_calls_in_flight_are_admitted_up_to_the_limit(self) -> None:
        """A denied one is told when the first hold ends; a released slot is free at once, an ended one at its end."""

        async def scenario(storage: _Storage) -> None:
            key, numbers = new_key(), [next(_numbers) for _ in range(4)]
            assert (await _hold(storage, numbers[0], key, ttl_s=0.6)).allowed
            assert (await _hold(storage, numbers[1], key, ttl_s=60)).allowed
            denied = await _hold(storage, numbers[2], key)
            assert not denied.allowed
            wait = wait_of(request_of(_TWO, key), denied.levels[0])
            assert wait == 0.6 if self.exact_clock else 0 < wait <= 0.6  # noqa: PLR2004
            assert await _release(storage, numbers[1], key) == IN_TIME
            assert await _release(storage, numbers[1], key) == NOT_FOUND
            assert (await _hold(storage, numbers[2], key)).allowed
            assert not (await _hold(storage, numbers[3], key)).allowed
            await self.advance(0.61)
            assert (await _hold(storage, numbers[3], key)).allowed
            assert not (await _hold(storage, next(_numbers), key)).allowed
            assert await _release(storage, numbers[0], key) == NOT_FOUND

        self._run_reserving(scenario)

    def test_a_hold_and_a_rate_are_taken_together_or_not_at_all(self) -> None:
        """A rate that is paid beside a hold leaves no claim; a full house charges no rate."""

        async def scenario(storage: _Storage) -> None:
            rate, slots = new_key(), new_key()
            requests = [request_of(_DAILY, rate, cost=10), request_of(_TWO, slots)]
            terms = [_terms(PAID), _terms(HOLD)]
            numbers = [next(_numbers) for _ in range(3)]
            allowed = [(await storage.reserve(requests, number, terms)).allowed for number in numbers]
            assert allowed == [True, True, False]
            assert await peeked(storage, request_of(_DAILY, rate)) == [80]
            settled = await storage.settle(requests, numbers[0], [0, 0])
            assert [one.found for one in settled] == [NOT_FOUND, IN_TIME]
            assert (await storage.reserve(requests, numbers[2], terms)).allowed

        self._run_reserving(scenario)

    def test_concurrent_reservations_take_exactly_the_capacity_and_settle_once(self) -> None:
        """Of forty reservations of ten tokens ten are allowed; of ten commits of the same one, one counts."""

        async def scenario(storage: _Storage) -> None:
            key, numbers = new_key(), [next(_numbers) for _ in range(40)]
            verdicts = await asyncio.gather(*[_reserve(storage, number, key, 10) for number in numbers])
            assert sum(verdict.allowed for verdict in verdicts) == 10  # noqa: PLR2004
            number = next(number for number, verdict in zip(numbers, verdicts, strict=True) if verdict.allowed)
            settled = await asyncio.gather(*[_settle(storage, number, key, 4) for _ in range(10)])
            assert sorted(settled) == [(NOT_FOUND, 0, 0)] * 9 + [(IN_TIME, 4, 6)]
            assert await peeked(storage, request_of(_DAILY, key)) == [6]

        self._run_reserving(scenario)

    def test_a_reset_frees_what_is_held(self) -> None:
        """After it all slots are free; a reservation that was out then costs no more than what exceeds it. Of all, too."""

        async def scenario(storage: _Storage) -> None:
            for of_all in (False, True):
                key, slots, number = new_key(), new_key(), next(_numbers)
                await _hold(storage, next(_numbers), slots)
                await _hold(storage, next(_numbers), slots)
                await _reserve(storage, number, key, 80)
                if not of_all:
                    await storage.reset([request_of(_TWO, slots), request_of(_DAILY, key)])
                elif not await _reset_all(storage, key, slots):
                    return
                assert (await _hold(storage, next(_numbers), slots)).allowed
                assert await peeked(storage, request_of(_DAILY, key)) == [100]
                assert await _settle(storage, number, key, 90) == (IN_TIME, 90, 0)
                assert await peeked(storage, request_of(_DAILY, key)) == [90]

        self._run_reserving(scenario)

    def test_reservations_survive_a_change_of_the_rule(self) -> None:
        """What was reserved under the old rule is settled under the new one, token for token."""

        async def scenario(storage: _Storage) -> None:
            key, number = new_key(), next(_numbers)
            await _reserve(storage, number, key, 40)
            larger = RateLimitRule.per_hour(50, burst=1000)
            cost = BucketRequest(key, larger.spec, 30 * larger.spec.units_per_token)
            (settled,) = await storage.settle([cost], number, [0])
            token = larger.spec.units_per_token
            assert (settled.found, settled.charged_units) == (IN_TIME, 30 * token)
            assert settled.returned_units == 10 * token
            assert await peeked(storage, request_of(larger, key)) == [70]

        self._run_reserving(scenario)

    def _run_reserving(self, scenario: Callable[[_Storage], Awaitable[None]]) -> None:
        async def if_it_can(storage: StorageProtocol) -> None:
            if not isinstance(storage, ReservationStorage):
                raise SkipTest(f"{type(storage).__name__} has no reservations")
            await scenario(cast("_Storage", storage))

        self._run(if_it_can)


_DAILY_TOKEN: Final = _DAILY.spec.units_per_token


def _terms(kind: int, ttl_s: float = 60) -> ClaimTerms:
    return ClaimTerms(kind, round(ttl_s * 1_000_000))


async def _reserve(  # noqa: PLR0913, PLR0917 - a reservation's terms
    storage: _Storage, number: int, key: str, tokens: int, kind: int = CHARGE, ttl_s: float = 60
) -> Verdict:
    return await storage.reserve([request_of(_DAILY, key, cost=tokens)], number, [_terms(kind, ttl_s)])


async def _settle(storage: _Storage, number: int, key: str, tokens: int, max_debt: int = 100) -> tuple[int, int, int]:
    request = request_of(_DAILY, key, cost=tokens)
    one: BucketSettlement = (await storage.settle([request], number, [max_debt * _DAILY_TOKEN]))[0]
    return one.found, one.charged_units // _DAILY_TOKEN, one.returned_units // _DAILY_TOKEN


async def _reset_all(storage: StorageProtocol, *prefixes: str) -> bool:
    """Reset all buckets of some prefixes; return whether the storage can."""
    if not isinstance(storage, ResettableStorage):
        return False
    try:
        await storage.reset_all(prefixes)
    except StorageError:  # it cannot tell them from others
        return False
    return True


async def _hold(storage: _Storage, number: int, key: str, ttl_s: float = 60) -> Verdict:
    return await storage.reserve([request_of(_TWO, key)], number, [_terms(HOLD, ttl_s)])


async def _release(storage: _Storage, number: int, key: str) -> int:
    return (await storage.settle([BucketRequest(key, _TWO.spec, AS_RESERVED)], number, [0]))[0].found
