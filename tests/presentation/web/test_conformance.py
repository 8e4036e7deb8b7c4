"""Every integration behaves alike: one table of behaviours, held against each of them."""

import json
import math
from collections.abc import Awaitable
from typing import Any

import pytest

from sluicegate import (
    InvalidTypeError,
    Listing,
    Override,
    RateLimitRule,
    Success,
)
from support.faces import AWAITING, BESIDE_CODE, DECORATED, FACES, MIDDLEWARES, Served, Wanted

TWO = RateLimitRule(2, 2, "ip", name="two")
HOURLY = RateLimitRule(3, 3, "global", name="hourly")

every = pytest.mark.parametrize("face", FACES)
every_but_decorated = pytest.mark.parametrize("face", [face for face in FACES if face not in DECORATED])
beside_code = pytest.mark.parametrize("face", BESIDE_CODE)


def build(face: str, *rules: Any, **wanted: Any) -> Served:
    """Return an application of one integration."""
    return FACES[face](Wanted(rules, **wanted))


@every
async def test_requests_and_denials(face: str) -> None:
    """Requests count by client; a denial is the same problem with the same fields everywhere."""
    app = build(face, TWO)
    answers = [await app.get(name) for name in "abc"]
    assert [answer.status for answer in answers] == [200, 200, 429]
    denied = answers[2]
    problem = json.loads(denied.body)
    assert problem == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "detail": "The quota for this request is used up. Try again in 30 seconds.",
        "violated-policies": ["two"],
    }
    told = {name: denied.fields[name] for name in ("retry-after", "cache-control", "ratelimit", "ratelimit-policy")}
    assert told == {
        "retry-after": "30",
        "cache-control": "no-store",
        "ratelimit": '"two";r=0;t=30',
        "ratelimit-policy": '"two";q=2;w=60',
    }
    assert "json" in denied.fields["content-type"]
    assert await app.statuses("a", client="198.51.100.7") == [200]


@every_but_decorated
@pytest.mark.parametrize("name", ["1", "404", "own"])
async def test_the_quota_is_told_on_every_answer(face: str, name: str) -> None:
    """On what the framework makes of an exception and on what the view makes itself as well."""
    answer = await build(face, TWO).get(name)
    assert answer.status == (404 if name == "404" else 200)
    assert answer.fields["ratelimit"] == '"two";r=1;t=30'
    assert answer.fields["ratelimit-policy"] == '"two";q=2;w=60'


@every
async def test_a_kill_switch(face: str) -> None:
    """It stops each rule of the limiter at once, and gives it back."""
    app = build(face, TWO)
    assert await app.statuses(*"abc") == [200, 200, 429]
    app.limiter.rules.switch_off(reason="a test")
    assert await app.statuses(*"abc") == [200] * 3
    app.limiter.rules.switch_on()
    app.limiter.rules.switch_off("two")
    assert await app.statuses(*"abc") == [200] * 3
    app.limiter.rules.switch_on("two")
    assert await app.statuses("a") == [429]


@every
async def test_lists(face: str) -> None:
    """Whom the lists have they allow or deny, at every rule."""
    lists = {
        "allow": [Listing(scope="ip", identifier="198.51.100.0/24")],
        "deny": [Listing(scope="ip", identifier="203.0.113.9")],
    }
    app = build(face, TWO, book=lists)
    assert await app.statuses(*"abcd", client="198.51.100.1") == [200] * 4
    assert await app.statuses(*"ab", client="203.0.113.9") == [429, 429]
    assert await app.statuses(*"abc", client="192.0.2.1") == [200, 200, 429]


@every
async def test_overrides_and_policies_by_name(face: str) -> None:
    """A rule may be a policy's name; the policy's overrides hold, and so does a policy that changes."""
    more = Override(policy="two", identifier="198.51.100.0/24", rule=RateLimitRule(4, 4, "ip"))
    app = build(face, "two", book={"policies": {"two": TWO}, "overrides": [more]})
    assert await app.statuses(*"abc") == [200, 200, 429]
    assert await app.statuses(*"abcde", client="198.51.100.1") == [200] * 4 + [429]


@beside_code
async def test_a_policy_that_changes(face: str) -> None:
    """What code calls by name follows the rules in force, and its buckets keep their tokens."""
    wanted = Wanted(("two",), {"policies": {"two": TWO}})
    app = BESIDE_CODE[face](wanted)
    assert await app.statuses(*"ab") == [200, 200]
    rules = app.limiter.rules
    book = type(rules.book)({}, policies={"two": RateLimitRule(2, 600, "ip", name="two")})
    rules.replace(book)
    assert await app.statuses("a") == [429]
    wanted.clock.advance(60)
    assert await app.statuses(*"ab") == [200, 200]


@every
async def test_shadow_mode(face: str) -> None:
    """A rule in shadow mode denies nobody, and the limiter counts whom it would have denied."""
    app = build(face, RateLimitRule(1, 1, "ip", name="only_watching", shadow=True))
    assert await app.statuses(*"abc") == [200] * 3
    assert app.limiter.shadow_denials == {"only_watching": 2}


@every
async def test_reset_and_remaining_know_the_route(face: str) -> None:
    """By the name that a user would type, without having to know where the rule was written."""
    app = build(face, TWO)
    await app.get()
    assert await app.call("get_remaining", identifier="192.0.2.1") == Success(1)
    assert await app.statuses(*"ab") == [200, 429]
    assert await app.call("reset", identifier="192.0.2.1") == Success(None)
    assert await app.call("get_remaining", identifier="192.0.2.1") == Success(2)
    assert await app.statuses(*"abc") == [200, 200, 429]
    app.limiter.rules.switch_off(reason="a reset counts all the same")
    await app.call("reset", identifier="192.0.2.1")
    app.limiter.rules.switch_on()
    assert await app.statuses("a") == [200]


@every
async def test_texts_as_rules(face: str) -> None:
    """Rules may be texts, several in one text, or lists of them."""
    assert await build(face, "2/minute; 3/hour").statuses(*"abc") == [200, 200, 429]
    app = build(face, RateLimitRule(9, 9, "ip"), "1/month per global")
    assert await app.statuses(*"ab") == [200, 429]


@every
async def test_all_exceeded_policies_are_named(face: str) -> None:
    """Not only the one with the longest wait."""
    app = build(face, RateLimitRule(2, 2, "ip", name="two"), RateLimitRule(2, 1, "global", name="slow"))
    denied = [await app.get(name) for name in "abc"][2]
    assert json.loads(denied.body)["violated-policies"] == ["two", "slow"]


class _User:
    """An object without a text of its own."""


@every
@pytest.mark.parametrize("name", [_User(), b"bytes", 1.5, True])
async def test_an_identifier_that_is_none(face: str, name: Any) -> None:
    """What is no text, number or UUID never names a bucket: an error is logged, and the client counts all the same."""
    wanted = Wanted((TWO,), options={"identifier": lambda *_, **__: name})
    app = FACES[face](wanted)
    assert await app.statuses(*"abc") == [200, 200, 429]
    if face in MIDDLEWARES or face in {"Flask's decorator", "REST framework's throttle"}:
        assert {(level, type(name).__name__ in text) for level, text, _ in wanted.logger.records} == {("error", True)}


@every
async def test_a_coroutine_function_as_identifier(face: str) -> None:
    """Where there is an event loop it is awaited; elsewhere it is refused when it is given."""

    async def name(*_: Any, **__: Any) -> str:
        return "one for all"

    if face in AWAITING:
        app = build(face, TWO, options={"identifier": name})
        assert await app.statuses(*"ab") == [200, 200]
        assert await app.statuses("a", client="198.51.100.1") == [429]
        return
    with pytest.raises((InvalidTypeError, Exception), match="coroutine function"):
        build(face, TWO, options={"identifier": name})


@every
async def test_costs(face: str) -> None:
    """A cost function's 0 is free; what is no cost is an error that is logged, and costs what the rule says."""
    app = build(face, TWO, options={"cost": lambda *_, **__: 0})
    assert await app.statuses(*"abcd") == [200] * 4
    for cost in (-1, 0.5, None):
        wanted = Wanted((TWO,), options={"cost": lambda *_, cost=cost, **__: cost})
        assert await FACES[face](wanted).statuses(*"abc") == [200, 200, 429]


@every
async def test_a_cost_that_never_fits(face: str) -> None:
    """It is denied without a time to come back, and tells what is truly left."""
    costs = iter([1, 5])
    app = build(face, TWO, options={"cost": lambda *_, **__: next(costs)})
    assert await app.statuses("a") == [200]
    denied = await app.get()
    assert denied.status == 429
    assert "retry-after" not in denied.fields
    assert denied.fields["ratelimit"] == '"two";r=1'


@every
async def test_an_answer_of_the_applications_own(face: str) -> None:
    """`on_denied` answers in place of the problem details; what it leaves out of the fields is added."""
    if face == "REST framework's throttle":
        pytest.skip("the framework has EXCEPTION_HANDLER for it; see test_django.py")
    app = build(face, TWO, options={"on_denied": True})
    denied = [await app.get(name) for name in "abc"][2]
    assert (denied.status, denied.body) == (418, b"slow down: 429")
    told = {name: denied.fields[name] for name in ("retry-after", "cache-control", "ratelimit", "ratelimit-policy")}
    assert told == {
        "retry-after": "30",
        "cache-control": "no-store",
        "ratelimit": '"two";r=0;t=30',
        "ratelimit-policy": '"two";q=2;w=60',
    }
    assert "json" not in denied.fields.get("content-type", "")


@every
async def test_what_a_limited_function_raises(face: str) -> None:
    """A `RateLimitedError` that leaves the view is a 429 with the fields of the function's rule."""
    app = build(face, RateLimitRule(9, 9, "ip", name="nine"))
    answers = [await app.get("busy") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert json.loads(answers[1].body)["title"] == "Too many requests"
    assert answers[1].fields["retry-after"] == "60"
    assert '"ip-1-60s";r=0;t=60' in answers[1].fields["ratelimit"]


@every
async def test_milliseconds(face: str) -> None:
    """`retry_after_ms` adds the wait in milliseconds to denials."""
    if face in DECORATED:
        pytest.skip("a decorated function words no answer")
    app = build(face, RateLimitRule(1, 7, "ip"), options={"retry_after_ms": True})
    denied = [await app.get(name) for name in "ab"][1]
    assert denied.fields["retry-after-ms"] == str(math.ceil(60_000 / 7))
    assert denied.fields["retry-after"] == "9"


@every_but_decorated
async def test_nested_limiters(face: str) -> None:
    """The fields of both are told, the inner one's first, on answers and on denials."""
    app = build(face, TWO, outer=(RateLimitRule(9, 9, "ip", name="around"),))
    answers = [await app.get(name) for name in "abc"]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].fields["ratelimit"] == '"two";r=1;t=30, "around";r=8;t=7'
    assert answers[2].fields["ratelimit"] == '"two";r=0;t=30, "around";r=6;t=20'
    assert answers[2].fields["ratelimit-policy"] == '"two";q=2;w=60, "around";q=9;w=60'
    assert answers[2].fields["retry-after"] == "30"


@every_but_decorated
async def test_requests_that_do_not_count(face: str) -> None:
    """`exempt_when` says so; if it fails the request counts."""

    def inner(request: Any) -> bool:
        asked.append(request)
        return len(asked) % 2 == 0

    asked: list[Any] = []
    app = build(face, TWO, options={"exempt_when": inner})
    assert await app.statuses(*"abcdef") == [200, 200, 200, 200, 429, 200]
    app = build(face, TWO, options={"exempt_when": lambda _: 1 // 0})
    assert await app.statuses(*"abc") == [200, 200, 429]


@pytest.mark.parametrize("face", [face for face in FACES if face not in DECORATED | {"ASGI", "WSGI"}])
async def test_exempt_views(face: str) -> None:
    """A view that is marked as exempt is not counted, by whatever knows the view."""
    assert await build(face, TWO, exempt=True).statuses(*"abcd") == [200] * 4


@every
async def test_the_off_switch(face: str) -> None:
    """`enabled=False` counts nothing."""
    assert await build(face, TWO, options={"enabled": False}).statuses(*"abcd") == [200] * 4


@beside_code
async def test_rules_by_function(face: str) -> None:
    """A function of the request returns the rules of its client; where it fails, the strictest ones so far hold."""
    plans = iter(["1/minute", "3/minute", None, "3/minute", "3/minute", "3/minute"])
    app = build(face, lambda *_, **__: next(plans))
    assert await app.statuses(*"ab") == [200, 200]
    assert await app.statuses("c") == [429]
    assert await app.statuses(*"def") == [200, 200, 429]


@pytest.mark.parametrize("face", MIDDLEWARES)
async def test_users_who_are_not_signed_in(face: str) -> None:
    """A rule for users counts the address of those that it does not know, and says so once."""
    wanted = Wanted((RateLimitRule(2, 2, "user", name="users"),))
    app = MIDDLEWARES[face](wanted)
    assert await app.statuses(*"abc") == [200, 200, 429]
    assert [text[:19] for _, text, _ in wanted.logger.records] == ["A rule counts users"]


# What is known only by the answer


def spent(left: Any) -> Any:
    """Return what is left of ten, as tokens that were charged."""
    assert isinstance(left, Success), left
    return 10 - left.value


async def awaited(answer: Any) -> Any:
    """Return an answer that may have to be awaited."""
    return await answer if isinstance(answer, Awaitable) else answer


TEN = RateLimitRule(10, 1, "ip", name="ten")


@every
async def test_only_some_answers_count(face: str) -> None:
    """`count_when` of the answer decides afterwards whether a request cost anything; what does not count comes back at once."""
    if face in DECORATED:
        app = build(
            face, TWO, options={"count_when": lambda value: value is None, "identifier": lambda *_, **__: "192.0.2.1"}
        )
        assert await app.statuses(*"abcde") == [200] * 5
        assert await app.call("get_remaining", identifier="192.0.2.1") == Success(2)
        return
    app = build(face, TWO, options={"count_when": lambda answer: answer.status == 404})
    assert await app.statuses(*"abcde") == [200] * 5
    assert await app.call("get_remaining", identifier="192.0.2.1") == Success(2)
    assert await app.statuses("404", "404") == [404, 404]
    assert await app.statuses("a", "404") == [429, 429]
    assert await app.statuses("404", client="198.51.100.7") == [404]


@every_but_decorated
async def test_the_cost_stands_in_a_field_that_no_client_sees(face: str) -> None:
    """What was reserved and not needed comes back; what was needed beyond it becomes debt."""
    app = build(face, TEN, options={"answer_cost": "X-Cost", "cost": lambda _: 5})
    answer = await app.get("cost-3")
    assert answer.status == 200
    assert b"item" in answer.body
    assert "x-cost" not in answer.fields
    assert spent(await app.call("get_remaining", identifier="192.0.2.1")) == 3
    assert (await app.get("cost-12")).status == 200
    assert (await app.get("cost-1")).status == 429
    peek = await app.call("peek", identifier="192.0.2.1")
    assert peek.value.remaining == 0
    assert peek.value.retry_after == pytest.approx(6 * 60, abs=1)


@every_but_decorated
@pytest.mark.parametrize("cost", ["-1", "1.5", "many", "9" * 40])
async def test_a_field_that_is_no_cost(face: str, cost: str) -> None:
    """It is logged as an error and never sent, and what was reserved is charged."""
    wanted = Wanted((TEN,), options={"answer_cost": "x-cost", "cost": lambda _: 4})
    app = FACES[face](wanted)
    answer = await app.get(f"cost-{cost}")
    assert "x-cost" not in answer.fields
    assert spent(await app.call("get_remaining", identifier="192.0.2.1")) == 4


@every
async def test_the_cost_is_a_function_of_the_answer(face: str) -> None:
    """One that fails or returns no cost charges what was reserved."""
    for cost, charged in (
        (lambda _: 7, 7),
        (lambda _: None, 2),
        (lambda _: 1 / 0, 2),
        (lambda _: -1, 2),
        (lambda _: 0, 0),
    ):
        options = {"answer_cost": cost, "cost": lambda *_, **__: 2, "identifier": lambda *_, **__: "192.0.2.1"}
        app = build(face, TEN, options=options)
        assert await app.statuses("a") == [200]
        assert spent(await app.call("get_remaining", identifier="192.0.2.1")) == charged


@every_but_decorated
async def test_the_application_commits_its_cost(face: str) -> None:
    """By what travels with the request; without a word of it what was reserved is charged."""
    app = build(face, TEN, options={"reserves": True, "cost": lambda _: 4})
    assert await app.statuses("commit-1", "a") == [200, 200]
    assert spent(await app.call("get_remaining", identifier="192.0.2.1")) == 1 + 4


@every
async def test_calls_in_flight_end_with_the_request(face: str) -> None:
    """As many requests as one likes one after the other; one that another holds is denied, and charges no rate beside it."""
    one = RateLimitRule.in_flight(1, scope="global", hold_seconds=60)
    app = build(face, TEN, one)
    assert await app.statuses(*"abc", "404", "d") == [200, 200, 200, 404, 200]
    in_force = app.limiter.rules.current().rules
    name = next(iter(in_force._beside_code), app.endpoint)  # what stands beside code is asked by a name of its own
    held = await awaited(app.limiter.acquire(endpoint=name, identifier={"ip": "192.0.2.9"}))
    assert await app.statuses("a") == [429]
    await awaited(app.limiter.release(held.value))
    assert await app.statuses("a") == [200]
    assert spent(await app.call("get_remaining", identifier="192.0.2.1")) == 6


@every
@pytest.mark.parametrize("option", ["count_when", "answer_cost"])
async def test_a_coroutine_function_of_the_answer(face: str, option: str) -> None:
    """It is refused when it is given: nobody awaits it when the answer has been sent."""

    async def judge(_: Any) -> bool:
        return True

    with pytest.raises((InvalidTypeError, Exception), match=f"{option}=.*coroutine function"):
        await build(face, TWO, options={option: judge}).get()  # Starlette builds its middleware for the first request
