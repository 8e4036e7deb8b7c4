"""Claims in the script against the arithmetic in Python: the same sequences, the same answers, to the bit."""

from collections.abc import Sequence
from concurrent.futures import Future
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_request import BucketRequest, ClaimTerms
from sluicegate.domain.buckets.bucket_spec import BucketSpec, bucket_spec
from sluicegate.domain.buckets.bucket_table import BucketTable
from sluicegate.domain.claims.claim import AS_RESERVED, CHARGE, HOLD, KEPT_US, PAID, RELEASE
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.redis.calls import (
    EXTEND,
    PEEK,
    REFUND,
    RESERVE,
    RESET,
    SETTLE,
    TAKE,
    Call,
    ClaimCall,
    reserve_call,
)
from sluicegate.infrastructure.redis.script import Script
from support.bucket_model import START_US, drawn_request, elapsed, specs
from support.redis_servers import RedisServer
from support.scripted_buckets import ScriptedBuckets, evaluate


@pytest.fixture(scope="module", params=["redis_7_server", "redis_6_server"])
def lua(request: pytest.FixtureRequest) -> ScriptedBuckets:
    """Return the script on each version of Redis."""
    return ScriptedBuckets(request.getfixturevalue(request.param))


# Beyond that Lua's doubles round what is told of a hold: an instant centuries ahead, by microseconds.
tellable = specs.filter(lambda spec: spec.full_ticks * spec.tick_us <= 2**52)

Step = tuple[int, int, int, int, int, int, int]
"""Verb, microseconds since the step before, spec, which cost, number, kind, microseconds that a claim lasts."""

ttls = st.one_of(st.integers(1, 10), st.integers(1, 5_000_000), st.integers(1, KEPT_US))
steps = st.tuples(
    st.sampled_from([TAKE, TAKE, RESERVE, RESERVE, RESERVE, SETTLE, SETTLE, EXTEND, PEEK, REFUND, RESET]),
    st.one_of(st.just(0), elapsed),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(1, 5),
    st.sampled_from([PAID, CHARGE, RELEASE, HOLD]),
    ttls,
)


def _call(step: Step, requests: Sequence[BucketRequest]) -> Call:
    verb, _, _, cost, number, kind, ttl_us = step
    terms = None
    if verb == RESERVE:
        terms = reserve_call(number, [ClaimTerms(kind, ttl_us)])
    elif verb == SETTLE:
        terms = ClaimCall(number, (requests[0].spec.capacity // (1 + cost),))
    elif verb == EXTEND:
        terms = ClaimCall(number, (ttl_us,))
    return Call(verb, requests, Future(), 0.0, terms)


def _in_memory(table: BucketTable, step: Step, requests: tuple[BucketRequest, ...], now_us: int) -> Any:
    verb, _, _, cost, number, kind, ttl_us = step
    verbs = {
        TAKE: lambda: table.take(requests, now_us),
        PEEK: lambda: table.peek(requests, now_us),
        REFUND: lambda: table.refund(requests, now_us),
        RESET: lambda: table.reset(requests, now_us) and None,
        RESERVE: lambda: table.reserve(requests, number, [ClaimTerms(kind, ttl_us)], now_us),
        SETTLE: lambda: table.settle(requests, number, [requests[0].spec.capacity // (1 + cost)], now_us),
        EXTEND: lambda: table.extend(requests, number, [ttl_us], now_us),
    }
    return verbs[verb]()


def _requests(given_specs: list[BucketSpec], step: Step) -> tuple[BucketRequest, ...]:
    verb, _, spec_number, cost, number, _, ttl_us = step
    request = drawn_request(given_specs, 0, spec_number, cost)
    if verb == SETTLE:
        costs = [AS_RESERVED, 0, request.cost_units, request.cost_units + request.spec.capacity]
        return (request.with_cost(costs[(number + ttl_us) % 4]),)
    return (request,)


@given(st.lists(tellable, min_size=2, max_size=2), st.lists(steps, min_size=1, max_size=30), st.booleans())
@example(  # a change of rules and a clock that stepped back, and then two checks in one call
    given_specs=[bucket_spec(1, Fraction(13384)), bucket_spec(1, Fraction(60))],
    sequence=[
        (RESERVE, 0, 0, 0, 1, CHARGE, 1),
        (TAKE, 0, 1, 0, 1, 0, 1),
        (TAKE, -4484, 0, 0, 1, 0, 1),
        (TAKE, 0, 0, 0, 1, 0, 1),
    ],
    one=False,
)
@example(  # a claim that is over by the ticks of the new rule, and not by those of the old one
    given_specs=[bucket_spec(9, Fraction(60)), BucketSpec(1, 1, 1, 2, 1)],
    sequence=[
        *[(TAKE, 0, 0, 0, 1, 0, 1)] * 8,
        (TAKE, 0, 0, 1, 1, 0, 1),
        (RESERVE, 0, 1, 0, 1, RELEASE, 1),
        (TAKE, 1, 0, 0, 1, 0, 1),
        (TAKE, 0, 0, 0, 1, 0, 1),
    ],
    one=False,
)
def test_python_and_lua_agree_to_the_bit(
    lua: ScriptedBuckets, given_specs: list[BucketSpec], sequence: list[Step], one: bool
) -> None:
    """Reservations, holds, settlements, debt, ends, changes of rules and clocks that step back: the same in both."""
    lua.client.flushall()
    table = BucketTable(1)
    now_us = START_US
    live: set[int] = set()
    while sequence:
        now_us += sequence[0][1]
        together = 1
        while not one and together < len(sequence) and sequence[together][1] == 0:
            together += 1
        calls: list[Call] = []
        expected: list[Any] = []
        for step in sequence[:together]:
            if step[0] == RESERVE and step[4] in live:
                continue  # callers draw each number once
            if step[0] == RESERVE:
                live.add(step[4])
            requests = _requests(given_specs, step)
            calls.append(_call(step, requests))
            expected.append(_in_memory(table, step, requests, now_us))
            live &= _numbers(table)
        if calls:
            assert lua.send(calls, now_us) == expected
        sequence = sequence[together:]


def _numbers(table: BucketTable) -> set[int]:
    bucket = table._find("k0")
    return set() if bucket is None or bucket.claims is None else set(bucket.claims._by_number)


RULE = RateLimitRule(100, 600, "ip")


def _reserve(number: int, tokens: int, kind: int = CHARGE, ttl_us: int = 60_000_000) -> Call:
    request = BucketRequest("k", RULE.spec, tokens * RULE.spec.units_per_token)
    return Call(RESERVE, [request], Future(), 0.0, reserve_call(number, [ClaimTerms(kind, ttl_us)]))


def test_a_key_lives_until_its_claims_are_forgotten(redis_7_server: RedisServer) -> None:
    """A late commit finds the reservation ten minutes after its end, though the bucket has long been full."""
    client = redis_7_server.client()
    client.flushall()
    script = Script()
    evaluate(client, "EVAL", script.text, [_reserve(1, 10)])
    assert 660_000 < int(str(client.pttl("k"))) <= 662_000
    cancel = Call(SETTLE, [BucketRequest("k", RULE.spec, 0)], Future(), 0.0, ClaimCall(1, (0,)))
    evaluate(client, "EVAL", script.text, [cancel])
    assert str(client.get("k")).count("|") == 0
    assert int(str(client.pttl("k"))) <= 3_000


def test_a_check_writes_no_claims(redis_7_server: RedisServer) -> None:
    """Only the numbers before them, whatever there is behind: of ten thousand claims these are half a million bytes."""
    client = redis_7_server.client()
    client.flushall()
    script = Script()
    evaluate(client, "EVAL", script.text, [_reserve(number, 1) for number in range(1, 51)])
    size = client.strlen("k")
    client.config_resetstat()
    check = BucketRequest("k", RULE.spec, RULE.spec.units_per_token)
    assert evaluate(client, "EVAL", script.text, [Call(TAKE, [check], Future(), 0.0)])[0].allowed
    stats = client.info("commandstats")
    assert (stats["cmdstat_setrange"]["calls"], "cmdstat_set" in stats, client.strlen("k")) == (1, False, size)
    answers = evaluate(client, "EVAL", script.text, [_settle(number) for number in range(50, 0, -1)])
    assert [one[0].charged_units for one in answers] == [0] * 50
    assert str(client.get("k")).count("|") == 0


def _settle(number: int) -> Call:
    return Call(SETTLE, [BucketRequest("k", RULE.spec, 0)], Future(), 0.0, ClaimCall(number, (0,)))


def test_a_reset_and_what_is_reserved_next_in_one_call(lua: ScriptedBuckets) -> None:
    """The hold that ended last has gone, and the next claim finds its place beside a reservation that has ended."""
    lua.client.flushall()
    reset = Call(RESET, [BucketRequest("k", RULE.spec, 0)], Future(), 0.0)
    lua.send([_reserve(1, 1, CHARGE, 1)], START_US)
    lua.send([_reserve(2, 1, HOLD, 9_000_000), reset, _reserve(3, 1, HOLD, 3_000_000)], START_US + 1)
    lua.send([_reserve(4, 2, HOLD, 8_000_000), _reserve(5, 2, HOLD, 7_000_000)], START_US + 1)
    left = [lua.call([(PEEK, [BucketRequest("k", RULE.spec, 0)])], START_US + s * 10**6)[0][0] for s in (1, 4, 8, 9)]
    assert [one.level // RULE.spec.units_per_token for one in left] == [95, 96, 98, 100]


def test_what_is_no_list_of_claims_is_no_bucket(lua: ScriptedBuckets) -> None:
    """A value that begins like a bucket with claims and goes on otherwise counts as absent: full, and replaced."""
    check = BucketRequest("k", RULE.spec, RULE.spec.units_per_token)
    for rest in (
        "|",
        "|7",
        "|1 2 3 4 5 6 7 8 9 |",
        "|0 0 0 0 9 0 0 0 0 |" + "x" * 48,
        "|0 0 0 0 0 0 0 0 0 0 |" + "x" * 47,
    ):
        lua.client.set("k", f"0 {START_US} {RULE.spec.text}{rest}")
        (verdict,) = lua.call([(TAKE, [check])], START_US)
        assert verdict.levels[0].level == RULE.spec.capacity - check.cost_units, rest
        assert lua.client.get("k") == f"{verdict.levels[0].level} {START_US} {RULE.spec.text}"


def test_a_bucket_has_a_bounded_number_of_claims(lua: ScriptedBuckets) -> None:
    """Beyond it a reservation is refused with a reason, and nothing else happens to the bucket."""
    lua.client.flushall()
    spec = RateLimitRule(10**6, 600, "ip").spec
    request = BucketRequest("k", spec, spec.units_per_token)
    terms = ClaimTerms(CHARGE, 60_000_000)
    for start in range(1, 10_001, 500):
        lua.send(
            [
                Call(RESERVE, [request], Future(), 0.0, reserve_call(number, [terms]))
                for number in range(start, start + 500)
            ],
            START_US,
        )
    with pytest.raises(Exception, match="Too many reservations"):
        lua.send([Call(RESERVE, [request], Future(), 0.0, reserve_call(10_001, [terms]))], START_US)
    assert lua.call([(PEEK, [request])], START_US)[0][0].level == (10**6 - 10_000) * spec.units_per_token
