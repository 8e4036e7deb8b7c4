"""Decorated functions wait for their turn and learn from servers."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    SlotTimeoutError,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    paced,
)

REFUSED = httpx.Response(429, headers={"retry-after-ms": "150"}, request=httpx.Request("GET", "http://a.example/"))
FINE = httpx.Response(200, request=httpx.Request("GET", "http://a.example/"))


class Side:
    """Decorate a function that returns scripted answers, as a plain or a coroutine function."""

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        kind: Any = TokenBucketAdapter if waits else SyncTokenBucketAdapter
        self.limiter: Any = kind(storage=MemoryStorage(), rules={})

    def decorated(self, answer: Callable[[], Any], *rules: str, **options: Any) -> Callable[..., Any]:
        """Return a function to be called in plain calls."""
        decorate = paced(*(rules or ("1000/second burst 1000",)), limiter=self.limiter, **options)

        def plain(who: str = "") -> Any:
            return answer()

        async def waiting(who: str = "") -> Any:
            return answer()

        if not self.waits:
            return decorate(plain)
        function = decorate(waiting)
        return lambda *args: asyncio.run(function(*args))


@pytest.fixture(params=[True, False], ids=["async", "sync"])
def side(request: pytest.FixtureRequest) -> Side:
    """With an event loop and without."""
    return Side(waits=request.param)


def scripted(*answers: Any, seen: list[float]) -> Callable[[], Any]:
    """Return a function that returns or raises answers in their order, the last one for ever."""
    left = list(answers)

    def answer() -> Any:
        seen.append(time.monotonic())
        one = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(one, Exception):
            raise one
        return one

    return answer


def error_of(answer: httpx.Response) -> httpx.HTTPStatusError:
    """Return what `raise_for_status` raises."""
    return httpx.HTTPStatusError("refused", request=answer.request, response=answer)


@pytest.mark.parametrize("refusal", [REFUSED, error_of(REFUSED)], ids=["returned", "raised"])
def test_a_refusal_holds_back_the_next_call(side: Side, refusal: Any) -> None:
    """It comes to the caller as it is, whether it was returned or raised."""
    seen: list[float] = []
    function = side.decorated(scripted(refusal, FINE, seen=seen))
    if isinstance(refusal, Exception):
        with pytest.raises(httpx.HTTPStatusError):
            function()
    else:
        assert function() is refusal
    assert function() is FINE
    assert seen[1] - seen[0] >= 0.149


@pytest.mark.parametrize("refusal", [REFUSED, error_of(REFUSED)], ids=["returned", "raised"])
def test_a_call_is_made_again_if_told(side: Side, refusal: Any) -> None:
    """The caller sees the last answer only."""
    seen: list[float] = []
    assert side.decorated(scripted(refusal, FINE, seen=seen), retries=1)() is FINE
    assert len(seen) == 2
    assert seen[1] - seen[0] >= 0.149


def test_other_errors_and_values_pass(side: Side) -> None:
    """What has no status says nothing of limits."""
    seen: list[float] = []
    function = side.decorated(scripted(KeyError("x"), 5, seen=seen), retries=3)
    with pytest.raises(KeyError):
        function()
    assert function() == 5
    assert len(seen) == 2


def test_calls_wait_for_their_turn(side: Side) -> None:
    """Apart for each identifier; a turn that would come too late is an error, and the function is not called."""
    seen: list[float] = []
    function = side.decorated(scripted(5, seen=seen), "1/minute", identifier=lambda who: who, timeout_s=0.5)
    assert [function("a"), function("b")] == [5, 5]
    with pytest.raises(SlotTimeoutError):
        function("a")
    assert len(seen) == 2


def test_what_cannot_be_decorated() -> None:
    """Classes, generators, and coroutine functions with a limiter for plain ones."""

    def generator() -> Any:
        yield 1

    async def waits() -> None:
        pass

    sync = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={})
    for decorate, function, message in (
        (paced("1/second"), Side, "a class"),
        (paced("1/second"), generator, "a generator"),
        (paced("1/second"), 5, "expected a function"),
        (paced("1/second", limiter=sync), waits, "expected a TokenBucketAdapter"),
        (paced("1/second", limiter=sync), partial(waits), "expected a TokenBucketAdapter"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            decorate(function)  # type: ignore[type-var]


@pytest.mark.parametrize(
    "options", [{"identifier": 5}, {"retries": -1}, {"timeout_s": -1}, {"max_pause_s": 0}, {"name": 5}]
)
def test_a_wrong_option_is_named(options: dict[str, Any]) -> None:
    """When the decorator is made, not when it is used."""
    with pytest.raises(InvalidInputError, match=f"{next(iter(options))}="):
        paced("1/second", **options)
