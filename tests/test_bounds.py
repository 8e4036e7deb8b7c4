"""What `docs/reference/bounds.md` promises: clients fill what they can, with the longest texts, up to a bound."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from sluicegate import (
    BufferedEventBus,
    MemoryStorage,
    RateLimitMiddleware,
    RateLimitRule,
    RuleBook,
    SyncTokenBucketAdapter,
    TokenBucketAdapter,
)
from sluicegate.application.background_worker import MAX_WAITING, BackgroundWorker
from sluicegate.application.failure_policy import MAX_LOCAL_KEYS
from sluicegate.application.notifier import Notifier
from sluicegate.domain.buckets.bucket_store import BYTES_A_CLAIM, BYTES_A_KEY
from sluicegate.domain.events import RateLimitCheckDenied
from sluicegate.domain.rules.rule_book_entries import Listing
from sluicegate.testing import FailingStorage, FakeClock, RecordingLogger
from support.asgi_calls import http_scope, send_scope

LONGEST = 1024  # bytes of an identifier
RULE = RateLimitRule(5, 1, "user")
PATHS = {"GET /a/{id:int}": RULE, "GET /b/{name}-{rest}.txt": RULE, "GET /c/{rest:path}": RULE}


def client(number: int) -> str:
    """Return one of endlessly many clients, with as long a name as there may be."""
    return f"{number:0>{LONGEST}}"


def grown_bytes(work: Callable[[int], object], first: int, last: int) -> int:
    """Return by how many bytes the process grows while something is done for many clients."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(first, last):
        work(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def test_buckets_in_memory() -> None:
    """Long names leave room for fewer buckets: what the storage says that it takes, and what it takes, is within the bound."""
    storage = MemoryStorage(clock=FakeClock(), max_keys=20_000)
    limiter = SyncTokenBucketAdapter(storage=storage, rules={"GET /": RULE})
    grown = grown_bytes(lambda n: limiter.is_allowed(endpoint="GET /", identifier=client(n)), 0, 20_000)
    bound = 20_000 * BYTES_A_KEY
    assert bound * 0.9 < storage.size_bytes <= bound
    assert grown < bound * 1.2
    assert len(storage) < 5_000
    assert storage.evicted_unfull > 10_000


def test_claims_count_as_memory() -> None:
    """Clients that reserve and never settle fill the same room; what ends, or is settled, makes room again."""
    clock = FakeClock()
    storage = MemoryStorage(clock=clock, max_keys=4_000)
    limiter = SyncTokenBucketAdapter(storage=storage, rules={"GET /": RateLimitRule(1_000, 1, "user")})
    identifiers = [client(number) for number in range(40)]

    def reserve(number: int) -> Any:
        reserved = limiter.reserve(endpoint="GET /", identifier=identifiers[number % 40], ttl_seconds=60).value
        assert reserved.allowed
        return reserved

    bound = 4_000 * BYTES_A_KEY
    grown = grown_bytes(reserve, 0, 10_000)
    assert bound * 0.8 < storage.size_bytes <= bound
    assert grown < bound * 1.2
    assert storage.evicted_unfull > 0
    reserved, before = reserve(0), storage.size_bytes
    limiter.cancel(reserved)
    assert storage.size_bytes == before - BYTES_A_CLAIM
    for identifier in identifiers:
        limiter.reset(endpoint="GET /", identifier=identifier)
    clock.advance(700)  # a claim that ended is kept for ten minutes
    for identifier in identifiers:
        limiter.refund(endpoint="GET /", identifier=identifier)
    assert storage.size_bytes < 41 * (LONGEST + BYTES_A_KEY)


async def test_local_buckets_of_an_outage() -> None:
    """They are a table like that of the storage in memory."""
    limiter: Any = TokenBucketAdapter(
        storage=FailingStorage(), rules={"GET /": RULE}, on_storage_error="local", logger=RecordingLogger()
    )
    table = limiter._checker.failure_policy._buckets
    assert table._max_bytes == MAX_LOCAL_KEYS * BYTES_A_KEY
    limiter._checker.failure_policy._buckets._max_bytes = 100_000
    for number in range(300):
        await limiter.is_allowed(endpoint="GET /", identifier=client(number))
    assert 90_000 < table.size_bytes <= 100_000


def test_identifiers_in_no_list() -> None:
    """Of the addresses that are in no list the latest 65,536 are remembered; each new one costs one that is old."""
    book = RuleBook({"GET /": RateLimitRule(5, 1, "ip")}, deny=[Listing(scope="ip", identifier="192.0.2.0/24")])
    limiter: Any = SyncTokenBucketAdapter(storage=MemoryStorage(max_keys=1), rules=book)
    unknown = limiter.current_rules().rules.lists["ip"]._unknown
    for number in range(66_000):
        limiter.is_allowed(endpoint="GET /", identifier=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    limiter.is_allowed(endpoint="GET /", identifier="x" * 65)
    assert len(unknown) == 65_536
    assert "10.0.0.0" not in unknown
    assert "10.1.1.207" in unknown
    assert "x" * 65 not in unknown


def test_warnings() -> None:
    """Reasons that name what a caller chose are forgotten, the oldest first."""
    logger: Any = RecordingLogger()
    notifier: Any = Notifier(None, logger, FakeClock(), log_identifiers=False)
    for number in range(3_000):
        notifier.warn_throttled(f"impossible:{client(number)}", "Denied.")
        notifier.warn_throttled(f"impossible:{client(number)}", "Denied.")
    assert len(notifier._last_us) == len(notifier._left_out) == 1_000
    assert len(logger.records) == 3_000


async def test_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that nobody empties, and calls that no thread makes, hold so many and drop the others."""
    bus = BufferedEventBus(max_events=100)
    bus.subscribe(RateLimitCheckDenied, print)
    limiter = SyncTokenBucketAdapter(
        storage=MemoryStorage(), rules={"GET /": RateLimitRule(1, 0.001, "user")}, event_bus=bus
    )
    for _ in range(102):
        limiter.is_allowed(endpoint="GET /", identifier=client(1))
    assert (len(bus._queue), bus.dropped) == (100, 1)
    bus._queue.clear()
    worker = BackgroundWorker()
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_start", lambda: None)
        for number in range(MAX_WAITING + 5):
            worker.submit(print, client(number))
    assert (worker._waiting.qsize(), worker.dropped) == (1_000, 5)


@pytest.mark.parametrize("readings", ["exact", "every_ignoring_case"])
async def test_paths_and_headers(readings: Any) -> None:
    """However many paths and headers are sent, the middleware keeps nothing of them once it has seen a few."""
    limiter = TokenBucketAdapter(
        storage=MemoryStorage(max_keys=1), rules={one: RateLimitRule(5, 10**6, "ip") for one in PATHS}
    )

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    middleware = RateLimitMiddleware(
        app, limiter=limiter, path_readings=readings, trusted_proxies=["192.0.2.1"], logger=RecordingLogger()
    )

    async def ask(number: int) -> None:
        name = f"{number}-" + chr(0x4E00 + number % 20_000) * 100
        for path in (f"/a/{number}", f"/b/{name}.txt", f"/c/{name}", f"/{name}"):
            await send_scope(middleware, http_scope("GET", path, headers=[("x-forwarded-for", name)]))

    for number in range(1_000):
        await ask(number)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1_000, 3_000):
        await ask(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 500_000


def test_the_longest_identifier() -> None:
    """An identifier that is longer is refused, so that no key is longer than these."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": RULE})
    with pytest.raises(ValueError, match="expected at most 1024"):
        limiter.is_allowed(endpoint="GET /", identifier="x" * (LONGEST + 1))
