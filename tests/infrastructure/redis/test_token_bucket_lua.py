"""The script against the arithmetic in Python: the same sequences, the same answers, to the bit."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.domain.buckets.bucket_spec import BucketSpec
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.buckets.token_bucket import full_at_us
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.redis.calls import PEEK, REFUND, RESET, TAKE, Call
from sluicegate.infrastructure.redis.script import Script
from support.bucket_model import START_US, Buckets, Step, drawn_request, specs, steps
from support.redis_servers import RedisServer
from support.scripted_buckets import ScriptedBuckets, evaluate
from support.shared_memory import SharedBucketsAt


@pytest.fixture(scope="module", params=["redis_7_server", "redis_6_server"])
def lua(request: pytest.FixtureRequest) -> ScriptedBuckets:
    """Return the script on each version of Redis."""
    return ScriptedBuckets(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> SharedBucketsAt:
    """Return buckets in shared memory."""
    return SharedBucketsAt(tmp_path_factory.mktemp("shared") / "buckets")


@given(st.lists(specs, min_size=3, max_size=3), st.lists(steps, min_size=1, max_size=25), st.booleans())
def test_python_lua_and_shared_memory_agree_to_the_bit(
    lua: ScriptedBuckets, shared: SharedBucketsAt, given_specs: list[BucketSpec], sequence: list[Step], one: bool
) -> None:
    """Levels and verdicts are the same through refills, denials, rule changes and clocks that step back."""
    lua.client.flushall()
    shared.storage.clear()
    buckets = Buckets()
    now_us = START_US
    while sequence:
        now_us += sequence[0][1]
        # Steps of one instant travel in one call, or one by one: it must make no difference.
        together = 1
        while not one and together < len(sequence) and sequence[together][1] == 0:
            together += 1
        calls = [
            (verb, [drawn_request(given_specs, *request) for request in requests])
            for verb, _, requests in sequence[:together]
        ]
        expected = [buckets.call(verb, requests, now_us) for verb, requests in calls]
        assert lua.call(calls, now_us) == expected
        assert [shared.call(verb, requests, now_us) for verb, requests in calls] == expected
        sequence = sequence[together:]


@pytest.mark.parametrize("tokens_left", [2**52 - 1, 2**52 - 12_345, 9_223_372_037, 8, 3])
def test_a_change_from_fine_units_to_coarse_ones_keeps_the_bound(lua: ScriptedBuckets, tokens_left: int) -> None:
    """Old tokens times new units may be beyond 64 bits: the new capacity is the most, in either language."""
    lua.client.flushall()
    old = BucketSpec(2**52, 1, 1, 1, 2**52)
    new = BucketSpec(8 * 10**9, 10**9, 1, 1, 8 * 10**9)
    buckets = Buckets()
    for verb, spec, cost in ((TAKE, old, 2**52 - tokens_left), (PEEK, new, 0), (TAKE, new, 10**9), (PEEK, new, 0)):
        asked = [BucketRequest("k", spec, cost)]
        assert [buckets.call(verb, asked, START_US)] == lua.call([(verb, asked)], START_US)


@given(specs, st.integers(0, 100), st.integers(-100, 10**12))
def test_what_is_stored_is_what_memory_holds(lua: ScriptedBuckets, spec: BucketSpec, cost: int, later_us: int) -> None:
    """The value reads `level last spec`, with every digit."""
    lua.client.flushall()
    units = min(spec.capacity, max(1, cost) * spec.units_per_token)
    for now_us in (START_US, START_US + later_us):
        lua.call([(TAKE, [BucketRequest("k", spec, units)])], now_us)
    level, last, *text = map(int, str(lua.client.get("k")).split())
    assert text == [spec.capacity, spec.units_per_token, spec.units_per_tick, spec.tick_us, spec.full_ticks]
    table = BucketTable(1)
    for now_us in (START_US, START_US + later_us):
        table.take((BucketRequest("k", spec, units),), now_us)
    bucket = table._find("k")
    assert bucket is not None
    assert (level, last) == (bucket.level, bucket.last)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        "1",
        "1 2",
        "1 2 3",
        "-1 2 5 1 1 1 5",
        "nan 0 x",
        "1e3 0 x",
        "5 0 0 0 0 0 0",
        "5 0 5 0 1 1 5",
        "\x00" * 40,
    ],
)
def test_a_value_that_is_no_bucket_is_a_full_bucket_and_is_replaced(lua: ScriptedBuckets, value: str) -> None:
    """Whatever lies at a bucket's key, the limit holds from the first check on."""
    lua.client.flushall()
    lua.client.set("k", value)
    rule = RateLimitRule.per_minute(5)
    request = BucketRequest("k", rule.spec, rule.spec.units_per_token)
    allowed = [lua.call([(TAKE, [request])], START_US)[0].allowed for _ in range(9)]
    assert allowed == [True] * 5 + [False] * 4


def test_a_key_of_another_type_is_a_full_bucket_and_is_replaced(lua: ScriptedBuckets) -> None:
    """A hash at a bucket's key neither admits for ever nor fails the checks that travel with it."""
    lua.client.flushall()
    lua.client.hset("k", "tokens", "1")
    rule = RateLimitRule.per_minute(5)
    request = BucketRequest("k", rule.spec, rule.spec.units_per_token)
    other = BucketRequest("other", rule.spec, rule.spec.units_per_token)
    answers = lua.call([(TAKE, [request]), (TAKE, [other])] * 6, START_US)
    assert [answer.allowed for answer in answers[::2]] == [True] * 5 + [False]
    assert [answer.allowed for answer in answers[1::2]] == [True] * 5 + [False]


def test_a_level_or_an_instant_that_cannot_be_is_bounded(lua: ScriptedBuckets) -> None:
    """A value with more units than the bucket holds, or from far in the future, neither admits nor denies for long."""
    rule = RateLimitRule.per_minute(5)
    spec = rule.spec
    text = f"{spec.capacity} {spec.units_per_token} {spec.units_per_tick} {spec.tick_us} {spec.full_ticks}"
    request = BucketRequest("k", spec, spec.units_per_token)
    for level, last in ((10**15, START_US), (10**15, 10**16), (0, 10**16)):
        lua.client.set("k", f"{level} {last} {text}")
        allowed = sum(lua.call([(TAKE, [request])], START_US)[0].allowed for _ in range(20))
        assert allowed <= 5
        assert lua.call([(TAKE, [request])], START_US + 60_000_000)[0].allowed


def test_denials_and_peeks_write_nothing(redis_server: RedisServer) -> None:
    """A denied check, a peek and a refund of an absent bucket leave value and expiry as they were."""
    client = redis_server.client()
    script = Script()
    rule = RateLimitRule.per_hour(2)
    request = BucketRequest("k", rule.spec, 2 * rule.spec.units_per_token)
    _real(client, script, [(TAKE, [request])])
    client.pexpire("k", 1_000_000)
    before = client.get("k")
    client.config_resetstat()
    absent = BucketRequest("absent", rule.spec, rule.spec.units_per_token)
    answers = _real(
        client, script, [(TAKE, [request]), (PEEK, [request, absent]), (REFUND, [absent]), (RESET, [absent])]
    )
    assert answers[0].allowed is False
    stats: Any = client.info("commandstats")
    assert "cmdstat_set" not in stats
    assert "cmdstat_del" not in stats
    assert client.get("k") == before
    assert client.pttl("k") <= 1_000_000
    assert client.exists("absent") == 0


def test_one_denying_onekeeps_the_others_unpaid(redis_server: RedisServer) -> None:
    """A check of several buckets is all or nothing, and so are the checks beside it in the same call."""
    client = redis_server.client()
    script = Script()
    roomy, tight = RateLimitRule.per_hour(10), RateLimitRule.per_hour(1)
    pair = [
        BucketRequest("roomy", roomy.spec, roomy.spec.units_per_token),
        BucketRequest("tight", tight.spec, tight.spec.capacity),
    ]
    verdicts = _real(client, script, [(TAKE, pair), (TAKE, pair), (TAKE, pair[:1])])
    assert [verdict.allowed for verdict in verdicts] == [True, False, True]
    assert verdicts[2].levels[0].level // roomy.spec.units_per_token == 8


@given(specs, st.integers(1, 1000))
def test_every_key_expires_but_not_before_it_is_full(
    redis_7_server: RedisServer, spec: BucketSpec, tokens: int
) -> None:
    """The expiry is at least the time to full and at most some seconds more, whatever the rule."""
    client = redis_7_server.client()
    client.flushall()
    script = Script()
    _real(client, script, [(TAKE, [BucketRequest("k", spec, min(spec.capacity, tokens * spec.units_per_token))])])
    level, last, *_ = map(int, str(client.get("k")).split())
    full_ms = full_at_us(spec, level, last) / 1000
    ttl_ms = int(client.pttl("k"))  # type: ignore[arg-type]
    seconds, microseconds = client.time()  # type: ignore[misc]
    expires_ms = seconds * 1000 + microseconds / 1000 + ttl_ms
    assert ttl_ms > 0
    assert expires_ms >= full_ms
    assert expires_ms <= full_ms + 1_010 + spec.tick_us / 1000 + 5_000


SWIFT = RateLimitRule(max_tokens=1_000_000, refill_rate=1_000_000, scope="ip")
"""A token takes 60 microseconds: takes of one bucket seldom move the second in which it will be full."""


def test_an_expiry_that_will_do_is_kept(redis_server: RedisServer) -> None:
    """A bucket that will be full in the same second as before keeps its expiry; in a later one it gets a new one."""
    client = redis_server.client()
    script = Script()
    unit = SWIFT.spec.units_per_token
    _real(client, script, [(TAKE, [BucketRequest("k", SWIFT.spec, 500_000 * unit)])])
    client.pexpire("k", 1_000_000)
    _real(client, script, [(TAKE, [BucketRequest("k", SWIFT.spec, unit)])] * 3)
    assert int(client.pttl("k")) > 990_000  # type: ignore[arg-type]
    _real(client, script, [(TAKE, [BucketRequest("k", SWIFT.spec, 100_000 * unit)])])
    assert int(client.pttl("k")) < 60_000  # type: ignore[arg-type]


@given(specs | st.just(SWIFT.spec), st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_every_key_that_is_written_again_lives_until_it_is_full(
    redis_7_server: RedisServer, spec: BucketSpec, costs: list[int]
) -> None:
    """After each of several takes and refunds the expiry is at least the time to full."""
    client = redis_7_server.client()
    client.flushall()
    script = Script()
    for cost in costs:
        verb = TAKE if cost else REFUND
        _real(
            client,
            script,
            [(verb, [BucketRequest("k", spec, min(spec.capacity, max(1, cost) * spec.units_per_token))])],
        )
        if client.exists("k"):
            assert _spare_ms(client, "k", spec) >= 0


def test_an_expiry_of_an_earlier_release_will_do_as_well(redis_7_server: RedisServer) -> None:
    """Its keys expired a second after they were full, to the millisecond, wherever in a second that was."""
    client = redis_7_server.client()
    script = Script()
    spec = RateLimitRule.per_minute(50).spec  # a token takes 1.2 seconds
    text = f"{spec.capacity} {spec.units_per_token} {spec.units_per_tick} {spec.tick_us} {spec.full_ticks}"
    for part in range(10):
        for cost in (1, spec.units_per_token // 2, spec.units_per_token):
            level, last = spec.capacity // 2, (time.time_ns() // 1000 + part * 100_000) // spec.tick_us
            client.set("k", f"{level} {last} {text}", pxat=-(-full_at_us(spec, level, last) // 1000) + 1000)
            _real(client, script, [(TAKE, [BucketRequest("k", spec, cost)])])
            assert _spare_ms(client, "k", spec) >= 0


def _spare_ms(client: redis.Redis, key: str, spec: BucketSpec) -> float:
    """Return how long a key outlives its refill."""
    level, last, *_ = map(int, str(client.get(key)).split())
    expires_ms = int(client.execute_command("PEXPIRETIME", key))  # type: ignore[no-untyped-call]
    return expires_ms - full_at_us(spec, level, last) / 1000


@given(specs, st.integers(1, 1000))
def test_where_a_long_is_short_the_same_is_stored(lua: ScriptedBuckets, spec: BucketSpec, cost: int) -> None:
    """A server whose C `long` has 32 bits writes the same digits by the other format."""
    one = BucketRequest("k", spec, min(spec.capacity, cost * spec.units_per_token))
    stored: list[object] = []
    for digits in ("'4503599627370496'", "'0'"):
        lua.client.flushall()
        text, digest = lua.script.text, lua.script.digest
        try:
            lua.script.text = text.replace("'4503599627370496'", digits)
            lua.script.digest = str(lua.client.script_load(lua.script.text))
            lua.call([(TAKE, [one])], START_US)
        finally:
            lua.script.text, lua.script.digest = text, digest
        stored.append(lua.client.get("k"))
    assert stored[0] == stored[1]
    assert stored[0] is not None


def test_after_a_clock_that_stepped_back_the_key_still_outlives_its_refill(redis_server: RedisServer) -> None:
    """A bucket that counts on from an instant ahead of the server's clock expires when it is full, not earlier."""
    client = redis_server.client()
    script = Script()
    rule = RateLimitRule.per_minute(60)
    spec = rule.spec
    text = f"{spec.capacity} {spec.units_per_token} {spec.units_per_tick} {spec.tick_us} {spec.full_ticks}"
    ahead_us = time.time_ns() // 1000 + 30_000_000
    client.set("k", f"{spec.units_per_token} {ahead_us} {text}")
    verdict = _real(client, script, [(TAKE, [BucketRequest("k", spec, spec.units_per_token)])])[0]
    assert verdict.allowed
    assert verdict.levels[0].effective_in_us > 0
    assert 85_000 < int(client.pttl("k")) < 92_000  # type: ignore[arg-type]


def test_the_digest_is_the_servers(redis_server: RedisServer) -> None:
    """The digest that is computed here names the script there."""
    script = Script()
    assert redis_server.client().script_load(script.text) == script.digest


def _real(client: redis.Redis, script: Script, steps_: Sequence[tuple[int, Sequence[BucketRequest]]]) -> list[Any]:
    return evaluate(client, "EVAL", script.text, [Call(verb, requests, Future(), 0.0) for verb, requests in steps_])
