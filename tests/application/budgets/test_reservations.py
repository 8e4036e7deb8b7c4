"""Budgets and calls in flight, as applications use them."""

import asyncio
import pickle
from typing import Any

import pytest

from sluicegate import (
    Failure,
    Hold,
    InvalidInputError,
    InvalidTypeError,
    MemoryStorage,
    RateLimitCheckAllowed,
    RateLimitCheckDenied,
    RateLimitDebtCapped,
    RateLimitedError,
    RateLimitFailedOpen,
    RateLimitRule,
    Reservation,
    Settlement,
    Success,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.testing import FailingStorage, FakeClock
from support.world import IP, World

CHAT = "POST /v1/chat"
TOKENS = RateLimitRule(1000, 600, "ip", name="tokens")
REQUESTS = RateLimitRule(10, 60, "ip", name="requests")
TWO = RateLimitRule.in_flight(2)
BOTH = {CHAT: (REQUESTS, TOKENS)}


def value(result: Any) -> Any:
    """Unwrap a success."""
    match result:
        case Success(value=unwrapped):
            return unwrapped
        case _:
            raise AssertionError(result)


async def reserve(world: World, cost: Any = 0, **more: Any) -> Reservation:
    """Reserve and unwrap."""
    reserved: Reservation = value(
        await world.limiter.reserve(endpoint=world.endpoint, identifier=IP, cost=cost, **more)
    )
    return reserved


async def remaining(world: World) -> int:
    """Return the tokens left."""
    tokens: int = value(await world.limiter.get_remaining(endpoint=world.endpoint, identifier=IP))
    return tokens


async def test_a_reservation_is_committed_once_by_its_object_or_by_its_id() -> None:
    """The difference comes back; the settlement says what became of it; a second one says that nothing did."""
    world = World({CHAT: TOKENS})
    reservation = await reserve(world, 700, ttl_seconds=30)
    assert (reservation.allowed, reservation.cost, reservation.expires_in) == (True, 700, 30.0)
    assert reservation.result.remaining == 300
    other = TokenBucketAdapter(storage=world.storage, rules={CHAT: TOKENS}, clock=world.clock)
    settlement: Settlement = value(await other.commit(reservation.id, cost=450))
    assert (settlement.applied, settlement.charged, settlement.returned, settlement.debt) == (True, 450, 250, 0)
    assert await remaining(world) == 550
    again: Settlement = value(await world.limiter.commit(pickle.loads(pickle.dumps(reservation)), cost=10))  # noqa: S301
    assert (again.applied, again.charged, again.returned) == (False, 0, 0)
    assert await remaining(world) == 550


async def test_a_commit_without_a_cost_charges_what_was_reserved_and_a_cancel_nothing() -> None:
    """An estimate of zero means the rule's own cost, never the whole limit."""
    world = World({CHAT: TOKENS})
    assert value(await world.limiter.commit(await reserve(world))).charged == 1
    assert value(await world.limiter.cancel(await reserve(world, 300))).returned == 300
    assert await remaining(world) == 999


async def test_debt_is_told_bounded_and_repaid_before_anything_passes() -> None:
    """A cost beyond the reservation is charged, not clamped; what exceeds the greatest debt is an event."""
    world = World({CHAT: RateLimitRule(1000, 600, "ip", name="tokens", max_debt=200)})
    first, second = await reserve(world, 600), await reserve(world, 400)
    assert value(await world.limiter.commit(first, cost=750)).debt == 150
    assert world.heard(RateLimitDebtCapped) == []
    settlement = value(await world.limiter.commit(second, cost=500))
    assert (settlement.charged, settlement.debt) == (450, 200)
    (capped,) = world.heard(RateLimitDebtCapped)
    assert (capped.cost, capped.charged, capped.max_debt, capped.policy) == (500, 450, 200, "tokens")
    denied = await world.check()
    assert (denied.allowed, denied.remaining, denied.retry_after) == (False, 0, 20.1)
    world.clock.advance(20.1)
    assert (await world.check()).allowed


async def test_a_rule_without_debt_charges_what_is_there() -> None:
    """With max_debt=0 the level stays at zero."""
    world = World({CHAT: RateLimitRule(1000, 600, "ip", max_debt=0)})
    settlement = value(await world.limiter.commit(await reserve(world, 900), cost=5000))
    assert (settlement.charged, settlement.debt) == (1000, 0)


async def test_several_measures_are_reserved_together_and_settled_each() -> None:
    """A cost by rule: all or none; what a commit does not name is charged as reserved."""
    world = World(BOTH)
    reservation = await reserve(world, {"requests": 1, "tokens": 800})
    assert not (await reserve(world, {"tokens": 300})).allowed
    settlement = value(await world.limiter.commit(reservation.id, cost={"tokens": 100}))
    assert {one.policy: (one.charged, one.returned) for one in settlement.rules} == {
        "requests": (1, 0),
        "tokens": (100, 700),
    }
    assert (await world.check(cost={"requests": 9, "tokens": 900})).allowed  # type: ignore[arg-type]
    assert not (await world.check(cost={"requests": 1, "tokens": 0})).allowed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cost", [{"token": 1}, {}, {"tokens": -1}, {"tokens": 1.5}, {"tokens": True}, {1: 1}, -1, "5", 1.5, None]
)
async def test_a_wrong_cost_is_refused_by_name_and_nothing_happens(cost: Any) -> None:
    """Unknown rules, negative and broken numbers."""
    world = World(BOTH)
    with pytest.raises(InvalidInputError, match="cost"):
        await reserve(world, cost)
    assert await remaining(world) == 10


async def test_a_commit_refuses_one_number_for_costs_that_were_reserved_by_rule() -> None:
    """It would charge 830 requests."""
    world = World(BOTH)
    reservation = await reserve(world, {"requests": 1, "tokens": 800})
    for claim in (reservation, reservation.id):
        with pytest.raises(InvalidInputError, match="each rule"):
            await world.limiter.commit(claim, cost=830)
    assert value(await world.limiter.cancel(reservation)).applied


@pytest.mark.parametrize("claim", ["", "abc", "!!!", "AAAA", 7, None])
async def test_what_is_no_reservation_is_refused(claim: Any) -> None:
    """By a clear error, not by doing nothing."""
    with pytest.raises(InvalidInputError, match="reservation"):
        await World(BOTH).limiter.commit(claim)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 86_401, "60", True])
async def test_a_wrong_time_is_refused(ttl: Any) -> None:
    """Times are seconds, up to a day."""
    with pytest.raises(InvalidInputError, match="ttl_seconds"):
        await reserve(World(BOTH), ttl_seconds=ttl)


async def test_a_cost_above_the_limit_is_denied_for_ever_and_below_it_never_by_an_estimate() -> None:
    """No hidden floor: what fits the limit passes on the first request."""
    world = World({CHAT: RateLimitRule(500, 60, "ip")})
    assert (await reserve(world, 500)).allowed
    denied = await World({CHAT: RateLimitRule(500, 60, "ip")}).limiter.reserve(endpoint=CHAT, identifier=IP, cost=501)
    assert (value(denied).allowed, value(denied).result.retry_after) == (False, float("inf"))
    assert value(await world.limiter.commit(value(denied), cost=3)).applied is False


async def test_five_calls_at_once_cannot_spend_more_than_the_limit() -> None:
    """What is checked first and counted later is walked round: here the estimate is gone at once."""
    world = World({CHAT: RateLimitRule(100, 60, "ip")})
    reservations = [await reserve(world, 30) for _ in range(5)]
    assert [one.allowed for one in reservations] == [True, True, True, False, False]
    for one in reservations[:3]:
        assert value(await world.limiter.commit(one, cost=30)).charged == 30
    assert await remaining(world) == 10


async def test_a_denial_takes_nothing_from_any_rule() -> None:
    """Reservations that were denied leave no trace, whichever rule denied them."""
    world = World(BOTH)
    for _ in range(5):
        assert not (await reserve(world, {"requests": 1, "tokens": 1000 + 1})).allowed
    await reserve(world, {"requests": 1, "tokens": 1000})
    for _ in range(5):
        assert not (await reserve(world, {"requests": 1, "tokens": 1})).allowed
    assert (await world.check(cost={"requests": 9, "tokens": 0})).allowed  # type: ignore[arg-type]


async def test_what_a_commit_gives_back_is_there_at_once() -> None:
    """A client that was denied a moment ago passes."""
    world = World({CHAT: TOKENS})
    reservation = await reserve(world, 1000)
    assert not (await world.check(cost=500)).allowed
    await world.limiter.commit(reservation, cost=100)
    assert (await world.check(cost=500)).allowed


async def test_a_lost_process_strands_nothing_beyond_its_time() -> None:
    """By rule it is charged or released at its end, by the storage's clock; a late commit is charged, never lost."""
    for on_expiry, left in (("charge", 0), ("release", 900)):
        rule = RateLimitRule(1000, 0.001, "ip", on_expiry=on_expiry)
        world = World({CHAT: rule})
        reservation = await reserve(world, 900, ttl_seconds=5)
        await world.check(cost=100)
        world.clock.advance(5)
        assert await remaining(world) == left
        settlement = value(await world.limiter.commit(reservation, cost=950))
        assert (settlement.applied, settlement.charged, settlement.returned) == (True, 950, 0)


async def test_an_extension_keeps_a_reservation_and_revives_none() -> None:
    """What has ended or was settled cannot be extended, and the failure says so."""
    world = World({CHAT: RateLimitRule(1000, 0.001, "ip", on_expiry="release")})
    reservation = await reserve(world, 900, ttl_seconds=5)
    world.clock.advance(4)
    assert await world.limiter.extend(reservation.id, ttl_seconds=5) == Success(None)
    world.clock.advance(4)
    assert await remaining(world) == 100
    world.clock.advance(1)
    ended = await world.limiter.extend(reservation, ttl_seconds=5)
    assert isinstance(ended, Failure)
    assert ended.error.reason == "ended"
    assert await remaining(world) == 1000


async def test_a_budget_commits_its_cost_or_the_estimate_or_cancels() -> None:
    """By how its body ends, and by what is known then."""
    world = World({CHAT: TOKENS})
    async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=400) as budget:
        assert budget.reservation.allowed
        budget.cost = 150
        budget.cost = 100
    assert value(budget.settlement).charged == 100
    async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=400) as budget:
        pass
    assert value(budget.settlement).charged == 400
    with pytest.raises(RuntimeError):
        async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=400) as budget:
            raise RuntimeError
    assert value(budget.settlement).returned == 400
    with pytest.raises(RuntimeError):
        async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=400) as budget:
            await _fail_after(budget, 300)
    assert value(budget.settlement).charged == 300
    with pytest.raises(RateLimitedError):
        async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=400):
            raise AssertionError
    with pytest.raises(InvalidInputError, match="cost"):
        budget.cost = -1


async def _fail_after(budget: Any, cost: int) -> None:
    budget.cost = cost
    raise RuntimeError


async def test_a_cancelled_stream_gives_its_budget_and_its_slot_back() -> None:
    """A client that disconnects cancels the task in the middle; nothing leaks."""
    world = World({CHAT: (TOKENS, TWO)})

    async def stream() -> None:
        async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=400):
            await asyncio.Event().wait()

    for _ in range(3):
        tasks = [asyncio.create_task(stream()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RateLimitedError):
            await stream()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await remaining(world) == 1000


async def test_calls_in_flight_beside_a_rate_in_one_step() -> None:
    """A denied hold charges no rate and tells when the first slot is free; a release frees it at once."""
    world = World({CHAT: (REQUESTS, TWO)})
    holds: list[Hold] = [value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)) for _ in range(2)]
    world.clock.advance(10)
    denied = value(await world.limiter.acquire(endpoint=CHAT, identifier=IP))
    assert (denied.allowed, denied.result.retry_after) == (False, 50.0)
    assert await remaining(world) == 10
    assert value(await world.limiter.release(holds[0].id)).applied
    assert not value(await world.limiter.release(holds[0])).applied
    async with world.limiter.hold(endpoint=CHAT, identifier=IP) as hold:
        assert hold.expires_in == 60.0
        with pytest.raises(RateLimitedError) as full:
            async with world.limiter.hold(endpoint=CHAT, identifier=IP):
                raise AssertionError
        assert full.value.decision.binding == TWO
    assert value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)).allowed


async def test_a_hold_that_ended_is_never_revived() -> None:
    """Its slot may be somebody else's; one that is renewed in time goes on."""
    world = World({CHAT: RateLimitRule.in_flight(1, hold_seconds=10)})
    hold = value(await world.limiter.acquire(endpoint=CHAT, identifier=IP))
    world.clock.advance(9)
    assert await world.limiter.renew(hold) == Success(None)
    world.clock.advance(9)
    assert not value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)).allowed
    world.clock.advance(1)
    assert value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)).allowed
    assert isinstance(await world.limiter.renew(hold), Failure)
    assert not value(await world.limiter.release(hold)).applied
    assert not value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)).allowed


async def test_leaked_slots_come_back_although_others_go_on() -> None:
    """Each hold has an end of its own: other calls renew theirs, not those of the dead."""
    world = World({CHAT: RateLimitRule.in_flight(2, hold_seconds=10)})
    await world.limiter.acquire(endpoint=CHAT, identifier=IP)  # and never released
    for _ in range(30):
        world.clock.advance(1)
        hold = value(await world.limiter.acquire(endpoint=CHAT, identifier=IP))
        assert hold.allowed
        await world.limiter.release(hold)
    holds = [value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)) for _ in range(2)]
    assert all(hold.allowed for hold in holds)


async def test_a_long_call_keeps_its_slot_while_its_body_runs() -> None:
    """In real time: the hold is renewed at three quarters of its time, by an event loop and by a thread."""
    storage = MemoryStorage()
    rules = {name: RateLimitRule.in_flight(1, hold_seconds=2) for name in ("loop", "thread")}
    limiter = TokenBucketAdapter(storage=storage, rules=rules)
    plain = SyncTokenBucketAdapter(storage=storage, rules=rules)
    async with limiter.hold(endpoint="loop", identifier=IP):
        with plain.hold(endpoint="thread", identifier=IP):
            await asyncio.sleep(2.2)
            for name in rules:
                assert not value(await limiter.acquire(endpoint=name, identifier=IP)).allowed
    for name in rules:
        assert value(await limiter.acquire(endpoint=name, identifier=IP)).allowed


async def test_a_check_does_not_count_calls_in_flight_and_says_so() -> None:
    """It could give nothing back: it asks the rates alone, and a warning tells what to use."""
    world = World({CHAT: (REQUESTS, TWO)})
    holds = [value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)) for _ in range(2)]
    assert all(hold.allowed for hold in holds)
    assert (await world.check()).allowed
    assert any("does not count calls in flight" in message for _, message, _ in world.logger.records)


async def test_a_reset_frees_slots_that_leaked() -> None:
    """An operator need not wait, nor reset the server."""
    world = World({CHAT: TWO})
    for _ in range(2):
        await world.limiter.acquire(endpoint=CHAT, identifier=IP)
    assert not value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)).allowed
    assert await world.limiter.reset(endpoint=CHAT, identifier=IP) == Success(None)
    assert value(await world.limiter.acquire(endpoint=CHAT, identifier=IP)).allowed


async def test_while_the_storage_fails_a_reservation_says_so_and_a_commit_never_pretends() -> None:
    """The policy answers the reservation; commit, cancel, extend and release are failures."""
    world = World({CHAT: (TOKENS, TWO)}, storage=FailingStorage())
    reservation = await reserve(world, 500)
    assert (reservation.allowed, reservation.degraded) == (True, "allow")
    assert len(world.heard(RateLimitFailedOpen)) == 1
    for call in (world.limiter.commit(reservation.id, cost=5), world.limiter.cancel(reservation)):
        failed = await call
        assert isinstance(failed, Failure)
        assert failed.error.reason == "degraded"
    async with world.limiter.budget(endpoint=CHAT, identifier=IP, cost=5) as budget:
        budget.cost = 3
    assert isinstance(budget.settlement, Failure)
    good = World({CHAT: TOKENS})
    reserved = await reserve(good, 500)
    broken = World({CHAT: TOKENS}, storage=FailingStorage())
    for failing in (broken.limiter.commit(reserved), broken.limiter.extend(reserved, ttl_seconds=9)):
        failed = await failing
        assert isinstance(failed, Failure)
        assert failed.error.reason == "connection"


async def test_a_rule_that_denies_while_the_storage_fails_denies_reservations() -> None:
    """The setting holds for the write of a reservation as for a check."""
    world = World({CHAT: RateLimitRule(1000, 600, "ip", on_storage_error="deny")}, storage=FailingStorage())
    reservation = await reserve(world, 5)
    assert (reservation.allowed, reservation.degraded) == (False, "deny")


async def test_the_local_policy_reserves_holds_and_settles_in_this_process() -> None:
    """While the storage fails, nobody gets more than the rule here, and what was not used comes back."""
    rules = {CHAT: (TOKENS, TWO)}
    world = World(rules, storage=FailingStorage(), on_storage_error="local")
    first, second = await reserve(world, 400), await reserve(world, 400)
    assert (first.allowed, first.degraded) == (True, "local")
    assert not (await reserve(world, 100)).allowed  # two are in flight
    assert value(await world.limiter.commit(first, cost=100)).returned == 300
    assert await world.limiter.extend(second, ttl_seconds=100) == Success(None)
    assert (await reserve(world, 500)).allowed


async def test_a_changed_limit_keeps_what_is_used_and_what_is_reserved() -> None:
    """A reservation of the old limit is settled under the new one."""
    world = World({CHAT: TOKENS})
    reservation = await reserve(world, 900)
    world.limiter.rules.replace({CHAT: RateLimitRule(2000, 600, "ip", name="tokens")})
    assert await remaining(world) == 100
    assert value(await world.limiter.commit(reservation, cost=300)).returned == 600
    assert await remaining(world) == 700


async def test_events_of_a_reservation_are_those_of_a_check() -> None:
    """Allowed and denied, with the effective cost."""
    world = World({CHAT: TOKENS})
    await reserve(world, 700)
    await reserve(world, 700)
    assert [event.cost for event in world.heard(RateLimitCheckAllowed)] == [700]
    assert [event.retry_after for event in world.heard(RateLimitCheckDenied)] == [40.0]


async def test_an_endpoint_without_rules_reserves_nothing_and_lets_pass() -> None:
    """As a check does; its commit says that there was nothing."""
    world = World({"GET /other": TOKENS})
    reservation = value(await world.limiter.reserve(endpoint=CHAT, identifier=IP, cost=5))
    assert (reservation.allowed, reservation.expires_in) == (True, 0.0)
    assert value(await world.limiter.commit(reservation.id)).applied is False
    assert await world.limiter.extend(reservation, ttl_seconds=5) == Success(None)


async def test_rules_in_shadow_mode_are_reserved_and_settled_beside_the_others() -> None:
    """They deny nothing and see the real cost."""
    watching = RateLimitRule(500, 0.001, "ip", name="watching", shadow=True)
    world = World({CHAT: (TOKENS, watching)})
    await world.limiter.commit(await reserve(world, 400), cost=100)
    await reserve(world, 400)
    assert world.limiter.shadow_denials == {}
    assert (await reserve(world, 200)).allowed
    assert world.limiter.shadow_denials == {"watching": 1}


async def test_a_storage_without_the_verbs_is_refused_where_they_are_needed() -> None:
    """By name: a rule of calls in flight when the limiter is built or the rules change, a call when it is made."""

    class Plain:
        traits = MemoryStorage().traits
        take = MemoryStorage.take
        peek = MemoryStorage.peek
        refund = MemoryStorage.refund
        reset = MemoryStorage.reset
        aclose = MemoryStorage.aclose

    with pytest.raises(InvalidInputError, match="Plain.*in flight"):
        TokenBucketAdapter(storage=Plain(), rules={CHAT: TWO})  # type: ignore[arg-type]
    limiter = TokenBucketAdapter(storage=Plain(), rules={CHAT: TOKENS})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="Plain.*in flight"):
        limiter.rules.replace({CHAT: TWO})
    with pytest.raises(InvalidTypeError, match="Plain.*ReservationStorage"):
        await limiter.reserve(endpoint=CHAT, identifier=IP)


def test_the_sync_limiter_has_the_same_verbs() -> None:
    """Plain calls, the same answers."""
    clock = FakeClock()
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=clock), rules={CHAT: (TOKENS, TWO)}, clock=clock)
    reservation = value(limiter.reserve(endpoint=CHAT, identifier=IP, cost=400))
    assert limiter.extend(reservation, ttl_seconds=90) == Success(None)
    assert value(limiter.commit(reservation.id, cost=100)).returned == 300
    assert value(limiter.cancel(reservation)).applied is False
    with limiter.budget(endpoint=CHAT, identifier=IP, cost=400) as budget:
        budget.cost = 50
    assert value(budget.settlement).charged == 50
    with limiter.hold(endpoint=CHAT, identifier=IP) as hold:
        assert limiter.renew(hold) == Success(None)
        other = value(limiter.acquire(endpoint=CHAT, identifier=IP))
        with pytest.raises(RateLimitedError), limiter.hold(endpoint=CHAT, identifier=IP):
            raise AssertionError
        assert value(limiter.release(other)).applied
    assert value(limiter.get_remaining(endpoint=CHAT, identifier=IP)) == 848


@pytest.mark.parametrize("hold_seconds", [4, 600])
async def test_a_call_in_flight_that_is_reserved_ends_with_its_own_time(hold_seconds: int) -> None:
    """Without a time: a process that dies gives the slot back when the rule says so; its tokens count as spent after a minute."""
    streams = RateLimitRule.in_flight(1, scope="ip", hold_seconds=hold_seconds)
    world = World({CHAT: (RateLimitRule(1000, 0.001, "ip", name="tokens"), streams)})
    reservation = await reserve(world, 5)
    assert reservation.expires_in == min(hold_seconds, 60)
    world.clock.advance(hold_seconds - 1)
    assert not (await reserve(world, 5)).allowed
    world.clock.advance(1)
    assert (await reserve(world, 5)).allowed
    settled = value(await world.limiter.commit(reservation, cost=0))
    assert (settled.returned > 0) == (hold_seconds == 4)
    assert (await reserve(World({CHAT: TOKENS}), 5)).expires_in == 60
    assert (await reserve(World({CHAT: (TOKENS, streams)}), 5, ttl_seconds=7)).expires_in == 7


async def test_rules_that_come_while_a_call_runs_and_count_another_scope() -> None:
    """What the call has claimed is still settled and extended; nothing was claimed of what its identifier does not name."""
    shadow = RateLimitRule(10, 1, "tenant", shadow=True)
    later = {
        CHAT: (TOKENS, TWO, RateLimitRule(5, 1, "user", name="later"), RateLimitRule.in_flight(1, scope="plan"), shadow)
    }
    client = {"ip": IP}
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={CHAT: (TOKENS, TWO)})
    reservation = value(await limiter.reserve(endpoint=CHAT, identifier=client, cost=700))
    hold = value(await limiter.acquire(endpoint=CHAT, identifier=client))
    limiter.rules.replace(later)
    value(await limiter.extend(reservation, ttl_seconds=90))
    value(await limiter.renew(hold))
    settlement = value(await limiter.commit(reservation, cost=450))
    assert (settlement.applied, settlement.charged, settlement.returned) == (True, 450, 250)
    assert [rule.policy for rule in settlement.rules] == ["tokens"]
    assert value(await limiter.release(hold)).applied
    with pytest.raises(InvalidInputError, match="scope 'user'"):
        await limiter.reserve(endpoint=CHAT, identifier=client, cost=1)
    reservation = value(
        await limiter.reserve(endpoint=CHAT, identifier={"ip": IP, "user": "u", "plan": "p", "tenant": "t"})
    )
    limiter.rules.replace({CHAT: RateLimitRule(5, 1, "account")})
    assert not value(await limiter.commit(reservation)).applied  # its buckets have no rule any more


def test_a_budget_whose_rules_change_meanwhile_is_left_as_it_was_entered() -> None:
    """The `with` raises nothing, and commits."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={CHAT: (TOKENS, TWO)})
    with limiter.budget(endpoint=CHAT, identifier={"ip": IP}, cost=700) as budget:
        budget.cost = 450
        limiter.rules.replace({CHAT: (TOKENS, RateLimitRule(5, 1, "user"))})
    assert value(budget.settlement).charged == 450
