"""The limiter's contract on the embedded storage."""

import asyncio
import inspect
import logging
import math
import time
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import (
    Failure,
    InlineEventBus,
    InvalidInputError,
    InvalidTypeError,
    KillSwitch,
    Listing,
    MemoryStorage,
    Override,
    RateLimitCheckAllowed,
    RateLimitCheckAttempted,
    RateLimitCheckDenied,
    RateLimitError,
    RateLimitProtocol,
    RateLimitResult,
    RateLimitRule,
    RateLimitScope,
    RedisStorage,
    RuleBook,
    RuleGroup,
    RuleRegistry,
    StdlibLogger,
    Success,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    merge_rules,
)
from sluicegate.testing import FailingStorage, FakeClock, RecordingEventBus, RecordingLogger
from support.world import IP, World

LOGIN = "POST /api/v1/sessions"
RULE = RateLimitRule(max_tokens=5, refill_rate=5, scope=RateLimitScope.IP)


async def test_five_pass_and_the_sixth_waits_twelve_seconds() -> None:
    """The design's first example, to the letter."""
    world = World({LOGIN: RULE})
    assert isinstance(world.limiter, RateLimitProtocol)
    results = [await world.check() for _ in range(6)]
    assert [result.allowed for result in results] == [True] * 5 + [False]
    assert [result.remaining for result in results] == [4, 3, 2, 1, 0, 0]
    assert results[0] == RateLimitResult(True, 0.0, 4, 5, 12)
    assert results[5] == RateLimitResult(False, 12.0, 0, 5, 60)
    world.clock.advance(12)
    assert (await world.check()).allowed
    assert not (await world.check()).allowed


async def test_identifiers_and_endpoints_do_not_share() -> None:
    """One client's exhaustion is nobody else's, and one endpoint's is no other's."""
    world = World({LOGIN: RULE, "GET /": RULE})
    for _ in range(6):
        await world.check()
    assert not (await world.check()).allowed
    assert (await world.check(identifier="192.168.1.2")).remaining == 4
    assert (await world.check(endpoint="GET /")).remaining == 4


async def test_a_global_rule_is_shared_by_all() -> None:
    """The scope GLOBAL has one bucket, whoever asks."""
    world = World({"GET /": RateLimitRule(2, 2, RateLimitScope.GLOBAL)})
    assert [(await world.check("GET /", str(n))).allowed for n in range(3)] == [True, True, False]


async def test_no_rule_allows_and_says_so_to_developers() -> None:
    """Limit and remaining are 0, nothing is published, and a debug line names the endpoint."""
    world = World({LOGIN: RULE})
    assert await world.check(endpoint="GET /other") == RateLimitResult(True, 0.0, 0, 0, 0)
    assert world.bus.events == []
    assert world.logger.records[0][0] == "debug"
    assert world.logger.records[0][2] == {"endpoint": "GET /other"}
    assert await world.limiter.get_remaining(endpoint="GET /other", identifier=IP) == Success(0)


async def test_a_disabled_rule_allows_and_touches_nothing() -> None:
    """Remaining and limit are the capacity; neither storage nor bus hears of it."""
    storage, bus = FailingStorage(), RecordingEventBus()
    rule = RateLimitRule(5, 5, "ip", enabled=False)
    limiter = TokenBucketAdapter(storage=storage, rules={LOGIN: rule}, event_bus=bus)
    for _ in range(9):
        result = await limiter.is_allowed(endpoint=LOGIN, identifier=IP)
        assert result == Success(RateLimitResult(True, 0.0, 5, 5, 0))
    assert await limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(5)
    assert await limiter.reset(endpoint=LOGIN, identifier=IP) == Success(None)
    assert (storage.calls, bus.events) == (0, [])


async def test_a_cost_replaces_the_rules_cost() -> None:
    """0 means the rule's own cost, anything else is taken instead."""
    world = World({LOGIN: RateLimitRule(5, 5, "ip", cost=2)})
    assert (await world.check()).remaining == 3
    assert (await world.check(cost=3)).remaining == 0
    assert {event.cost for event in world.bus.events if isinstance(event, RateLimitCheckAllowed)} == {2, 3}


async def test_an_impossible_cost_is_denied_for_ever_and_costs_nothing() -> None:
    """retry_after is infinite, a warning is written, and the bucket stays as it was."""
    world = World({LOGIN: RULE})
    result = await world.check(cost=6)
    assert (result.allowed, result.retry_after, result.limit) == (False, math.inf, 5)
    assert [level for level, _, _ in world.logger.records] == ["warning"]
    assert await world.limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(5)
    assert [type(event) for event in world.bus.events] == [RateLimitCheckAttempted, RateLimitCheckDenied]


WRONG = [
    ({"cost": -1}, "cost=-1: expected 0"),
    ({"cost": 1.0}, "cost=1.0: expected a whole number, not float"),
    ({"cost": 0.0}, "cost=0.0: expected a whole number, not float"),
    ({"cost": False}, "cost=False: expected a whole number, not bool"),
    ({"cost": "1"}, "cost='1': expected a whole number, not str"),
    ({"cost": None}, "cost=None: expected a whole number"),
    ({"endpoint": ""}, "endpoint='': expected a string that is not empty"),
    ({"endpoint": None}, "endpoint=None: expected a string"),
    ({"endpoint": ["GET /"]}, "endpoint=['GET /']: expected a string"),
    ({"endpoint": "x" * 1025}, "1025 bytes long, expected at most 1024"),
    ({"identifier": ""}, "identifier='': expected a string that is not empty"),
    ({"identifier": 5}, "identifier=5: expected a string, not int"),
    ({"identifier": None}, "identifier=None: expected a string"),
    ({"identifier": b"x"}, "identifier=b'x': expected a string, not bytes"),
    ({"identifier": "x" * 1025}, "1025 bytes long, expected at most 1024"),
    ({"identifier": {}}, "identifier={}: expected an entry for each scope"),
    ({"identifier": {"user": "u"}}, "has no entry for the scope 'ip'"),
    ({"identifier": {"ip": ""}}, "identifier['ip']='': expected a string that is not empty"),
]


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        (verb, arguments, message)
        for verb in ("is_allowed", "peek", "reset", "refund")
        for arguments, message in WRONG
        if verb != "reset" or "cost" not in arguments
    ],
    ids=lambda value: str(value)[:40],
)
async def test_wrong_arguments_are_named_and_change_nothing(
    verb: str, arguments: dict[str, object], message: str
) -> None:
    """Every verb raises a ValueError that names field and value; the bucket is untouched, also after a good call."""
    world = World({LOGIN: RULE})
    await world.check()
    unobserved = TokenBucketAdapter(storage=world.storage, rules={LOGIN: RULE})
    for limiter in (world.limiter, unobserved):
        with pytest.raises(ValueError, match=".") as caught:
            await getattr(limiter, verb)(**{"endpoint": LOGIN, "identifier": IP, **arguments})
        assert message in str(caught.value)
    assert await world.limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(4)


async def test_several_rules_are_all_or_nothing() -> None:
    """If the minute's rule denies, the hour's and the user's are not charged; the answer is the tightest rule's."""
    burst, sustained = RateLimitRule.per_minute(2), RateLimitRule.per_hour(100)
    per_user = RateLimitRule.per_minute(50, scope="user")
    world = World({"GET /": (burst, sustained, per_user)})
    who = {"ip": IP, "user": "alice"}
    results = [await world.check("GET /", who) for _ in range(4)]
    assert [result.allowed for result in results] == [True, True, False, False]
    assert results[0].limit == 2
    assert results[2].retry_after == 30.0
    world.clock.advance(60)
    for _ in range(2):
        assert (await world.check("GET /", who)).allowed
    only_user = TokenBucketAdapter(storage=world.storage, rules={"GET /": (burst, sustained, per_user)})
    peeked = await only_user.peek(endpoint="GET /", identifier={"ip": "other", "user": "alice"})
    assert peeked == Success(RateLimitResult(True, 0.0, 2, 2, 0))
    elsewhere = TokenBucketAdapter(storage=world.storage, rules={"GET /": per_user})
    assert await elsewhere.get_remaining(endpoint="GET /", identifier="alice") == Success(48)


async def test_peek_tells_and_changes_nothing() -> None:
    """It answers what the check would, for any cost, without publishing."""
    world = World({LOGIN: RULE})
    await world.check(cost=3)
    events = len(world.bus.events)
    for _ in range(5):
        assert await world.limiter.peek(endpoint=LOGIN, identifier=IP) == Success(RateLimitResult(True, 0.0, 2, 5, 36))
    denied = await world.limiter.peek(endpoint=LOGIN, identifier=IP, cost=4)
    assert denied == Success(RateLimitResult(False, 24.0, 2, 5, 36))
    assert (await world.limiter.peek(endpoint=LOGIN, identifier=IP, cost=9)).value.retry_after == math.inf
    assert len(world.bus.events) == events


async def test_reset_fills_the_bucket_and_is_logged() -> None:
    """The next check finds five tokens; the log line shows no address."""
    world = World({LOGIN: RULE})
    for _ in range(6):
        await world.check()
    assert await world.limiter.reset(endpoint=LOGIN, identifier=IP) == Success(None)
    assert (await world.check()).remaining == 4
    level, message, context = world.logger.records[-1]
    assert (level, message, context["endpoint"]) == ("info", "Rate limit reset done.", LOGIN)
    assert IP not in str(world.logger.records)


async def test_reset_of_an_unknown_endpoint_has_nothing_to_do() -> None:
    """A success, as the contract says; a refund of tokens that nobody took is none. Both are logged."""
    world = World({LOGIN: RULE})
    assert await world.limiter.reset(endpoint="POST /typo", identifier=IP) == Success(None)
    assert (world.logger.records[-1][0], world.logger.records[-1][2]) == ("info", {"endpoint": "POST /typo"})
    result = await world.limiter.refund(endpoint="POST /typo", identifier=IP)
    assert isinstance(result, Failure)
    assert result.error == RateLimitError(
        "no_rule", "No rate limit rule names the endpoint 'POST /typo'.", "POST /typo"
    )
    assert str(result.error).startswith("No rate limit rule")
    assert world.logger.records[-1][0] == "error"


async def test_reset_and_refund_act_while_a_kill_switch_is_thrown() -> None:
    """What was counted before is given back at once, not after the switch, by rules in shadow mode as well."""
    world = World({LOGIN: (RULE, RateLimitRule(5, 5, "ip", name="trial", shadow=True))})
    sync = SyncTokenBucketAdapter(storage=world.storage, rules={LOGIN: RULE})
    for switched_off in ("", RULE.policy):
        await world.check(cost=5)
        world.limiter.rules.switch_off(switched_off)
        sync.rules.switch_off(switched_off)
        assert await world.limiter.refund(endpoint=LOGIN, identifier=IP, cost=2) == Success(None)
        world.limiter.rules.switch_on(switched_off)
        assert await world.limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(2)
        assert sync.reset(endpoint=LOGIN, identifier=IP) == Success(None)
        assert await world.limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(5)
        await world.check(cost=5)
        world.limiter.rules.switch_off(switched_off, for_seconds=60)
        world.now += timedelta(seconds=61)
        assert await world.limiter.reset(endpoint=LOGIN, identifier=IP) == Success(None)
        assert await world.limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(5)


async def test_refund_gives_back_and_never_overfills() -> None:
    """A charge that came to nothing can be returned; more than the capacity cannot."""
    world = World({LOGIN: RULE})
    for _ in range(5):
        await world.check()
    assert await world.limiter.refund(endpoint=LOGIN, identifier=IP) == Success(None)
    assert [(await world.check()).allowed for _ in range(2)] == [True, False]
    for _ in range(3):
        await world.limiter.refund(endpoint=LOGIN, identifier=IP, cost=5)
    assert await world.limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(5)
    with pytest.raises(InvalidInputError, match="cost=6: exceeds max_tokens=5 of 'POST /api/v1/sessions'"):
        await world.limiter.refund(endpoint=LOGIN, identifier=IP, cost=6)


async def test_events_tell_the_story() -> None:
    """Attempted before, allowed or denied after, each with an id, a timestamp and the effective cost."""
    world = World({LOGIN: RULE})
    for _ in range(6):
        await world.check()
    kinds = [type(event) for event in world.bus.events]
    assert kinds == [RateLimitCheckAttempted, RateLimitCheckAllowed] * 5 + [
        RateLimitCheckAttempted,
        RateLimitCheckDenied,
    ]
    attempted, allowed, denied = world.bus.events[0], world.bus.events[1], world.bus.events[-1]
    assert (attempted.endpoint, attempted.identifier, attempted.scope, attempted.cost) == (LOGIN, IP, "ip", 1)
    assert (allowed.remaining_tokens, allowed.cost) == (4, 1)
    assert allowed.execution_time_ms >= 0
    assert denied.retry_after == 12.0
    assert len({event.event_id for event in world.bus.events}) == 12
    assert {event.event_id.version for event in world.bus.events} == {7}


async def test_no_listener_no_event() -> None:
    """A bus that listens to denials alone gets nothing else built."""

    class Picky(RecordingEventBus):
        def listens(self, event_type: type) -> bool:
            return event_type is RateLimitCheckDenied

    bus = Picky()
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={LOGIN: RULE}, event_bus=bus)
    for _ in range(6):
        await limiter.is_allowed(endpoint=LOGIN, identifier=IP)
    assert [type(event) for event in bus.events] == [RateLimitCheckDenied]


@given(
    st.lists(
        st.tuples(st.sampled_from([LOGIN, "GET /"]), st.sampled_from(["a", "b:c"]), st.integers(0, 6)), max_size=40
    )
)
def test_a_listener_changes_no_answer(steps: list[tuple[str, str, int]]) -> None:
    """A limiter that is listened to, and one that is not, give the same answers to the same traffic."""
    rules = {LOGIN: RULE, "GET /": RateLimitRule(3, 7, "global", cost=2)}
    clocks = FakeClock(), FakeClock()
    alone = SyncTokenBucketAdapter(storage=MemoryStorage(clock=clocks[0]), rules=rules)
    heard = SyncTokenBucketAdapter(
        storage=MemoryStorage(clock=clocks[1]), rules=rules, event_bus=RecordingEventBus(), logger=RecordingLogger()
    )
    for endpoint, identifier, cost in steps:
        answers = [face.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost) for face in (alone, heard)]
        assert answers[0] == answers[1]
        for clock in clocks:
            clock.advance(3.7)


def test_a_listener_to_denials_gets_each_of_them() -> None:
    """What it is told is what the client was told; a listener that comes later hears from then on."""
    clock, bus, heard = FakeClock(), InlineEventBus(), []
    bus.subscribe(RateLimitCheckDenied, lambda e: heard.append((e.endpoint, e.identifier, e.cost, e.retry_after)))
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=clock), rules={LOGIN: RULE}, event_bus=bus)
    for _ in range(8):
        limiter.is_allowed(endpoint=LOGIN, identifier=IP)
        clock.advance(1)
    bus.subscribe(RateLimitCheckAttempted, lambda e: heard.append((type(e).__name__, e.identifier)))
    limiter.is_allowed(endpoint=LOGIN, identifier=IP)
    assert heard[:3] == [(LOGIN, IP, 1, 7.0), (LOGIN, IP, 1, 6.0), (LOGIN, IP, 1, 5.0)]
    assert heard[3] == ("RateLimitCheckAttempted", IP)


class Text(StrEnum):
    """Endpoints as an application may keep them."""

    LOGIN = LOGIN


class OlderText(str, Enum):  # noqa: UP042 - it prints as `OlderText.LOGIN`, unlike a StrEnum
    """The same before Python 3.11."""

    LOGIN = LOGIN
    TENANT = "tenant"
    DENY = "deny"


class Tokens(IntEnum):
    """Costs as an application may keep them."""

    FIVE = 5


def test_a_text_is_its_text_whatever_class_it_has() -> None:
    """The members of an enumeration, as endpoint of a rule or of a check, as identifier and as cost, mean their values."""
    for rules in ({LOGIN: RULE}, {Text.LOGIN: RULE}, {OlderText.LOGIN: RULE}):
        for text in (Text.LOGIN, OlderText.LOGIN):
            limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules=rules)
            assert limiter.is_allowed(endpoint=text, identifier=text, cost=Tokens.FIVE).value.allowed
            assert not limiter.is_allowed(endpoint=LOGIN, identifier={RateLimitScope.IP: text}).value.allowed
            assert not limiter.is_allowed(endpoint=LOGIN, identifier=LOGIN, cost=1).value.allowed


def test_texts_in_rules_are_their_texts() -> None:
    """Scope, name, policy and numbers of a rule, and the entries of a book, are plain, whatever class they came in."""
    rule = RateLimitRule(
        Tokens.FIVE, Tokens.FIVE, OlderText.TENANT, name=OlderText.DENY, on_storage_error=OlderText.DENY
    )
    plain = RateLimitRule(5, 5, "tenant", name="deny", on_storage_error="deny")
    assert rule == plain
    values = (rule.scope, rule.name, rule.on_storage_error, rule.max_tokens, rule.refill_rate)
    assert [type(value) for value in values] == [str, str, str, int, int]
    assert f"{rule.scope}" == "tenant"
    books = [
        RuleBook(
            {"GET /": one},
            groups=[RuleGroup(name=text("group"), rules=(one,), endpoints=(text("GET /b"),))],
            overrides=[Override(policy=text("deny"), identifier=text("t"), rule=one)],
            deny=[Listing(scope=text("tenant"), identifier=text("x"), reason=text("r"))],
            kill_switches=[KillSwitch(policies=(text("deny"),), reason=text("r"))],
        )
        for one, text in ((rule, _Loud), (plain, str))
    ]
    assert books[0].version == books[1].version
    assert repr(books[0].deny) == repr(books[1].deny)
    registry = RuleRegistry()
    registry.add(OlderText.LOGIN, rule)
    assert [type(endpoint) for endpoint in registry.rules] == [str]


class _Loud(str):
    """A text that prints, and hashes, as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()

    def __format__(self, _: str) -> str:
        return self.upper()

    def __hash__(self) -> int:
        return 1

    def __eq__(self, _: object) -> bool:
        return False


async def test_a_key_in_a_storage_is_the_plain_text() -> None:
    """Every process finds the bucket, however the texts were kept in the one that made it."""
    asked: list[str] = []

    class Spying(MemoryStorage):
        def take_nowait(self, requests: Any, /) -> Any:
            asked.extend(request.key for request in requests)
            return super().take_nowait(requests)

    rules = (RateLimitRule(5, 5, _Loud("tenant")), RateLimitRule(9, 9, _Loud("tenant"), name=_Loud("day")))
    limiter = SyncTokenBucketAdapter(storage=Spying(), rules={_Loud("a"): rules}, key_prefix=_Loud("limits"))
    limiter.is_allowed(endpoint=_Loud("a"), identifier={_Loud("tenant"): _Loud("acme")})
    assert asked == ["limits:tenant:acme:a", "limits:tenant~day:acme:a"]
    assert {type(key) for key in asked} == {str}


@pytest.mark.parametrize(
    "arguments",
    [
        {"endpoint": 5},
        {"endpoint": ""},
        {"identifier": None},
        {"identifier": {}},
        {"identifier": {"ip": 7}},
        {"identifier": {None: "a"}},
        {"cost": True},
        {"cost": 1.0},
        {"cost": -1},
        {"cost": "1"},
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(arguments: dict[str, object]) -> None:
    """Whatever its type, it raises the error that names the field; compiled code would otherwise name a type only."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={LOGIN: RULE})
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        limiter.is_allowed(**{"endpoint": LOGIN, "identifier": IP, **arguments})


@pytest.mark.parametrize("limiter_class", [TokenBucketAdapter, SyncTokenBucketAdapter])
def test_something_that_is_no_storage_is_refused(limiter_class: type) -> None:
    """At construction, with a sentence that says what was expected: else every check would fail open for ever."""
    with pytest.raises(InvalidTypeError, match=r"storage=dict: expected a .* with `traits` and `take"):
        limiter_class(storage={}, rules={LOGIN: RULE})


@pytest.mark.parametrize("limiter_class", [TokenBucketAdapter, SyncTokenBucketAdapter])
def test_every_argument_survives_with_rules(limiter_class: Any) -> None:
    """A limiter with other rules is made with each argument of the first one: none is left at its default."""
    given: dict[str, Any] = {
        "storage": MemoryStorage(),
        "event_bus": RecordingEventBus(),
        "logger": RecordingLogger(),
        "deadline_ms": 7,
        "on_storage_error": "deny",
        "key_prefix": "p",
        "identifier_secret": b"s",
        "log_identifiers": True,
        "clock": FakeClock(),
        "wall_clock": lambda: datetime(2030, 1, 1, tzinfo=UTC),
        "enabled": False,
    }
    parameters = inspect.signature(limiter_class.__init__).parameters.keys() - {"self", "rules"}
    given = {name: given[name] for name in parameters}
    first = limiter_class(rules={}, **given)
    for limiter in (first, first.with_rules({}), first.with_rules({}).with_rules({})):
        assert limiter._like_this.keywords == given
        assert limiter._like_this.func is limiter_class
    assert LOGIN in first.with_rules({LOGIN: RULE}).rules.book


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - that is the mistake


class _CoroutineVerbs(MemoryStorage):
    async def reset_blocking(self, _: object, /) -> None: ...  # type: ignore[override]


class _Lacking(MemoryStorage):
    peek = refund_blocking = None  # type: ignore[assignment]


class _Seconds(FakeClock):
    def now_us(self) -> float:  # type: ignore[override]
        return 1.5


@pytest.mark.parametrize("limiter_class", [TokenBucketAdapter, SyncTokenBucketAdapter])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"storage": MemoryStorage}, "storage=MemoryStorage: expected a .*; it lacks an instance"),
        ({"storage": _Lacking()}, "storage=_Lacking: .*; it lacks `(peek|refund_blocking)`"),
        ({"event_bus": object()}, "event_bus=.*: expected an EventBusProtocol with `listens`"),
        ({"event_bus": InlineEventBus}, "event_bus=InlineEventBus: expected .* an instance and not the class"),
        ({"event_bus": print}, "event_bus=.*: expected an EventBusProtocol"),
        ({"logger": logging.getLogger("shop")}, r"logger=.*: takes no context; expected StdlibLogger\('shop'\)"),
        ({"logger": print}, "logger=.*: expected a LoggerProtocol with `debug`"),
        ({"logger": StdlibLogger}, "logger=StdlibLogger: expected .* an instance"),
        ({"clock": time.monotonic}, "clock=.*: expected a Clock with `now_us`"),
        ({"clock": FakeClock}, "clock=FakeClock: expected .* an instance"),
        ({"clock": _Seconds()}, r"clock=.*: now_us\(\) returned 1.5; expected whole microseconds"),
        ({"wall_clock": NAIVE}, "wall_clock=.*: expected a function"),
        ({"wall_clock": lambda: NAIVE}, "wall_clock=.*: returned a time without a zone"),
        ({"wall_clock": time.time}, "wall_clock=.*: returned .*; expected a datetime"),
        ({"identifier_secret": "secret"}, "identifier_secret: expected bytes, not str"),
        ({"identifier_secret": b""}, "identifier_secret: expected 1 to 64 bytes"),
        ({"log_identifiers": "no"}, "log_identifiers='no': expected True or False"),
        ({"enabled": "no"}, "enabled='no': expected True or False"),
        ({"key_prefix": b"p"}, "key_prefix=b'p'"),
        ({"on_storage_error": ["deny"]}, "on_storage_error=.*: expected one of allow, local, deny"),
        ({"rules": None}, "rules=None: expected a mapping"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_the_constructor_is_named(
    limiter_class: Any, arguments: dict[str, object], message: str
) -> None:
    """Where the mistake is made: by a check it would be raised, answered by the failure policy, or never be seen."""
    with pytest.raises(InvalidInputError, match=message):
        limiter_class(**{"storage": MemoryStorage(), "rules": {}, **arguments})


def test_the_storage_of_the_other_face_is_refused() -> None:
    """An async limiter gets no storage that blocks, a sync one none that must be awaited; the message says who takes it."""
    refused: list[tuple[Any, Any, str]] = [
        (TokenBucketAdapter, SyncRedisStorage.from_url("redis://127.0.0.1"), "a SyncRedisStorage is for Sync"),
        (
            SyncTokenBucketAdapter,
            RedisStorage.from_url("redis://127.0.0.1"),
            "a RedisStorage is for TokenBucketAdapter",
        ),
        (SyncTokenBucketAdapter, FailingStorage(), "it lacks `take_blocking`"),
        (
            SyncTokenBucketAdapter,
            _CoroutineVerbs(),
            "`reset_blocking` is a coroutine function; expected one that blocks",
        ),
    ]
    for limiter_class, storage, message in refused:
        with pytest.raises(InvalidTypeError, match=message):
            limiter_class(storage=storage, rules={})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Listing(scope="ip", identifier="10.0.0.1", until=NAIVE), "until=.*: has no time zone"),
        (
            lambda: Listing(scope="ip", identifier="10.0.0.1", until="2030-01-01"),
            "until='2030-01-01': expected a datetime",
        ),
        (lambda: Listing(scope="IP", identifier="10.0.0.1"), "scope='IP': unknown scope"),
        (lambda: Listing(scope="ip", identifier=""), "identifier=''"),
        (lambda: Listing(scope="ip", identifier=None), "identifier=None: expected a string"),
        (lambda: Listing(scope="ip", identifier="10.0.0.1", reason=None), "reason=None: expected a text"),
        (lambda: Override(policy="p", identifier="a", rule="5/minute"), "rule='5/minute': expected a RateLimitRule"),
        (lambda: Override(policy="p", identifier="a", rule=RULE, until=NAIVE), "until=.*: has no time zone"),
        (lambda: Override(policy=None, identifier="a", rule=RULE), "policy=None: expected a string"),
        (lambda: KillSwitch(policies="login"), "policies='login': expected a tuple of texts"),
        (lambda: KillSwitch(until=NAIVE), "until=.*: has no time zone"),
        (lambda: RuleGroup(name="g", rules=(RULE,), endpoints="GET /"), "endpoints='GET /': expected a tuple of texts"),
        (lambda: RuleGroup(name=None, rules=(RULE,), endpoints=("GET /",)), "name=None: expected a string"),
        (lambda: RuleBook({}, deny=["10.0.0.1"]), "deny: expected a Listing, not '10.0.0.1'"),
        (lambda: RuleBook({}, allow="10.0.0.1"), "allow='10.0.0.1': expected a sequence of Listing"),
        (lambda: RuleBook({}, groups=[{}]), "groups: expected a RuleGroup, not {}"),
        (lambda: RuleBook({}, overrides=None), "overrides=None: expected a sequence of Override"),
        (lambda: RuleBook({}, kill_switches=KillSwitch()), "kill_switches=.*: expected a sequence of KillSwitch"),
        (lambda: RuleBook({"a": RULE}, costs=["a"]), "costs=.*: expected a mapping"),
        (lambda: RuleBook({"a": RULE}, costs={"a": "2"}), "cost='2': expected a whole number"),
        (lambda: RuleBook({}, policies={"p": "5/minute"}), "policies.'p'.='5/minute': expected a RateLimitRule"),
        (lambda: RuleBook({}, replaces_code="GET /"), "replaces_code='GET /': expected a tuple of texts"),
        (
            lambda: RuleBook({}, groups=[RuleGroup(name="g", rules=(RULE,), endpoints=("a", "a"))]),
            r"groups.g.endpoints\[1\]: 'a' is listed twice",
        ),
        (lambda: merge_rules({"a": 5}, {}), r"rules\['a'\]=5: expected a RateLimitRule"),
        (lambda: merge_rules([RULE], {}), "code_rules=.*: expected a mapping"),
    ],
)
def test_a_wrong_entry_of_a_book_is_named(make: Any, message: str) -> None:
    """Lists, overrides, groups and kill switches that are built in code are checked as those of a file are."""
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_clock_that_fails_does_not_reach_the_caller() -> None:
    """It is answered by the failure policy, like everything else that goes wrong."""

    class Broken(FakeClock):
        def now_us(self) -> int:
            raise OSError("no clock")

    limiter = SyncTokenBucketAdapter(
        storage=MemoryStorage(clock=Broken()), rules={LOGIN: RULE}, logger=RecordingLogger()
    )
    assert limiter.is_allowed(endpoint=LOGIN, identifier=IP).value.allowed


def test_the_sync_face_gives_the_same_answers() -> None:
    """Plain calls on the same storage, step by step."""
    clock = FakeClock()
    storage = MemoryStorage(clock=clock)
    limiter = SyncTokenBucketAdapter(storage=storage, rules={LOGIN: RULE}, event_bus=(bus := RecordingEventBus()))
    results = [limiter.is_allowed(endpoint=LOGIN, identifier=IP).value for _ in range(6)]
    assert [result.allowed for result in results] == [True] * 5 + [False]
    assert limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(0)
    assert limiter.peek(endpoint=LOGIN, identifier=IP).value.retry_after == 12.0
    assert limiter.refund(endpoint=LOGIN, identifier=IP, cost=2) == Success(None)
    assert limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(2)
    assert limiter.reset(endpoint=LOGIN, identifier=IP) == Success(None)
    assert limiter.get_remaining(endpoint=LOGIN, identifier=IP) == Success(5)
    assert limiter.reset(endpoint="typo", identifier=IP) == Success(None)
    assert isinstance(limiter.refund(endpoint="typo", identifier=IP), Failure)
    assert limiter.peek(endpoint="typo", identifier=IP).value.limit == 0
    assert len(bus.events) == 12
    assert limiter.failures == {}


async def test_cancellation_propagates() -> None:
    """A caller that gives up is not given an answer."""
    limiter = TokenBucketAdapter(storage=FailingStorage("hang"), rules={LOGIN: RULE}, deadline_ms=60_000)
    task = asyncio.create_task(limiter.is_allowed(endpoint=LOGIN, identifier=IP))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deadline_ms": 0}, "deadline_ms=0: expected 1 to 60000"),
        ({"deadline_ms": 1.5}, "deadline_ms=1.5: expected whole milliseconds"),
        ({"on_storage_error": "open"}, "on_storage_error='open': expected one of allow, local, deny"),
        ({"key_prefix": ""}, "key_prefix=''"),
        ({"rules": {"GET /": 5}}, "expected a RateLimitRule"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    """A limiter is checked when it is built."""
    with pytest.raises(InvalidInputError) as caught:
        TokenBucketAdapter(**{"storage": MemoryStorage(), "rules": {}, **settings})
    assert message in str(caught.value)


async def test_aclose_closes_the_storage() -> None:
    """The limiter owns nothing else."""
    world = World({LOGIN: RULE})
    await world.limiter.aclose()
    assert repr(world.limiter).startswith("TokenBucketAdapter(storage=MemoryStorage(")
