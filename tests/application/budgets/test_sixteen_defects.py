"""Sixteen ways in which budgets go wrong elsewhere, each with its number.

The list, with the threads that tell of them, is in `DEFECTS`. A number's scenario runs on memory, shared memory and a real Redis,
as two processes see it, and has to fail on a naive budget that has the defect (`support/naive_budgets.py`). What concerns
requests and their answers is in `tests/presentation/web/test_request_claims.py`; `ELSEWHERE` names those tests.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sluicegate
from sluicegate import Estimator, Failure, RateLimitedError, RateLimitRule, Success
from sluicegate.testing import FailingStorage
from support.backends import Backend
from support.naive_budgets import (
    AlwaysOpen,
    ChargesBoth,
    ClampsAtTheEstimate,
    CountsDenials,
    CountsLater,
    DropsWhatIsLate,
    ExpiresWithTheFirst,
    ForgetsWhoLeft,
    HasAFloor,
    RenewsAllHolds,
    ResetsOnChange,
    ZeroIsEverything,
)
from support.redis_servers import RedisServer

DEFECTS = {
    1: "check now, count later: five calls at once use 663 of 100 tokens (litellm#18730, ai-gateway#680, higress#2464)",
    2: "the reservation is counted before it is checked: denials leak tokens (litellm PR #27001)",
    3: "an estimate has a floor above the limit: the first request is denied (litellm PR #28805, #29193)",
    4: "an estimate of zero reserves the whole limit (litellm PR #31952)",
    5: "max_tokens=1 beside max_completion_tokens=10000 reserves 2: what was not reserved is free (litellm PR #37001)",
    6: "a cancelled stream, a cached reply or a timeout never releases its slot, and each call renews it (litellm#27955)",
    7: "the time to live is set with the first call only: later ones vanish in flight (llm-d-async PR #336)",
    8: "a fallback hop charges twice (litellm PR #36541)",
    9: "the check reads the memory of a process: N times the limit (litellm#40291, #16011)",
    10: "the enforced spend is twice the real one (litellm#40050, #36926)",
    11: "fail-closed is ignored when the reservation cannot be written (litellm#33923)",
    12: "dead handles, holds that checks do not see, a reaper that does not run, late commits that are dropped (midaz PR #2476)",
    13: "a client disconnects: nothing is counted although tokens were spent (higress#4145)",
    14: "changing the limit resets what was used (higress#2996)",
    15: "a dropped connection in place of a 429 in streams (Kuadrant/wasm-shim#372)",
    16: "a cost above what was reserved is clamped: bypass (kthena#1266)",
}
ELSEWHERE = {
    1: ["test_two_at_once_never_use_more_than_there_is"],
    6: ["test_a_cancelled_stream_frees_its_slot", "test_a_cached_answer_costs_nothing_and_frees_its_slot"],
    8: ["test_a_hop_to_another_model_is_charged_once", "test_the_last_word_counts_and_is_charged_once"],
    13: ["test_a_client_that_goes_pays_what_was_reserved", "test_a_client_that_goes_pays_what_was_told"],
    15: ["test_a_denied_stream_is_a_429_with_its_fields"],
}
WHO = {"endpoint": "POST /chat", "identifier": "10.0.0.1"}
SLOW = 0.001  # tokens a minute: nothing flows in


def tokens(limit: int, **more: Any) -> RateLimitRule:
    """Return a rule whose bucket is only filled by what comes back."""
    return RateLimitRule(limit, SLOW, "ip", name="tokens", **more)


def value(result: Any) -> Any:
    """Unwrap a success."""
    assert isinstance(result, Success), result
    return result.value


async def reserve(limiter: Any, cost: Any, **more: Any) -> Any:
    """Reserve, and unwrap."""
    return value(await limiter.reserve(**WHO, cost=cost, **more))


async def left(limiter: Any) -> int:
    """Return the tokens that are left."""
    return int(value(await limiter.get_remaining(**WHO)))


async def defect_1(backend: Backend) -> None:
    """Five calls at once, in two processes: what they spend together is within the limit."""
    limiters = [backend.limiter(tokens(100)) for _ in range(2)] * 3
    reserved = await asyncio.gather(*[reserve(limiter, 30) for limiter in limiters[:5]])
    admitted = [(limiter, one) for limiter, one in zip(limiters, reserved, strict=False) if one.allowed]
    settled = await asyncio.gather(*[limiter.commit(one, cost=30) for limiter, one in admitted])
    assert [value(one).charged for one in settled] == [30] * 3


async def defect_2(backend: Backend) -> None:
    """Denials take nothing, neither tokens nor slots, whichever rule denied."""
    limiter = backend.limiter((tokens(100), RateLimitRule.in_flight(1, scope="ip", hold_seconds=60)))
    assert not (await reserve(limiter, {"tokens": 101})).allowed
    first = await reserve(limiter, {"tokens": 60})
    for cost in (30, 50) * 3:
        assert not (await reserve(limiter, {"tokens": cost})).allowed
    await limiter.cancel(first)
    assert (await reserve(limiter, {"tokens": 100})).allowed


async def defect_3(backend: Backend, estimator: type[Estimator] = Estimator) -> None:
    """The estimate of a call of which nothing is known fits the limit that it is for."""
    limiter, estimates = backend.limiter(tokens(500)), estimator()
    cost = estimates.estimate("tokens", "model", client_max=100_000, operator_max=500)
    assert (await reserve(limiter, cost)).allowed


async def defect_4(backend: Backend) -> None:
    """No cost is the rule's own cost; an estimate of zero costs at least one."""
    limiter = backend.limiter(tokens(1000))
    assert (await reserve(limiter, 0)).allowed
    assert await left(limiter) == 999
    assert Estimator().estimate("tokens", "model", client_max=0) == 1


async def defect_5(backend: Backend) -> None:
    """What an estimate did not foresee is charged: nobody gets more by a small one."""
    limiter = backend.limiter(tokens(20_000))
    settled = value(await limiter.commit(await reserve(limiter, 2), cost=10_000))
    assert (settled.charged, await left(limiter)) == (10_000, 10_000)


async def defect_6(backend: Backend) -> None:
    """A slot that nobody gave back is free at its own end, however much others come and go."""
    rule = RateLimitRule.in_flight(2, scope="ip", hold_seconds=10)
    limiter, other = backend.limiter(rule), backend.limiter(rule)
    assert value(await limiter.acquire(**WHO)).allowed  # its process dies
    for _ in range(15):
        backend.clock.advance(1)
        hold = value(await other.acquire(**WHO))
        assert hold.allowed
        await other.release(hold)
    assert [value(await other.acquire(**WHO)).allowed for _ in range(3)] == [True, True, False]


async def defect_7(backend: Backend) -> None:
    """A call that began later is in flight when the first one's time is over."""
    limiter = backend.limiter(RateLimitRule.in_flight(2, scope="ip", hold_seconds=10))
    assert value(await limiter.acquire(**WHO)).allowed
    backend.clock.advance(8)
    assert value(await limiter.acquire(**WHO)).allowed
    backend.clock.advance(4)
    assert [value(await limiter.acquire(**WHO)).allowed for _ in range(2)] == [True, False]


async def defect_9(backend: Backend) -> None:
    """Four processes have one limit together, of tokens and of calls in flight."""
    rules = tokens(8), RateLimitRule.in_flight(6, scope="ip", hold_seconds=60)
    limiters = [backend.limiter(rules) for _ in range(4)]
    allowed = [(await reserve(limiter, {"tokens": 1})).allowed for _ in range(4) for limiter in limiters]
    assert sum(allowed) == 6
    assert sum([value(await limiter.is_allowed(**WHO)).allowed for limiter in limiters]) == 2


async def defect_10(backend: Backend) -> None:
    """After any number of calls what is spent is what they did cost, to the token."""
    limiter, other = backend.limiter(tokens(10_000)), backend.limiter(tokens(10_000))
    spent = 0
    for nth, (estimate, real) in enumerate([(100, 10), (100, 100), (10, 300), (500, 0), (1, 1), (700, 3)] * 2):
        one = await reserve(limiter, estimate)
        assert value(await (limiter, other)[nth % 2].commit(one.id, cost=real)).charged == real
        spent += real
        assert await left(limiter) == 10_000 - spent


async def defect_11(backend: Backend) -> None:
    """Reservations, holds and budgets are denied where the policy denies, as checks are."""
    rules = tokens(100), RateLimitRule.in_flight(2, scope="ip", hold_seconds=60)
    limiter = backend.limiter(rules, storage=FailingStorage(), on_storage_error="deny")
    assert ((await reserve(limiter, 1)).allowed, value(await limiter.acquire(**WHO)).allowed) == (False, False)
    for block in (limiter.budget(**WHO, cost=1), limiter.hold(**WHO)):
        with pytest.raises(RateLimitedError):
            async with block:
                raise LookupError


async def defect_12(backend: Backend) -> None:
    """Handles live in every process, plain checks see what is reserved, ends need no reaper, and a late commit is counted."""
    rule = tokens(100, on_expiry="release")
    limiter = backend.limiter(rule)
    first, second = await reserve(limiter, 30, ttl_seconds=10), await reserve(limiter, 30, ttl_seconds=10)
    assert first.id != second.id
    sync = backend.sync_limiter(rule)
    denied = await asyncio.to_thread(lambda: sync.is_allowed(**WHO, cost=41))
    assert not denied.value.allowed
    again = pickle.loads(pickle.dumps(first))  # noqa: S301 - our own
    assert value(await backend.limiter(rule).commit(again, cost=10)).applied
    assert not value(await limiter.commit(first.id, cost=10)).applied
    backend.clock.advance(11)
    fresh = backend.limiter(rule)  # a process that has never seen these
    assert await left(fresh) == 90
    late = value(await fresh.commit(second.id, cost=25))
    assert (late.applied, late.charged, late.returned) == (True, 25, 0)
    assert await left(limiter) == 65


async def defect_13(backend: Backend) -> None:
    """A stream that is cancelled charges what it told."""
    limiter = backend.limiter(tokens(1000))
    told = asyncio.Event()

    async def stream() -> None:
        async with limiter.budget(**WHO, cost=500) as budget:
            budget.cost = 120
            told.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stream())
    await told.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await left(limiter) == 880


async def defect_14(backend: Backend) -> None:
    """What was used and what is reserved counts under another limit, in every process."""
    limiter, other = backend.limiter(tokens(1000)), backend.limiter(tokens(1000))
    open_one = await reserve(limiter, 300)
    await limiter.commit(await reserve(limiter, 600))
    for one in (limiter, other):
        one.rules.replace({"POST /chat": tokens(2000)})
    assert await left(other) == 100
    assert value(await other.commit(open_one.id, cost=100)).returned == 200
    assert await left(limiter) == 300


async def defect_16(backend: Backend) -> None:
    """What exceeds the reservation is owed: nothing passes before it is repaid."""
    rule = RateLimitRule(100, 600, "ip", name="tokens")
    limiter, other = backend.limiter(rule), backend.limiter(rule)
    settled = value(await limiter.commit(await reserve(limiter, 40), cost=150))
    assert (settled.charged, settled.debt) == (150, 50)
    denied = value(await other.is_allowed(**WHO))
    assert (denied.allowed, denied.retry_after) == (False, 5.1)
    backend.clock.advance(5)
    assert not value(await other.is_allowed(**WHO)).allowed
    backend.clock.advance(0.1)
    assert value(await other.is_allowed(**WHO)).allowed


SCENARIOS: dict[int, Callable[[Backend], Awaitable[None]]] = {
    number: globals()[f"defect_{number}"] for number in DEFECTS if f"defect_{number}" in globals()
}
NAIVE: dict[int, Callable[[], Awaitable[None]]] = {
    1: lambda: defect_1(Backend(memory=CountsLater)),
    2: lambda: defect_2(Backend(memory=CountsDenials)),
    3: lambda: defect_3(Backend(), HasAFloor),
    4: lambda: defect_4(Backend(limiter=ZeroIsEverything)),
    5: lambda: defect_5(Backend(memory=ClampsAtTheEstimate)),
    6: lambda: defect_6(Backend(memory=RenewsAllHolds)),
    7: lambda: defect_7(Backend(memory=ExpiresWithTheFirst)),
    9: lambda: defect_9(Backend(apart=True)),
    10: lambda: defect_10(Backend(memory=ChargesBoth)),
    11: lambda: defect_11(Backend(limiter=AlwaysOpen)),
    12: lambda: defect_12(Backend(memory=DropsWhatIsLate)),
    13: lambda: defect_13(Backend(memory=ForgetsWhoLeft)),
    14: lambda: defect_14(Backend(memory=ResetsOnChange)),
    16: lambda: defect_16(Backend(memory=ClampsAtTheEstimate)),
}


@pytest.fixture(params=["memory", "shared memory", "redis"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Return buckets of each kind."""
    if request.param == "shared memory":
        pytest.importorskip("fcntl")
    server: RedisServer | None = request.getfixturevalue("redis_server") if request.param == "redis" else None
    made = Backend(path=tmp_path / "buckets" if request.param == "shared memory" else None, server=server)
    yield made
    await made.aclose()


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_defect_is_not_here(number: int, backend: Backend) -> None:
    """On every kind of storage, as several processes see it."""
    await SCENARIOS[number](backend)


@pytest.mark.parametrize("number", NAIVE)
@pytest.mark.skipif(sluicegate.COMPILED, reason="compiled classes take no faults")
async def test_a_naive_budget_has_the_defect(number: int) -> None:
    """So that the scenario is one."""
    with pytest.raises((AssertionError, LookupError)):
        await NAIVE[number]()


async def test_defect_7_the_key_on_the_server_lives_as_long_as_its_last_call(redis_server: RedisServer) -> None:
    """Redis itself forgets keys whose time is over: each call puts that off."""
    storage, client = sluicegate.RedisStorage.from_url(redis_server.url, deadline_ms=10_000), redis_server.client()
    for hold_seconds in (60, 600):
        rules = {"POST /chat": RateLimitRule.in_flight(2, scope="ip", hold_seconds=hold_seconds)}
        limiter = sluicegate.TokenBucketAdapter(storage=storage, rules=rules, deadline_ms=10_000)
        assert value(await limiter.acquire(**WHO)).allowed
        (key,) = client.keys("*")
        assert client.pttl(key) > 0.9 * 1000 * hold_seconds
    await storage.aclose()


async def test_defect_11_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    """The write of a reservation fails closed, and a commit says that it failed."""
    limiter = sluicegate.TokenBucketAdapter(
        storage=sluicegate.RedisStorage.from_url(f"redis://127.0.0.1:{unused_tcp_port}/0", deadline_ms=200),
        rules={"POST /chat": tokens(100)},
        on_storage_error="deny",
    )
    denied = await reserve(limiter, 1)
    assert (denied.allowed, denied.degraded) == (False, "deny")
    assert isinstance(await limiter.commit(denied.id, cost=1), Failure)
    await limiter.aclose()


def test_each_number_has_its_tests() -> None:
    """Here, or in the tests of requests."""
    requests = (Path(__file__).parents[2] / "presentation" / "web" / "test_request_claims.py").read_text()
    for number in DEFECTS:
        assert number in SCENARIOS or number in ELSEWHERE
        assert (number in SCENARIOS) == (number in NAIVE)
    for name in [name for names in ELSEWHERE.values() for name in names]:
        assert f"async def {name}(" in requests
