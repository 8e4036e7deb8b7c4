"""The decorator limits calls of functions and coroutine functions."""

import inspect
from typing import Any

import pytest

from sluicegate import (
    InvalidInputError,
    InvalidTypeError,
    MemoryStorage,
    RateLimitedError,
    RateLimitRule,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
    rate_limited,
)
from sluicegate.testing import FakeClock


async def test_a_coroutine_function() -> None:
    """Calls beyond the rule raise, tell how long to wait, and do not run; after the wait they do."""
    clock = FakeClock()
    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=clock), rules={})
    ran: list[str] = []

    @rate_limited("2/minute", identifier=lambda name: name, limiter=limiter)
    async def send(name: str) -> int:
        """Send something."""
        ran.append(name)
        return len(ran)

    assert [await send("a"), await send("a"), await send("b")] == [1, 2, 3]
    with pytest.raises(RateLimitedError, match="30 seconds") as caught:
        await send("a")
    assert caught.value.retry_after == 30
    assert ran == ["a", "a", "b"]
    clock.advance(caught.value.retry_after)
    assert await send("a") == 4
    assert send.__doc__ == "Send something."
    assert inspect.iscoroutinefunction(send)


def test_a_plain_function_with_a_cost() -> None:
    """A plain function asks a plain limiter; the cost may come from the call."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})

    @rate_limited("10/minute", cost=len, limiter=limiter)
    def write(text: str) -> str:
        return text

    assert write("12345678") == "12345678"
    with pytest.raises(RateLimitedError):
        write("123")
    assert write("12") == "12"


def test_functions_have_buckets_of_their_own() -> None:
    """Two functions do not share a bucket, unless they share a name."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})

    def make(name: str, label: str) -> Any:
        def function() -> str:
            return label

        function.__qualname__ = label
        return rate_limited("1/minute", limiter=limiter, name=name)(function)

    one, other = make("", "one"), make("", "other")
    assert (one(), other()) == ("one", "other")
    shared = make("both", "one"), make("both", "other")
    assert shared[0]() == "one"
    with pytest.raises(RateLimitedError):
        shared[1]()


@pytest.mark.parametrize("name", ["", "both"])
@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (RateLimitRule(5, 5, "ip", name="login"), RateLimitRule(500, 500, "ip", name="login")),
        (RateLimitRule(10, 1_000, "ip"), RateLimitRule(10, 2_000, "ip")),
        (RateLimitRule(10, 0.1, "ip"), RateLimitRule(10, 0.10000000001, "ip")),
    ],
)
def test_different_rules_have_buckets_of_their_own(name: str, narrow: RateLimitRule, wide: RateLimitRule) -> None:
    """At one place and under one name: the calls of one rule take nothing from another one's bucket."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})

    def function() -> bool:
        return True

    first = rate_limited(narrow, limiter=limiter, name=name)(function)
    second = rate_limited(wide, limiter=limiter, name=name)(function)
    assert all(first() for _ in range(narrow.max_tokens))
    assert all(second() for _ in range(wide.max_tokens))
    for limited in (first, second):
        with pytest.raises(RateLimitedError):
            limited()


def test_a_name_or_rules_that_are_long() -> None:
    """A name is refused at the decoration; a place and rules that are longer than an endpoint count all the same."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})
    with pytest.raises(InvalidInputError, match="name=.*1025 bytes"):
        rate_limited("1/minute", limiter=limiter, name="x" * 1025)(len)
    with pytest.raises(InvalidTypeError, match="name=5"):
        rate_limited("1/minute", limiter=limiter, name=5)(len)  # type: ignore[arg-type]
    several = [rate_limited("1/minute", limiter=limiter, name="é" * 500 + end)(lambda: True) for end in ("a", "b")]
    for limited in several:
        assert limited()
        with pytest.raises(RateLimitedError) as denied:
            limited()
        assert len(denied.value.name.encode()) <= 1024


def test_the_wrong_kind_of_limiter() -> None:
    """A coroutine function needs an async limiter, a plain function one that blocks: the decoration fails, not the call."""

    async def coroutine() -> None: ...

    def plain() -> None: ...

    with pytest.raises(InvalidTypeError, match="expected a TokenBucketAdapter"):
        rate_limited("1/minute", limiter=SyncTokenBucketAdapter(storage=MemoryStorage(), rules={}))(coroutine)
    with pytest.raises(InvalidTypeError, match="expected a SyncTokenBucketAdapter"):
        rate_limited("1/minute", limiter=TokenBucketAdapter(storage=MemoryStorage(), rules={}))(plain)


async def test_functions_that_fail_or_wait() -> None:
    """An identifier may be awaited; where it or the cost cannot be had, the call counts with the others, at the rule's cost."""

    async def tenant(number: int) -> str | None:
        return {1: "a", 2: "b"}[number] if number else None

    def size(number: int) -> int:
        return 1 if number < 3 else 1 // 0

    limiter = TokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={})

    @rate_limited("1/minute per tenant", "9/minute", identifier=tenant, cost=size, limiter=limiter)
    async def call(number: int) -> int:
        return number

    assert [await call(number) for number in (1, 2, 0)] == [1, 2, 0]
    for number in (1, 2, 0, 3):
        with pytest.raises(RateLimitedError):
            await call(number)


def test_bad_rules() -> None:
    """No rule, or one that cannot be read, is an error at the decoration."""
    with pytest.raises(InvalidInputError, match="at least one"):
        rate_limited()
    with pytest.raises(InvalidInputError, match="rate='5/x'"):
        rate_limited("5/x")
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={})
    with pytest.raises(InvalidInputError, match="'x': no policy"):
        rate_limited("x", limiter=limiter)(lambda: None)
