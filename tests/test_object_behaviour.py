"""What users do with our objects besides calling them works alike compiled and pure: patch, subclass, pickle, copy, inspect."""

import asyncio
import copy
import inspect
import pickle
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any
from unittest import mock

import pytest
import redis
import redis.asyncio

import sluicegate
from sluicegate import (
    BufferedEventBus,
    Failure,
    InlineEventBus,
    InvalidInputError,
    InvalidTypeError,
    KillSwitch,
    Listing,
    MemoryStorage,
    Override,
    RateLimitAdministered,
    RateLimitCheckDenied,
    RateLimitError,
    RateLimitEvent,
    RateLimitFailedOpen,
    RateLimitResult,
    RateLimitRule,
    RateLimitRulesChanged,
    RateLimitScope,
    RateLimitSwitched,
    RuleBook,
    RuleFileError,
    RuleGroup,
    SlotTimeoutError,
    StdlibLogger,
    StorageError,
    Success,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.application.check import Decision
from sluicegate.testing import FailingStorage, FakeClock

ENDPOINT = "POST /login"
RULE = RateLimitRule(max_tokens=2, refill_rate=60, scope=RateLimitScope.IP)
ALLOWED = RateLimitResult(allowed=True, retry_after=0.0, remaining=1, limit=2, reset_seconds=1)
ALL = RateLimitRule(max_tokens=5, refill_rate=5, scope="ip", name="all")
DENIED = RateLimitResult(allowed=False, retry_after=inf, remaining=0, limit=0, reset_seconds=0)
ASYNC_VERBS = ("is_allowed", "check", "wait", "peek", "get_remaining", "reset", "refund", "aclose")
PARAMETERS = {
    "is_allowed": "(self, *, endpoint, identifier, cost=0)",
    "check": "(self, *, endpoint, identifier, cost=0, also=(), rules=None)",
    "peek": "(self, *, endpoint, identifier, cost=0)",
    "get_remaining": "(self, *, endpoint, identifier)",
    "reset": "(self, *, endpoint, identifier)",
    "refund": "(self, *, endpoint, identifier, cost=0)",
}


def limiter() -> TokenBucketAdapter:
    """Return a limiter in memory with one rule."""
    return TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={ENDPOINT: RULE})


def sync_limiter() -> SyncTokenBucketAdapter:
    """Return the same behind the sync face."""
    return SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={ENDPOINT: RULE})


# Replacing methods


async def test_a_method_of_a_limiter_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """`monkeypatch.setattr(limiter, "is_allowed", fake)` is how an application tests its own 429."""
    ours = limiter()

    async def fake(*, endpoint: str, identifier: str, cost: int = 0) -> Success[RateLimitResult]:
        return Success(DENIED)

    with monkeypatch.context() as patch:
        patch.setattr(ours, "is_allowed", fake)
        assert await ours.is_allowed(endpoint=ENDPOINT, identifier="a") == Success(DENIED)
    assert (await ours.is_allowed(endpoint=ENDPOINT, identifier="a")).value.allowed


async def test_a_method_of_the_class_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limiters that were made before the patch obey it too."""
    ours = limiter()

    async def fake(self: object, **_: object) -> Success[RateLimitResult]:
        return Success(DENIED)

    monkeypatch.setattr(TokenBucketAdapter, "is_allowed", fake)
    assert await ours.is_allowed(endpoint=ENDPOINT, identifier="a") == Success(DENIED)


async def test_patch_object_works_on_an_instance_and_on_the_class() -> None:
    """`mock.patch.object` makes an `AsyncMock` of an async verb, and puts the verb back."""
    ours = limiter()
    for target in (ours, TokenBucketAdapter):
        with mock.patch.object(target, "is_allowed") as fake:
            assert isinstance(fake, mock.AsyncMock)
            fake.return_value = Success(DENIED)
            assert await ours.is_allowed(endpoint=ENDPOINT, identifier="a") == Success(DENIED)
        assert (await ours.is_allowed(endpoint=ENDPOINT, identifier="a")).value.allowed


@pytest.mark.parametrize("make", [limiter, sync_limiter])
def test_an_autospec_of_a_limiter_takes_the_arguments_of_the_limiter(make: Callable[[], Any]) -> None:
    """`create_autospec` of an instance or a class refuses an argument that the verb does not have."""
    for spec in (mock.create_autospec(make(), instance=True), mock.create_autospec(type(make()), instance=True)):
        call = spec.is_allowed(endpoint=ENDPOINT, identifier="a")
        if inspect.iscoroutine(call):
            call.close()
        if not sluicegate.COMPILED:  # there a coroutine method tells no signature, and the mock takes any arguments
            with pytest.raises(TypeError):
                spec.is_allowed(path=ENDPOINT)
        assert isinstance(spec, type(make()))


async def test_an_autospec_of_a_storage_can_stand_in_for_it() -> None:
    """The verbs of the mock are awaitable as the storage's are."""
    storage = mock.create_autospec(MemoryStorage, instance=True)
    storage.aclose.return_value = None
    await storage.aclose()
    storage.aclose.assert_awaited_once_with()


def test_sync_methods_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sync face obeys like the other."""
    ours = sync_limiter()
    monkeypatch.setattr(ours, "is_allowed", lambda **_: Success(DENIED))
    assert ours.is_allowed(endpoint=ENDPOINT, identifier="a") == Success(DENIED)


# Subclassing


async def test_a_subclass_of_the_limiter_overrides_a_verb() -> None:
    """It calls the verb that it overrides, and carries attributes of its own."""

    class Counting(TokenBucketAdapter):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.calls: list[str] = []

        async def is_allowed(self, *, endpoint: str, identifier: Any, cost: int = 0) -> Any:
            self.calls.append(endpoint)
            return await super().is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)

    ours = Counting(storage=MemoryStorage(clock=FakeClock()), rules={ENDPOINT: RULE})
    assert (await ours.is_allowed(endpoint=ENDPOINT, identifier="a")).value == ALLOWED
    assert ours.calls == [ENDPOINT]


async def test_get_remaining_asks_the_peek_of_the_subclass() -> None:
    """A verb that is built on another one finds the override."""

    class Peeking(TokenBucketAdapter):
        async def peek(self, *, endpoint: str, identifier: Any, cost: int = 0) -> Any:
            return Success(RateLimitResult(allowed=True, retry_after=0.0, remaining=77, limit=77, reset_seconds=0))

    ours = Peeking(storage=MemoryStorage(clock=FakeClock()), rules={ENDPOINT: RULE})
    assert await ours.get_remaining(endpoint=ENDPOINT, identifier="a") == Success(77)


def test_a_subclass_of_the_sync_limiter_overrides_a_verb() -> None:
    """The sync face can be extended like the other."""

    class Lenient(SyncTokenBucketAdapter):
        def is_allowed(self, *, endpoint: str, identifier: Any, cost: int = 0) -> Any:
            super().is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)
            return Success(ALLOWED)

    ours = Lenient(storage=MemoryStorage(clock=FakeClock()), rules={ENDPOINT: RULE})
    assert [ours.is_allowed(endpoint=ENDPOINT, identifier="a") for _ in range(3)] == [Success(ALLOWED)] * 3


async def test_a_check_goes_through_the_take_that_a_subclass_of_the_storage_overrides() -> None:
    """A storage that logs, counts or breaks what it takes is asked by async limiters, not passed by."""

    class Broken(MemoryStorage):
        def take_nowait(self, requests: Sequence[Any], /) -> Any:
            raise StorageError("connection")

    ours = TokenBucketAdapter(storage=Broken(), rules={ENDPOINT: RULE}, on_storage_error="deny")
    assert not (await ours.is_allowed(endpoint=ENDPOINT, identifier="a")).value.allowed
    assert ours.failures["connection"] == 1


MADE_WITH: list[tuple[type, dict[str, Any]]] = [
    (BufferedEventBus, {}),
    (Failure, {"error": 1}),
    (InlineEventBus, {}),
    (KillSwitch, {}),
    (Listing, {"scope": "ip", "identifier": "127.0.0.1"}),
    (MemoryStorage, {}),
    (Override, {"policy": "all", "identifier": "a", "rule": ALL}),
    (RateLimitError, {"reason": "no_rule", "message": "No rule."}),
    (RateLimitEvent, {"endpoint": ENDPOINT, "identifier": "a", "scope": "ip"}),
    (RateLimitResult, {"allowed": True, "retry_after": 0.0, "remaining": 1, "limit": 2, "reset_seconds": 1}),
    (RateLimitRule, {"max_tokens": 1, "refill_rate": 1, "scope": "ip"}),
    (RuleBook, {"endpoints": {ENDPOINT: RULE}}),
    (RuleFileError, {"path": "rules.toml", "message": "expected a number"}),
    (RuleGroup, {"name": "api", "rules": (ALL,), "endpoints": (ENDPOINT,)}),
    (SlotTimeoutError, {"endpoint": ENDPOINT, "retry_after": 1.0}),
    (StdlibLogger, {}),
    (StorageError, {"reason": "timeout"}),
    (Success, {"value": 1}),
    (SyncTokenBucketAdapter, {"storage": MemoryStorage(), "rules": {ENDPOINT: RULE}}),
    (TokenBucketAdapter, {"storage": MemoryStorage(), "rules": {ENDPOINT: RULE}}),
    (sluicegate.RedisStorage, {"redis_client": redis.asyncio.Redis()}),
    (sluicegate.SyncRedisStorage, {"redis_client": redis.Redis()}),
]


@pytest.mark.parametrize(("public", "arguments"), MADE_WITH, ids=lambda value: getattr(value, "__name__", ""))
def test_every_public_class_can_be_subclassed(public: type, arguments: dict[str, Any]) -> None:
    """The subclass is made with the same arguments, its override is what runs, and it reaches the one of the class."""

    def override(self: Any) -> str:
        return f"mine: {public.__repr__(self)}"

    derived = type(f"My{public.__name__}", (public,), {"__repr__": override})
    made = derived(**arguments)
    assert isinstance(made, public)
    assert repr(made) == f"mine: {public.__repr__(made)}"


# Pickling and copying

BOOK = RuleBook(
    {ENDPOINT: RULE},
    groups=[RuleGroup(name="api", rules=(ALL,), endpoints=("GET /a",))],
    overrides=[Override(policy="all", identifier="203.0.113.0/24", rule=replace(ALL, max_tokens=9))],
    allow=[Listing(scope="ip", identifier="127.0.0.1", until=datetime(2030, 1, 1, tzinfo=UTC))],
    kill_switches=[KillSwitch(policies=("all",), reason="drill")],
    costs={"GET /a": 2},
)

VALUES: list[object] = [
    ALLOWED,
    DENIED,
    Success(ALLOWED),
    Success(None),
    Failure(RateLimitError("timeout", "The storage did not answer.", ENDPOINT)),
    RateLimitError("no_rule", "No rule."),
    RULE,
    RateLimitRule(max_tokens=1, refill_rate=0.1, scope="tenant", cost=1, name="t", on_storage_error="deny"),
    RateLimitScope.USER,
    RuleGroup(name="api", rules=(RULE,), endpoints=(ENDPOINT,)),
    Listing(scope="ip", identifier="127.0.0.1"),
    Override(policy="all", identifier="a", rule=RULE),
    KillSwitch(reason="drill"),
    RateLimitCheckDenied(endpoint=ENDPOINT, identifier="a", scope="ip", cost=1, retry_after=1.5, execution_time_ms=0.1),
    RateLimitFailedOpen(
        endpoint=ENDPOINT,
        identifier="a",
        scope="ip",
        cost=1,
        reason="timeout",
        policy="allow",
        allowed=True,
        execution_time_ms=0.1,
    ),
    RateLimitRulesChanged(rules_version="b", previous_version="a"),
    RateLimitSwitched(rules_version="b", policies=("all",), off=True, until=datetime(2030, 1, 1, tzinfo=UTC)),
    RateLimitAdministered(action="reset", actor="127.0.0.1", endpoint=ENDPOINT, identifier="a", done=True),
]
ROUND_TRIPS: list[Callable[[Any], Any]] = [
    lambda value: pickle.loads(pickle.dumps(value)),  # noqa: S301 - what we wrote ourselves
    lambda value: pickle.loads(pickle.dumps(value, protocol=2)),  # noqa: S301
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("trip", ROUND_TRIPS, ids=["pickle", "pickle2", "copy", "deepcopy"])
def test_a_value_survives_pickling_and_copying(value: object, trip: Callable[[Any], Any]) -> None:
    """What comes back is of the same type, equal, and as hashable as before."""
    back = trip(value)
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)
    assert hash(back) == hash(value)


@pytest.mark.parametrize("trip", ROUND_TRIPS, ids=["pickle", "pickle2", "copy", "deepcopy"])
def test_a_rule_book_survives_pickling_and_copying(trip: Callable[[Any], Any]) -> None:
    """Its version is a hash of all that it says, and a limiter takes the copy."""
    back = trip(BOOK)
    assert type(back) is RuleBook
    assert (dict(back), back.version, back.content()) == (dict(BOOK), BOOK.version, BOOK.content())
    assert TokenBucketAdapter(storage=MemoryStorage(), rules=back).current_rules().match("GET", "/a") == "GET /a"


@pytest.mark.parametrize("trip", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("make", [limiter, sync_limiter, MemoryStorage])
def test_a_copy_of_a_limiter_or_a_storage_shares_its_buckets(
    make: Callable[[], Any], trip: Callable[[Any], Any]
) -> None:
    """Frameworks copy routes with all that hangs on them: a copy with buckets of its own would double the limit."""
    made = make()
    assert trip(made) is made
    assert copy.deepcopy({"route": [made]})["route"][0] is made


ERRORS: list[Any] = [
    (InvalidInputError("cost=0: expected 1"), {}),
    (InvalidTypeError("cost='1': expected a number"), {}),
    (
        RuleFileError("rules.toml", "expected a number", line=3, field="policies.login.cost"),
        {"path": "rules.toml", "message": "expected a number", "line": 3, "field": "policies.login.cost"},
    ),
    (StorageError("timeout", "no reply within 50 ms"), {"reason": "timeout"}),
    (StorageError("timeout"), {"reason": "timeout"}),
    (SlotTimeoutError(ENDPOINT, 1.5), {"endpoint": ENDPOINT, "retry_after": 1.5}),
    (sluicegate.RateLimitedError("send", Decision(DENIED)), {"name": "send", "retry_after": inf}),
]


@pytest.mark.parametrize(("error", "attributes"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("trip", ROUND_TRIPS, ids=["pickle", "pickle2", "copy", "deepcopy"])
def test_an_error_survives_pickling_and_copying(
    error: Exception, attributes: dict[str, object], trip: Callable[[Any], Any]
) -> None:
    """A process pool hands errors to its parent pickled, with all that they tell."""
    back = trip(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {name: getattr(back, name) for name in attributes} == attributes


# Inspecting


@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("verb", ASYNC_VERBS)
def test_async_verbs_are_coroutine_functions(verb: str) -> None:
    """Frameworks decide by this whether to await a call, on the class and on the instance."""
    for owner in (TokenBucketAdapter, limiter()):
        function = getattr(owner, verb)
        assert inspect.iscoroutinefunction(function)
        assert asyncio.iscoroutinefunction(function)


interpreted_only = pytest.mark.skipif(
    sluicegate.COMPILED, reason="mypyc keeps neither docstrings nor the signatures of coroutine methods"
)


@interpreted_only
@pytest.mark.parametrize("verb", PARAMETERS)
@pytest.mark.parametrize("face", [TokenBucketAdapter, SyncTokenBucketAdapter])
def test_the_signature_of_a_verb_can_be_read(face: type, verb: str) -> None:
    """Dependency injectors and `create_autospec` read names, kinds and defaults."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(getattr(face, verb)).parameters.values()
    ]
    assert str(inspect.Signature(parameters)) == PARAMETERS[verb]


def test_the_signature_of_a_constructor_can_be_read() -> None:
    """The arguments of a limiter are all given by name, the storage and the rules without a default."""
    parameters = inspect.signature(TokenBucketAdapter).parameters
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert required == ["storage", "rules"]


@interpreted_only
def test_public_classes_tell_their_module_and_their_documentation() -> None:
    """`help(sluicegate.TokenBucketAdapter)` shows the docstring, and pickle finds a class by its module."""
    for name in sluicegate.__all__:
        public = getattr(sluicegate, name)
        if isinstance(public, type):
            assert public.__module__.startswith("sluicegate.")
            assert inspect.getdoc(public), name


@interpreted_only
@pytest.mark.parametrize("face", [TokenBucketAdapter, SyncTokenBucketAdapter])
def test_verbs_are_documented(face: type) -> None:
    """`help(limiter.is_allowed)` shows what it does."""
    for verb in PARAMETERS:
        assert inspect.getdoc(getattr(face, verb)), verb


async def test_limiters_can_be_held_weakly_and_carry_attributes() -> None:
    """Caches hold limiters in weak dictionaries, and frameworks put marks on them."""
    ours = limiter()
    assert weakref.ref(ours)() is ours
    ours.mark = 1  # type: ignore[attr-defined]
    assert ours.mark == 1  # type: ignore[attr-defined]


async def test_a_cancellation_arrives_where_warnings_are_errors() -> None:
    """What is thrown into a check that waits is what comes out of it, and nothing in between is deprecated."""
    patient = TokenBucketAdapter(
        storage=FailingStorage("hang"), rules={"a": RateLimitRule(1, 1, "ip")}, deadline_ms=60_000
    )
    task = asyncio.create_task(patient.is_allowed(endpoint="a", identifier="b"))
    await asyncio.sleep(0)
    task.cancel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(asyncio.CancelledError):
            await task


# Matching


async def test_answers_can_be_matched() -> None:
    """`match` binds by keyword and by position, and tells the two outcomes apart."""
    ours = limiter()
    match await ours.is_allowed(endpoint=ENDPOINT, identifier="a"):
        case Success(value=RateLimitResult(allowed=True, remaining=left)):
            assert left == 1
        case other:
            pytest.fail(f"{other!r}")
    match await ours.refund(endpoint="GET /unknown", identifier="a"):
        case Failure(RateLimitError(reason=reason)):
            assert reason == "no_rule"
        case other:
            pytest.fail(f"{other!r}")


def test_values_are_read_only() -> None:
    """Assigning to a field of an answer or a rule raises `AttributeError`, which includes `FrozenInstanceError`."""
    for value, field in ((ALLOWED, "allowed"), (Success(ALLOWED), "value"), (RULE, "max_tokens")):
        with pytest.raises(AttributeError):
            setattr(value, field, 3)


def test_events_are_told_apart_by_class() -> None:
    """A subscriber to all events looks at their class."""
    assert isinstance(VALUES[13], RateLimitEvent)
    match VALUES[13]:
        case RateLimitCheckDenied(endpoint=endpoint, retry_after=wait):
            assert (endpoint, wait) == (ENDPOINT, 1.5)
        case other:
            pytest.fail(f"{other!r}")
