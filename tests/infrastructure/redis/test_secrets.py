"""No key, identifier or password gets out, whatever a server says or a library raises."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from sluicegate import (
    Failure,
    InlineEventBus,
    RateLimitFailedOpen,
    RateLimitRule,
    RedisStorage,
    StorageError,
    SyncRedisStorage,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.domain.buckets.bucket_request import BucketRequest
from sluicegate.testing import RecordingLogger
from support.bucket_requests import bucket_request
from support.fault_proxy import FaultProxy
from support.redis_servers import RedisServer

RULES = {"POST /e": RateLimitRule.per_day(5), "GET /lease": RateLimitRule(500, 30_000, "ip", lease=50)}
IDENTIFIER = "alice@example.org"
KEY = f"rate_limit:ip:{IDENTIFIER}:POST /e"


def requests() -> list[BucketRequest]:
    """Return a request whose key carries an identifier."""
    return [bucket_request(RULES["POST /e"], key=KEY)]


def texts_of(error: BaseException) -> Iterator[str]:
    """Return all that a log or a debugger may show of an exception and of those behind it."""
    seen: list[BaseException | None] = [error]
    while seen:
        one = seen.pop()
        if one is not None:
            yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
            seen += [one.__cause__, one.__context__]


def assert_clean(*texts: object) -> None:
    """Fail if anything of the key stands in a text."""
    for text in texts:
        assert "alice" not in repr(text), text
        assert "rate_limit:" not in repr(text), text


def unknown_command() -> RedisServer:
    """Run a server without EVALSHA: its error quotes the first arguments."""
    return RedisServer("--rename-command", "EVALSHA", "")


def no_keys() -> RedisServer:
    """Run a server whose user has no keys."""
    server = RedisServer()
    server.client().execute_command("ACL", "SETUSER", "default", "resetkeys")
    return server


@pytest.mark.parametrize("run", [unknown_command, no_keys])
async def test_a_server_that_quotes_commands_reveals_nothing(
    run: Callable[[], AbstractContextManager[RedisServer]], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log, nor a failure, nor an event, nor an exception carries a part of the key; nor of a batch of keys."""
    caplog.set_level(logging.DEBUG)
    events: list[object] = []
    bus = InlineEventBus()
    bus.subscribe(RateLimitFailedOpen, events.append)
    logger = RecordingLogger()
    with run() as server:
        async with RedisStorage.from_url(server.url, deadline_ms=5_000) as storage:
            limiter = TokenBucketAdapter(storage=storage, rules=RULES, logger=logger, event_bus=bus, deadline_ms=5_000)
            assert (await limiter.check(endpoint="POST /e", identifier=IDENTIFIER)).degraded
            await asyncio.gather(
                *[limiter.is_allowed(endpoint=e, identifier=f"{IDENTIFIER}{i}") for i in range(40) for e in RULES]
            )
            failures = [
                await limiter.reset(endpoint="POST /e", identifier=IDENTIFIER),
                await limiter.refund(endpoint="POST /e", identifier=IDENTIFIER),
            ]
            assert all(isinstance(failure, Failure) for failure in failures)
            for call in (storage.take, storage.peek, storage.refund, storage.reset):
                with pytest.raises(StorageError) as caught:
                    await call(requests())
                assert_clean(*texts_of(caught.value))
            assert_clean(failures, [getattr(event, "reason", event) for event in events], repr(storage), repr(limiter))
        with SyncRedisStorage.from_url(server.url, deadline_ms=5_000) as plain:
            sync = SyncTokenBucketAdapter(storage=plain, rules=RULES, logger=logger)
            assert sync.check(endpoint="POST /e", identifier=IDENTIFIER).degraded
            with pytest.raises(StorageError) as caught:
                plain.take_blocking(requests())
            assert_clean(*texts_of(caught.value))
    await asyncio.sleep(0.05)
    assert logger.records
    assert_clean(logger.records, caplog.text)


@pytest.mark.parametrize(
    "prefix", ["", "ERR ", "OOM ", "READONLY ", "NOSCRIPT ", "MOVED 1 ", "NOPERM ", "LOADING ", "x" * 300]
)
async def test_any_error_reply_reveals_nothing(redis_server: RedisServer, prefix: str) -> None:
    """Also one that no Redis sends; the breaker's message, which tells why it opened, does not either."""
    loop_errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    async with (
        FaultProxy(*redis_server.address) as proxy,
        RedisStorage.from_url(proxy.url, deadline_ms=2_000) as storage,
    ):
        await storage.take(requests())
        proxy.faults.garbage = f"-{prefix}{KEY}\r\n".encode()
        for _ in range(4):
            with pytest.raises(StorageError) as caught:
                await storage.take([bucket_request(RULES["POST /e"], key=f"{KEY}x")])
            assert_clean(*texts_of(caught.value))
        assert_clean(repr(storage.connections), loop_errors)


@pytest.mark.parametrize(
    "url",
    ["redis://:sesame@sesame.invalid:1", "redis://user:sesame@127.0.0.1:1", "rediss://user:sesame@127.0.0.1:1"],
)
async def test_a_connection_that_fails_reveals_no_password(url: str) -> None:
    """Nor the host, which may be the end of a password that was not encoded."""
    async with RedisStorage.from_url(url, deadline_ms=5_000) as storage:
        for _ in range(2):
            with pytest.raises(StorageError) as caught:
                await storage.take(requests())
            assert "sesame" not in " ".join(texts_of(caught.value))


async def test_the_event_loops_own_reports_reveal_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """In debug mode asyncio writes what took long, with the arguments of callbacks."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    try:
        async with RedisStorage.from_url(redis_server.url, deadline_ms=5_000) as storage:
            limiter = TokenBucketAdapter(storage=storage, rules=RULES, deadline_ms=5_000)
            for _ in range(40):
                await limiter.is_allowed(endpoint="GET /lease", identifier=IDENTIFIER)
        with SyncRedisStorage.from_url(redis_server.url, deadline_ms=5_000) as plain:
            with contextlib.suppress(StorageError):
                plain.take_blocking(requests())
    finally:
        loop.set_debug(False)
    assert "took" in caplog.text
    assert "alice" not in caplog.text
