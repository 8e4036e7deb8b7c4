"""Denials that are answered without the server: never wrong, and never for long."""

import asyncio
import time
import tracemalloc
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import (
    InlineEventBus,
    RateLimitCheckDenied,
    RateLimitRule,
    RedisStorage,
    Success,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import wait_us
from sluicegate.infrastructure.redis.denial_cache import MAX_AGE_US, MAX_BYTES, DenialCache
from sluicegate.testing import FakeClock
from support.bucket_requests import bucket_request
from support.redis_servers import RedisServer

RULE = RateLimitRule(5, 300, "ip")
SLOW = RateLimitRule(3, 3, "ip")
DAILY = RateLimitRule.per_day(2)
LOGIN = "POST /login"


def request(rule: RateLimitRule = RULE, cost: int = 1, key: str = "k") -> BucketRequest:
    """Ask a bucket for tokens."""
    return bucket_request(rule, key, cost=cost)


class DistantServer:
    """A server with a clock of its own, a cache in front of it, and a network between them that takes time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = DenialCache(clock=self.clock)
        self.table = BucketTable(100)

    @property
    def server_us(self) -> int:
        """The server's clock, which has nothing to do with ours."""
        return self.clock.now_us() + 123_456_789_123

    def pass_us(self, microseconds: int) -> None:
        """Let time go by."""
        self.clock.advance(microseconds / 1e6)

    def ask(self, requests: list[BucketRequest], there_us: int = 0, back_us: int = 0) -> Verdict:
        """Take from the server, and store the verdict."""
        begun = self.cache.begin()
        self.pass_us(there_us)
        verdict = self.table.take(tuple(requests), self.server_us)
        self.pass_us(back_us)
        self.cache.store(requests, verdict, begun)
        return verdict

    def would_deny(self, requests: list[BucketRequest]) -> bool:
        """Return what the server would say now, without asking it."""
        levels = self.table.peek(requests, self.server_us)
        return any(bucket_level.level < one.cost_units for one, bucket_level in zip(requests, levels, strict=True))


def wait_of(requests: list[BucketRequest], verdict: Verdict) -> int:
    """Return the longest wait that a denial tells, in microseconds."""
    return max(
        wait_us(one.spec, one.cost_units, bucket_level.level, bucket_level.effective_in_us)
        for one, bucket_level in zip(requests, verdict.levels, strict=True)
        if bucket_level.level < one.cost_units
    )


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([(RULE, "a"), (RULE, "b"), (SLOW, "c")]), min_size=1, max_size=3, unique=True),
            st.integers(1, 3),
            st.integers(0, 3_000),
            st.integers(0, 3_000),
            st.one_of(st.integers(0, 10), st.integers(0, 400_000), st.integers(0, 3_000_000)),
        ),
        max_size=40,
    )
)
def test_no_check_is_denied_that_would_pass_and_every_wait_is_the_servers(steps: list[tuple]) -> None:
    """What is cached is true at that instant, and ends when the server's own answer said that it would."""
    server = DistantServer()
    ends: dict[tuple[str, ...], tuple[int, int]] = {}
    for buckets, cost, there_us, back_us, passed_us in steps:
        requests = [request(rule, cost, key) for rule, key in buckets]
        name = tuple(key for _, key in buckets)
        cached = server.cache.lookup(requests)
        if cached is None:
            verdict = server.ask(requests, there_us, back_us)
            ends.pop(name, None)
            if not verdict.allowed:
                ends[name] = cost, server.clock.now_us() + wait_of(requests, verdict)
        else:
            assert not cached.allowed
            assert server.would_deny(requests)
            denied_cost, end_us = ends[name]
            assert cost >= denied_cost
            assert all(level.level >= 0 for level in cached.levels)
            if cost == denied_cost:
                assert server.clock.now_us() + wait_of(requests, cached) == end_us
        server.pass_us(passed_us)


def test_a_denial_is_cached_until_the_question_and_the_wait_have_passed() -> None:
    """Counted from the question, which the server cannot have read before: then it is asked again, not later."""
    server = DistantServer()
    one = [request()]
    for _ in range(5):
        assert server.ask(one).allowed
    denied = server.ask(one, 3_000, 5_000)
    wait = wait_of(one, denied)
    assert wait == 200_000 - 3_000
    server.pass_us(wait - 8_000 - 1)
    assert server.cache.lookup(one) is not None
    server.pass_us(1)
    assert server.cache.lookup(one) is None


def test_only_costs_from_the_denied_one_up_are_denied() -> None:
    """Three tokens were too many; two might be there."""
    server = DistantServer()
    assert server.ask([request(SLOW, 2)]).allowed
    assert not server.ask([request(SLOW, 2)]).allowed
    assert server.cache.lookup([request(SLOW, 1)]) is None
    assert server.cache.lookup([request(SLOW, 2)]) is not None
    dearer = server.cache.lookup([request(SLOW, 3)])
    assert dearer is not None
    assert wait_of([request(SLOW, 3)], dearer) == 40_000_000


def test_an_equal_spec_is_the_same_spec() -> None:
    """Specs are told apart by their text, not by their object."""
    server = DistantServer()
    assert server.ask([request(SLOW, 3)]).allowed
    assert not server.ask([request(SLOW)]).allowed
    copied = request(SLOW)
    assert server.cache.lookup([BucketRequest("k", copy(copied.spec), copied.cost_units)])


def test_another_rule_is_another_question() -> None:
    """A rule that was changed has another spec, and what the old one denied says nothing about it."""
    server = DistantServer()
    assert server.ask([request(SLOW, 3)]).allowed
    assert not server.ask([request(SLOW)]).allowed
    assert server.cache.lookup([request(DAILY)]) is None


def test_several_buckets_are_cached_together_or_not_at_all() -> None:
    """Of a check with two rules the answer needs both; another check that shares one of them is asked for."""
    server = DistantServer()
    both = [request(SLOW, 1, "ip"), request(RULE, 1, "all")]
    for _ in range(3):
        assert server.ask(both).allowed
    assert not server.ask(both).allowed
    server.pass_us(250_000)
    cached = server.cache.lookup(both)
    assert cached is not None
    assert cached.levels == server.table.peek(both, server.server_us)
    assert server.cache.lookup([both[1]]) is None
    assert server.cache.lookup([both[0]]) is None


def test_a_denial_is_believed_for_a_second_at_most() -> None:
    """So that what another process resets shows."""
    server = DistantServer()
    assert server.ask([request(SLOW, 3)]).allowed
    assert not server.ask([request(SLOW)]).allowed
    server.pass_us(MAX_AGE_US - 1)
    assert server.cache.lookup([request(SLOW)]) is not None
    server.pass_us(1)
    assert server.cache.lookup([request(SLOW)]) is None
    assert MAX_AGE_US <= 1_000_000


def test_what_is_forgotten_is_asked_for_at_once() -> None:
    """Its own bucket, any bucket of a check with several, and no other."""
    server = DistantServer()
    a, b, pair = [request(SLOW, 1, "a")], [request(SLOW, 1, "b")], [request(SLOW, 1, "c"), request(SLOW, 1, "d")]
    for requests in (a, b, pair):
        while server.ask(requests).allowed:
            pass
        assert server.cache.lookup(requests) is not None
    server.cache.forget([request(SLOW, 1, "d"), request(SLOW, 1, "a")])
    assert server.cache.lookup(a) is None
    assert server.cache.lookup(pair) is None
    assert server.cache.lookup(b) is not None


def test_an_answer_from_before_a_reset_is_not_remembered() -> None:
    """A denial that was on its way while somebody reset the bucket may be out of date."""
    cache, one = DenialCache(clock=FakeClock()), [request(SLOW)]
    begun = cache.begin()
    cache.forget(one)
    cache.store(one, Verdict(False, (BucketLevel(0, 0),)), begun)
    assert cache.lookup(one) is None
    cache.store(one, Verdict(False, (BucketLevel(0, 0),)), cache.begin())
    assert cache.lookup(one) is not None


def test_a_check_that_passes_forgets_the_denial_of_a_dearer_one() -> None:
    """It has changed the level that a wait was derived from."""
    server = DistantServer()
    assert server.ask([request(SLOW, 1)]).allowed
    assert not server.ask([request(SLOW, 3)]).allowed
    assert server.ask([request(SLOW, 1)]).allowed
    assert server.cache.lookup([request(SLOW, 3)]) is None


@pytest.mark.parametrize("several", [False, True])
def test_the_number_of_denials_is_bounded(several: bool) -> None:
    """The oldest is forgotten first; one that was renewed is young again."""
    cache = DenialCache(clock=FakeClock(), max_denials=3)

    def asked_for(name: str) -> list[BucketRequest]:
        return [request(SLOW, 1, name), *([request(SLOW, 1, "other")] if several else [])]

    denied = Verdict(False, (BucketLevel(0, 0),) * (2 if several else 1))
    for name in "abcbde":
        cache.store(asked_for(name), denied, cache.begin())
    assert len(cache) == 3
    assert [name for name in "abcde" if cache.lookup(asked_for(name))] == ["b", "d", "e"]


def test_forgetting_one_bucket_of_many_denials_drops_all_of_them() -> None:
    """A bucket that all clients share is forgotten at once, in every check that it has a part in, and in no other."""
    cache = DenialCache(clock=FakeClock())
    denied = Verdict(False, (BucketLevel(0, 0), BucketLevel(0, 0)))
    pairs = [[request(SLOW, 1, f"client-{number}"), request(SLOW, 1, "all")] for number in range(100)]
    other = [request(SLOW, 1, "client-0"), request(SLOW, 1, "another")]
    for requests in (*pairs, other):
        cache.store(requests, denied, cache.begin())
    cache.forget([request(SLOW, 1, "all")])
    assert not any(cache.lookup(requests) for requests in pairs)
    assert cache.lookup(other) is not None
    cache.store(pairs[0], denied, cache.begin())
    assert cache.lookup(pairs[0]) is not None


def test_more_forgotten_buckets_than_are_kept_forget_what_is_older() -> None:
    """Whose buckets were forgotten is not kept for ever: a denial from before the oldest that is kept does not count."""
    cache, one = DenialCache(clock=FakeClock()), [request(SLOW, 1, "forgotten first")]
    denied = Verdict(False, (BucketLevel(0, 0),))
    cache.store(one, denied, cache.begin())
    begun = cache.begin()
    cache.forget(one)
    for number in range(3_000):
        cache.forget([request(SLOW, 1, f"other-{number}")])
    assert cache.lookup(one) is None
    cache.store(one, denied, begun)
    assert cache.lookup(one) is None
    cache.store(one, denied, cache.begin())
    assert cache.lookup(one) is not None


def test_the_memory_that_denials_take_is_bounded() -> None:
    """Long keys count: the oldest denials go before the bound is passed."""
    cache = DenialCache(clock=FakeClock(), max_bytes=100_000)
    denied = Verdict(False, (BucketLevel(0, 0),))
    for number in range(200):
        cache.store([request(SLOW, 1, f"{number}" + "x" * 1_000)], denied, cache.begin())
    assert 60 <= len(cache) <= 100
    assert cache.lookup([request(SLOW, 1, "199" + "x" * 1_000)]) is not None
    assert cache.lookup([request(SLOW, 1, "0" + "x" * 1_000)]) is None


async def test_a_flood_is_answered_without_the_server(redis_server: RedisServer) -> None:
    """A thousand denied checks cost the server one for each second that they take, and count as denials all the same."""
    client = redis_server.client()
    bus, heard = InlineEventBus(), []
    bus.subscribe(RateLimitCheckDenied, heard.append)
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=10_000)
    rules = {LOGIN: DAILY, "GET /": (DAILY, RateLimitRule.per_hour(3))}
    for limiter in (
        TokenBucketAdapter(storage=storage, rules=rules),
        TokenBucketAdapter(storage=storage, rules=rules, event_bus=bus, key_prefix="heard"),
    ):
        for endpoint in rules:
            before = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
            started = time.monotonic()
            answers = [await limiter.is_allowed(endpoint=endpoint, identifier="flood") for _ in range(1_000)]
            took_s = time.monotonic() - started
            results = [answer.value for answer in answers if isinstance(answer, Success)]
            assert [result.allowed for result in results] == [True] * 2 + [False] * 998
            waits = [result.retry_after for result in results[2:]]
            assert waits == sorted(waits, reverse=True)
            assert 0 < waits[0] - waits[-1] <= took_s + 0.001
            calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
            assert 3 <= calls <= 4 + took_s
    assert len(heard) == 2 * 998
    await storage.aclose()


async def test_reset_and_refund_show_at_once_here_and_within_a_second_elsewhere(redis_server: RedisServer) -> None:
    """Two storages stand for two processes."""
    here, there = (RedisStorage.from_url(redis_server.url, deadline_ms=10_000) for _ in range(2))
    mine, theirs = (TokenBucketAdapter(storage=storage, rules={LOGIN: DAILY}) for storage in (here, there))

    async def allowed(limiter: TokenBucketAdapter) -> bool:
        match await limiter.is_allowed(endpoint=LOGIN, identifier="x"):
            case Success(value=result):
                return result.allowed
        return False

    for give_back in (mine.reset, mine.refund):
        while await allowed(mine):
            pass
        assert not await allowed(theirs)
        asked_s = time.monotonic()
        assert await give_back(endpoint=LOGIN, identifier="x") == Success(None)
        assert await allowed(mine)
        assert await mine.reset(endpoint=LOGIN, identifier="x") == Success(None)
        while not await allowed(theirs):
            await asyncio.sleep(0.01)
            assert time.monotonic() - asked_s < 30
    await here.aclose()
    await there.aclose()


def test_the_sync_face_remembers_too_and_may_be_told_not_to(redis_server: RedisServer) -> None:
    """Plain calls on Redis; with the memory switched off, each check is the server's."""
    client = redis_server.client()
    for remember in (True, False):
        with SyncRedisStorage.from_url(redis_server.url, deadline_ms=10_000, remember_denials=remember) as storage:
            limiter = SyncTokenBucketAdapter(storage=storage, rules={LOGIN: DAILY}, key_prefix=f"sync-{remember}")
            before = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
            started = time.monotonic()
            allowed = [limiter.is_allowed(endpoint=LOGIN, identifier="x").value.allowed for _ in range(60)]
            assert allowed == [True] * 2 + [False] * 58
            calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
            assert calls <= 4 + time.monotonic() - started if remember else calls == 60
            assert limiter.reset(endpoint=LOGIN, identifier="x") == Success(None)
            assert limiter.is_allowed(endpoint=LOGIN, identifier="x").value.allowed


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_the_bound_in_bytes_holds_for_texts_of_every_alphabet(letter: str) -> None:
    """Python keeps a text that is not ASCII with four bytes a character: the bound is about memory, not characters."""
    cache = DenialCache()
    tracemalloc.start()
    try:
        for number in range(15_000):
            asked = [bucket_request(RateLimitRule.per_day(5), key=f"rate_limit:ip:{number:06}{letter * 250}:e")]
            cache.store(asked, Verdict(allowed=False, levels=(BucketLevel(0, 0),)), cache.begin())
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(cache) > 1_000
    assert taken < 1.5 * MAX_BYTES
