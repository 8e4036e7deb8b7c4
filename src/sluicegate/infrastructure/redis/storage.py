"""Buckets in Redis or Valkey: shared by all processes, exact, and never what keeps a request waiting."""

import asyncio
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError, StorageError
from sluicegate.infrastructure.redis.batcher import Batcher
from sluicegate.infrastructure.redis.cluster import ClusterRouter
from sluicegate.infrastructure.redis.denial_cache import DenialCache
from sluicegate.infrastructure.redis.lease_router import LeaseRouter, Router
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.script import PEEK, REFUND, RESET, TAKE, Call, TokenBucketScript
from sluicegate.infrastructure.redis.script_client import ScriptClient
from sluicegate.infrastructure.redis.target import RedisTarget, target_of_client, target_of_url

DEFAULT_DEADLINE_MS = 50
_MIN_CONNECT_TIMEOUT_S = 1.0  # connecting happens in the background; callers keep their deadline all the same


class RedisStorage:
    """Keep buckets in Redis 6.2 or later, or Valkey: a single server, Sentinel or a Cluster.

    Nothing is connected before the first call. Connections belong to the event loop that asks; a storage may be used from
    several loops and threads, and after a fork by a loop of the child's own. The deadline covers all of a call: connecting,
    TLS, login, loading the script, waiting in the queue, the reply.

    Args:
        redis_client: A client of redis-py (`Redis`, also one that Sentinel gave, or `RedisCluster`; async or not). Its address,
            login and TLS settings are used; its pool, its timeouts and retries are not, and it is not closed.
        deadline_ms: The longest that a call may take, 1 to 60,000.
        remember_denials: Whether a check that was denied is denied here, without asking the server, until it could pass: for
            one second at most, after which a reset or refund by another process shows. See `DenialCache`.

    Raises:
        InvalidInputError: If the deadline is wrong.
        InvalidTypeError: If the client is none.
    """

    bounded_wait = True

    def __init__(
        self, *, redis_client: object, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True
    ) -> None:
        if type(deadline_ms) is not int:
            raise InvalidTypeError(f"deadline_ms={deadline_ms!r}: expected whole milliseconds")
        if not 1 <= deadline_ms <= 60_000:  # noqa: PLR2004 - the bound is stated in the message
            raise InvalidInputError(f"deadline_ms={deadline_ms}: expected 1 to 60000")
        target = redis_client if isinstance(redis_client, RedisTarget) else target_of_client(redis_client)
        self._target = target
        self.deadline_s = deadline_ms / 1000
        """The longest that a call may take, in seconds."""
        self.denials = DenialCache() if remember_denials else None
        """What was denied lately; None: nothing is remembered."""
        self.leases = LeaseTable()
        """What this process has borrowed of buckets whose rules have `lease`."""
        self.loans_at_hand = self.leases.at_hand
        """The same, for who works with it in place."""
        self.denials_at_hand = None if self.denials is None else self.denials.at_hand
        """The same, for who works with it in place."""
        self._script = TokenBucketScript()
        self._routers: dict[asyncio.AbstractEventLoop, Router] = {}
        self._pid = os.getpid()
        self._closed = False
        self.hash_tags = target.topology == "cluster"
        """Whether keys should carry the identifier in braces, so that its rules share a slot."""

    @classmethod
    def from_url(cls, url: str, *, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True) -> Self:
        """Build a storage from a URL.

        Args:
            url: `redis://user:password@host:port/db`, `rediss://…` (TLS), `unix://…`,
                `redis+sentinel://host:port,host:port/service`, `redis+cluster://host:port,host:port`; or with `valkey`.
            deadline_ms: The longest that a call may take, 1 to 60,000.
            remember_denials: See the class.

        Raises:
            InvalidInputError: If the URL or the deadline is wrong. No message shows a password.
        """
        return cls(redis_client=target_of_url(url), deadline_ms=deadline_ms, remember_denials=remember_denials)

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        here = self.decide_here(requests)
        if here is not None:
            return here
        denials = self.denials
        if denials is None:
            verdict = cast("Verdict", await self._ask(TAKE, requests))
        else:
            asked = denials.asked()
            verdict = cast("Verdict", await self._ask(TAKE, requests))
            denials.learn(requests, verdict, asked)
        return self.with_loans(requests, verdict)

    def decide_here(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Pay from what this process has borrowed, or return a denial that is still true; None if the server must be asked."""
        if requests[0].lease_units and len(requests) == 1:
            left = self.leases.spend(requests[0], to_the_end=False)
            if left is not None:
                return Verdict(allowed=True, levels=self.with_borrowed(requests, (left,)))
            if self.leases.suffices(requests[0]):
                return None  # it is to be renewed, and comes before a denial that was true without it
        return None if self.denials is None else self.denials.recall(requests)

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels, with what this process has borrowed of them. Writes nothing."""
        return self.with_borrowed(requests, cast("tuple[BucketLevel, ...]", await self._ask(PEEK, requests)))

    def with_loans(self, requests: Sequence[BucketRequest], verdict: Verdict) -> Verdict:
        """Return what the server's verdict means to a process that may have borrowed meanwhile: a denial need not be the end."""
        if len(requests) > 1 or not requests[0].lease_units:
            return verdict
        if not verdict.allowed:
            bucket_level = self.leases.spend(requests[0], to_the_end=True)
            if bucket_level is None:
                return verdict
            verdict = Verdict(allowed=True, levels=(bucket_level,))
        return Verdict(allowed=True, levels=self.with_borrowed(requests, verdict.levels))

    def with_borrowed(
        self, requests: Sequence[BucketRequest], levels: tuple[BucketLevel, ...]
    ) -> tuple[BucketLevel, ...]:
        """Return readings of the server with what this process has borrowed added: a check here could be paid from either."""
        if not any(request.lease_units for request in requests):
            return levels
        saw = self.leases.saw
        return tuple(
            [
                BucketLevel(
                    min(request.spec.capacity, bucket_level.level + saw(request, bucket_level)),
                    bucket_level.effective_in_us,
                )
                for request, bucket_level in zip(requests, levels, strict=True)
            ]
        )

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        with self.forgetting(requests):
            return cast("tuple[BucketLevel, ...]", await self._ask(REFUND, requests))

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        with self.forgetting(requests):
            await self._ask(RESET, requests)

    @contextmanager
    def forgetting(self, requests: Sequence[BucketRequest]) -> Generator[None]:
        """Forget what was denied of some buckets once their levels may have been raised, whatever came of it."""
        try:
            yield
        finally:
            if self.denials is not None:
                self.denials.forget(requests)

    async def aclose(self) -> None:
        """Close the connections of all event loops; those of other loops in the background."""
        self._closed = True
        here = asyncio.get_running_loop()
        routers, self._routers = self._routers, {}
        for loop, router in routers.items():
            if loop is here:
                await router.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(router.aclose(), loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _ask(self, verb: int, requests: Sequence[BucketRequest]) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        router = self._routers.get(loop) or self.router(loop)
        future: asyncio.Future[Any] = loop.create_future()
        router.submit(Call(verb, requests, future, loop.time() + self.deadline_s))
        return future

    def router(self, loop: asyncio.AbstractEventLoop) -> Router:
        """Return what carries calls out on the running event loop.

        Raises:
            StorageError: If the storage was closed.
        """
        if self._closed:
            raise StorageError("connection", "The storage was closed.")
        if self._pid != os.getpid():
            # A child: these connections, and the selector that watches them, are its parent's. They are only forgotten.
            self._routers = {}
            self._pid = os.getpid()
        for ended in [other for other in self._routers if other.is_closed()]:
            del self._routers[ended]
        router: Router | None = self._routers.get(loop)
        if router is None:
            connect_timeout_s = max(self.deadline_s, _MIN_CONNECT_TIMEOUT_S)
            if self._target.topology == "cluster":
                router = ClusterRouter(
                    self._target, self._script, deadline_s=self.deadline_s, connect_timeout_s=connect_timeout_s
                )
            else:
                router = Batcher(
                    self._target.connector(connect_timeout_s),
                    ScriptClient(self._script),
                    deadline_s=self.deadline_s,
                    connect_timeout_s=connect_timeout_s,
                )
            self._routers[loop] = router = LeaseRouter(router, self.leases, self.deadline_s)
        return router

    def __repr__(self) -> str:
        return f"RedisStorage({self._target!r}, deadline_ms={self.deadline_s * 1000:.0f})"
