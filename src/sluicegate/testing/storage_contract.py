"""Tests that every storage must pass. They know nothing about any particular storage."""

import asyncio
from unittest import SkipTest

from sluicegate.domain.errors import StorageError
from sluicegate.domain.protocols import ResettableStorage, StorageProtocol
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.testing.contract_runner import new_key, peeked, refunded, request_of, tokens_in, wait_of
from sluicegate.testing.reservation_contract import ReservationContract


class StorageContract(ReservationContract):
    """The tests. Subclass this in a test module, override `make_storage`, and let pytest collect them.

    Each test runs in an event loop of its own, makes a storage and closes it. With a real clock, the tests wait. If the clock
    of your storage can be set, override `advance` and set `exact_clock`: then waits are tested to the microsecond. Those about
    reservations and holds are skipped if the storage has not the verbs of `ReservationStorage`.

    Example:
        class TestMyStorage(StorageContract):
            async def make_storage(self) -> StorageProtocol:
                return MyStorage()
    """

    def test_an_absent_bucket_is_full(self) -> None:
        """An unused key has all its tokens, and peeking at it does not change that."""

        async def scenario(storage: StorageProtocol) -> None:
            request = request_of(_DAILY)
            assert (await peeked(storage, request)) == [5]
            assert (await peeked(storage, request)) == [5]

        self._run(scenario)

    def test_it_admits_the_capacity_and_then_denies(self) -> None:
        """Five tokens pay for five takes; the sixth is denied, and so is every later one."""

        async def scenario(storage: StorageProtocol) -> None:
            request = request_of(_DAILY)
            verdicts = [await storage.take([request]) for _ in range(8)]
            assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
            assert [tokens_in(request, verdict.levels[0]) for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0, 0]

        self._run(scenario)

    def test_a_cost_is_paid_whole_or_not_at_all(self) -> None:
        """A cost above the level is denied and leaves the level as it was, so that a smaller cost still passes."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            assert (await storage.take([request_of(_DAILY, key, cost=3)])).allowed
            denied = await storage.take([request_of(_DAILY, key, cost=3)])
            assert not denied.allowed
            assert tokens_in(request_of(_DAILY), denied.levels[0]) == 2  # noqa: PLR2004
            assert (await storage.take([request_of(_DAILY, key, cost=2)])).allowed

        self._run(scenario)

    def test_denials_and_peeks_change_nothing(self) -> None:
        """However many denied takes and peeks there are, the bucket is full at the same time."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            await storage.take([request_of(_PER_SECOND, key, cost=10)])
            denied = await storage.take([request_of(_PER_SECOND, key, cost=10)])
            for _ in range(5):  # few, because on a real clock the bucket refills meanwhile
                await storage.take([request_of(_PER_SECOND, key, cost=10)])
                await storage.peek([request_of(_PER_SECOND, key)])
            await self.advance(wait_of(request_of(_PER_SECOND, key, cost=10), denied.levels[0]))
            assert (await storage.take([request_of(_PER_SECOND, key, cost=10)])).allowed

        self._run(scenario)

    def test_the_wait_in_a_denial_is_enough_and_no_longer_than_needed(self) -> None:
        """After exactly that wait the same take is allowed; a microsecond earlier it is not."""

        async def scenario(storage: StorageProtocol) -> None:
            for rule in (_PER_SECOND, _ODD):
                request = request_of(rule)
                capacity = request.spec.max_tokens
                while (verdict := await storage.take([request])).allowed:
                    capacity -= 1
                retry_after = wait_of(request, verdict.levels[0])
                assert retry_after > 0
                if self.exact_clock:
                    assert capacity == 0
                    await self.advance(retry_after - 0.000_001)
                    assert not (await storage.take([request])).allowed
                    retry_after = 0.000_001
                await self.advance(retry_after)
                assert (await storage.take([request])).allowed

        self._run(scenario)

    def test_tokens_come_back_at_the_rate_and_never_above_the_capacity(self) -> None:
        """Half a second refills half a second's tokens; a longer time never more than the capacity."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            await storage.take([request_of(_PER_SECOND, key, cost=10)])
            await self.advance(0.5)
            level = (await peeked(storage, request_of(_PER_SECOND, key)))[0]
            assert level == 5 if self.exact_clock else 5 <= level <= 10  # noqa: PLR2004
            await self.advance(0.7)
            assert (await peeked(storage, request_of(_PER_SECOND, key))) == [10]

        self._run(scenario)

    def test_several_buckets_are_paid_together_or_not_at_all(self) -> None:
        """If one of two buckets is empty, the other is not charged, whichever comes first."""

        async def scenario(storage: StorageProtocol) -> None:
            empty, full = new_key(), new_key()
            await storage.take([request_of(_DAILY, empty, cost=5)])
            for requests in ([empty, full], [full, empty]):
                verdict = await storage.take([request_of(_DAILY, key) for key in requests])
                assert not verdict.allowed
                assert sorted(tokens_in(request_of(_DAILY), bucket_level) for bucket_level in verdict.levels) == [0, 5]
            assert (await peeked(storage, request_of(_DAILY, empty), request_of(_DAILY, full))) == [0, 5]
            verdict = await storage.take([request_of(_DAILY, full), request_of(_DAILY, new_key(), cost=2)])
            assert verdict.allowed
            assert [tokens_in(request_of(_DAILY), bucket_level) for bucket_level in verdict.levels] == [4, 3]

        self._run(scenario)

    def test_a_refund_gives_back_and_never_overfills(self) -> None:
        """Refunded tokens can be spent; a bucket never holds more than its capacity; an unused bucket stays full."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            await storage.take([request_of(_DAILY, key, cost=5)])
            assert (await refunded(storage, request_of(_DAILY, key, cost=2))) == [2]
            assert (await storage.take([request_of(_DAILY, key, cost=2)])).allowed
            assert not (await storage.take([request_of(_DAILY, key)])).allowed
            assert (await refunded(storage, request_of(_DAILY, key, cost=4))) == [4]
            assert (await refunded(storage, request_of(_DAILY, key, cost=4))) == [5]
            assert (await refunded(storage, request_of(_DAILY))) == [5]

        self._run(scenario)

    def test_a_reset_fills_the_bucket(self) -> None:
        """After a reset the whole capacity can be spent once more; resetting an unused bucket does no harm."""

        async def scenario(storage: StorageProtocol) -> None:
            request = request_of(_DAILY)
            await storage.take([request_of(_DAILY, request.key, cost=5)])
            await storage.reset([request, request_of(_DAILY)])
            assert [(await storage.take([request])).allowed for _ in range(6)] == [True] * 5 + [False]

        self._run(scenario)

    def test_a_reset_of_all_fills_the_buckets_of_its_prefixes_and_no_others(self) -> None:
        """Each bucket whose name begins with one of the prefixes is full, all others are as they were.

        A storage that cannot tell them apart raises, and has changed nothing.
        """

        async def scenario(storage: StorageProtocol) -> None:
            if not isinstance(storage, ResettableStorage):
                raise SkipTest(f"{type(storage).__name__} cannot reset all buckets")
            space = new_key()
            names = [f"{space}:{end}" for end in ("ip:a", "ip:b", "user~#2:a", "user:[*]?:é", "other:a")]
            names += [f"{space}*:ip:a", f"{space[:-1]}:ip:a", new_key()]
            requests = [request_of(_DAILY, name, cost=5) for name in names]
            for request in requests:
                assert (await storage.take([request])).allowed
                assert not (await storage.take([request])).allowed
            try:
                await storage.reset_all([f"{space}:{scope}" for scope in ("ip:", "ip~", "user:", "user~")])
            except StorageError:
                assert await peeked(storage, *requests) == [0] * 8
                return
            assert await peeked(storage, *requests) == [5, 5, 5, 5, 0, 0, 0, 0]
            assert [(await storage.take([request])).allowed for request in requests] == [True] * 4 + [False] * 4
            await storage.reset_all([f"{space}:ip:"])
            assert await peeked(storage, *requests[:3]) == [5, 5, 0]

        self._run(scenario)

    def test_concurrent_takes_admit_exactly_the_capacity(self) -> None:
        """Of a hundred concurrent takes from a bucket of five, five are allowed."""

        async def scenario(storage: StorageProtocol) -> None:
            request = request_of(_DAILY)
            verdicts = await asyncio.gather(*[storage.take([request]) for _ in range(100)])
            assert sum(verdict.allowed for verdict in verdicts) == 5  # noqa: PLR2004

        self._run(scenario)

    def test_buckets_with_like_names_are_different(self) -> None:
        """Keys that differ in any byte are different buckets."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            names = [key, key + " ", key.upper(), key + "é", key + "e\u0301", key + ":", key + "%3A"]
            for name in names:
                await storage.take([request_of(_DAILY, name, cost=5)])
            assert (await peeked(storage, *[request_of(_DAILY, name) for name in names])) == [0] * len(names)
            assert (await peeked(storage, request_of(_DAILY, key + "é "))) == [5]

        self._run(scenario)

    def test_a_lower_capacity_takes_the_surplus_and_a_higher_one_adds_nothing(self) -> None:
        """A bucket in use keeps its tokens when its rule changes, up to the new capacity."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            smaller, larger = RateLimitRule.per_day(2), RateLimitRule.per_day(50)
            await storage.take([request_of(_DAILY, key)])
            await storage.take([request_of(_DAILY, key)])
            assert (await peeked(storage, request_of(larger, key))) == [3]
            assert (await peeked(storage, request_of(smaller, key))) == [2]
            verdict = await storage.take([request_of(smaller, key)])
            assert verdict.allowed
            assert tokens_in(request_of(smaller), verdict.levels[0]) == 1
            assert (await peeked(storage, request_of(larger, key))) == [1]

        self._run(scenario)

    def test_the_wait_in_a_denial_after_a_rule_change_is_right(self) -> None:
        """From the first denial on the new rate counts: the wait is right, whether the old rate was lower or higher."""

        async def scenario(storage: StorageProtocol) -> None:
            hourly = RateLimitRule.per_hour(36_000, burst=5)  # ten a second, of another capacity
            for old, new in ((_DAILY, hourly), (_PER_SECOND, hourly)):
                key = new_key()
                await storage.take([request_of(old, key, cost=old.max_tokens)])
                request = request_of(new, key, cost=5)
                denied = await storage.take([request])
                assert not denied.allowed
                retry_after = wait_of(request, denied.levels[0])
                if self.exact_clock:
                    await self.advance(retry_after - 0.000_001)
                    assert not (await storage.take([request])).allowed
                    retry_after = 0.000_001
                await self.advance(retry_after)
                assert (await storage.take([request])).allowed

        self._run(scenario)

    def test_the_largest_bucket_is_counted_to_the_token(self) -> None:
        """At the limit of the arithmetic, nothing is lost to floating point."""

        async def scenario(storage: StorageProtocol) -> None:
            key = new_key()
            capacity = _LARGEST.max_tokens
            verdict = await storage.take([request_of(_LARGEST, key, cost=capacity - 1)])
            assert verdict.allowed
            assert tokens_in(request_of(_LARGEST), verdict.levels[0]) == 1
            assert (await storage.take([request_of(_LARGEST, key)])).allowed
            assert not (await storage.take([request_of(_LARGEST, key)])).allowed

        self._run(scenario)

    def test_closing_twice_is_harmless(self) -> None:
        """Several owners of a storage may each call `aclose`."""

        async def scenario(storage: StorageProtocol) -> None:
            await storage.take([request_of(_DAILY)])
            await storage.aclose()

        self._run(scenario)


_DAILY = RateLimitRule.per_day(5)  # refills too slowly to show in a test
_PER_SECOND = RateLimitRule.per_second(10)
_ODD = RateLimitRule(max_tokens=3, refill_rate=7 * 60, scope="ip", cost=1)  # 1/7 s is no whole number of microseconds
_LARGEST = RateLimitRule.per_day(52_111, burst=52_100)  # 52,100 * 86.4e9 units, just below 2**52
