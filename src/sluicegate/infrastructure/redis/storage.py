"""Buckets in Redis or Valkey: shared by all processes, exact, and no call waits longer than its deadline.

This module is not compiled: users subclass `RedisStorage` and patch its methods, and its arguments are checked with messages.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from copy import copy
from typing import Any, Self, cast

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError, StorageError
from sluicegate.domain.protocols import StorageTraits
from sluicegate.infrastructure.redis.calls import (
    EXTEND,
    PEEK,
    REFUND,
    RESERVE,
    RESET,
    SETTLE,
    TAKE,
    Call,
    ClaimCall,
    reserve_call,
)
from sluicegate.infrastructure.redis.connections import Connections
from sluicegate.infrastructure.redis.denial_cache import Begun, DenialCache
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.stored_buckets import stored_buckets
from sluicegate.infrastructure.redis.target import RedisTarget, target_of_client, target_of_url

DEFAULT_DEADLINE_MS = 50


class RedisStorage:
    """Keep buckets in Redis 6.2 or later, or Valkey: a single server, Sentinel or a Cluster.

    Nothing is connected before the first call. Connections belong to the event loop of the call; a storage may be used from
    several loops and threads, and after a fork by a new loop of the child. The deadline covers all of a call: connecting,
    TLS, login, loading the script, waiting in the queue, the reply.

    Args:
        redis_client: A client of redis-py (`Redis`, also one from Sentinel, or `RedisCluster`; async or not). Its address,
            login and TLS settings are used; its pool, its timeouts and retries are not, and it is not closed.
        deadline_ms: The longest that a call may take, 1 to 60,000.
        remember_denials: Whether a check that was denied is denied in this process, without asking the server, until it could
            pass: for one second at most, after which a reset or refund by another process shows. See `DenialCache`.

    Raises:
        InvalidInputError: If the deadline is out of range.
        InvalidTypeError: If the client is not one of redis-py.
    """

    def __init__(
        self, *, redis_client: object, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True
    ) -> None:
        if type(deadline_ms) is not int:
            raise InvalidTypeError(f"deadline_ms={deadline_ms!r}: expected whole milliseconds")
        if not 1 <= deadline_ms <= 60_000:  # noqa: PLR2004 - the bound is stated in the message
            raise InvalidInputError(f"deadline_ms={deadline_ms}: expected 1 to 60000")
        target = redis_client if isinstance(redis_client, RedisTarget) else target_of_client(redis_client)
        self._deadline_s = deadline_ms / 1000
        self.traits = StorageTraits(deadline_s=self._deadline_s, hash_tags=target.topology == "cluster")
        """The deadline of each call, and whether keys need hash tags."""
        self.denials = DenialCache() if remember_denials else None
        """What was denied lately; None: denials are not cached."""
        self.connections = Connections(target, self._deadline_s)
        """The connections and leases, which all storages made by `with_deadline` share."""

    def __deepcopy__(self, _: object) -> Self:
        """Return the same storage: a copy would have connections of its own."""
        return self

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

    def with_deadline(self, deadline_s: float) -> Self:
        """Return this storage with a shorter deadline: calls through it share its connections, cached denials and leases.

        Args:
            deadline_s: The longest that a call through it may take, in seconds; above this storage's own, that one holds.
                Closing either storage closes both.
        """
        other = copy(self)
        other._deadline_s = deadline_s = min(deadline_s, self._deadline_s)  # noqa: SLF001 - it is a copy of this very object
        other.traits = StorageTraits(deadline_s=deadline_s, hash_tags=self.traits.hash_tags)
        return other

    @property
    def leases(self) -> LeaseTable:
        """What this process has borrowed from buckets whose rules have `lease`."""
        return self.connections.leases

    def take_nowait(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Pay from a lease, or return a cached denial that still holds; None if the server must be asked."""
        request = requests[0]
        if request.lease_units and request.cost_units and len(requests) == 1:
            leases = self.connections.leases
            verdict = leases.spend(request, to_the_end=False)
            if verdict is not None:
                return verdict
            if leases.suffices(request):
                return None  # the lease is to be renewed; it comes before a denial that was true without it
        return self.known_denial(requests)

    async def take(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        verdict = self.take_nowait(requests)  # a lease or a denial may have come since
        if verdict is not None:
            return verdict
        begun = self.begin_take()
        return self.finish_take(requests, await self._ask(TAKE, requests), begun)

    def begin_take(self) -> Begun | None:
        """Return what `finish_take` needs to know of the moment before the server is asked."""
        return None if self.denials is None else self.denials.begin()

    def finish_take(self, requests: Sequence[BucketRequest], verdict: Verdict, begun: Begun | None) -> Verdict:
        """Cache a denial of the server, and return its verdict, or a payment from a lease that was borrowed meanwhile."""
        if begun is not None and self.denials is not None:
            self.denials.store(requests, verdict, begun)
        request = requests[0]
        if not request.lease_units or not request.cost_units or len(requests) > 1:
            return verdict
        if verdict.allowed:
            return Verdict(allowed=True, levels=self._with_leased(requests, verdict.levels))
        return self.connections.leases.spend(request, to_the_end=True) or verdict

    async def peek(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels, with what this process has borrowed from them. Writes nothing."""
        return self.finish_peek(requests, await self._ask(PEEK, requests))

    def finish_peek(
        self, requests: Sequence[BucketRequest], levels: tuple[BucketLevel, ...]
    ) -> tuple[BucketLevel, ...]:
        """Add what this process has borrowed to the server's levels."""
        return self._with_leased(requests, levels) if any(request.lease_units for request in requests) else levels

    async def refund(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        try:
            return cast("tuple[BucketLevel, ...]", await self._ask(REFUND, requests))
        finally:
            self.forget_denials(requests)

    async def reset(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        try:
            await self._ask(RESET, requests)
        finally:
            self.forget_denials(requests)

    async def reset_all(self, prefixes: Sequence[str], /) -> None:
        """Make each bucket full whose name begins with one of some prefixes, page by page of what the server keeps.

        Raises:
            StorageError: If the server did not answer, or does not allow `SCAN`; some buckets may have been reset.
        """
        try:
            async for page in stored_buckets(self.connections.target, prefixes):
                await asyncio.gather(*[self._ask(RESET, (bucket,)) for bucket in page])
        finally:
            self.forget_all(prefixes)

    def forget_all(self, _prefixes: Sequence[str], /) -> None:
        """Forget all denials: to ask the server once more for those of other prefixes does no harm."""
        if self.denials is not None:
            self.denials.forget_all()

    async def reserve(self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /) -> Verdict:
        """Pay all requests or none, and note their claims."""
        denial = self.known_denial(requests)
        if denial is not None:
            return denial
        begun = self.begin_take()
        try:
            verdict = cast("Verdict", await self._ask(RESERVE, requests, reserve_call(number, terms)))
        except BaseException:  # also if the caller was cancelled
            self.abandon(requests, number)
            raise
        return self.finish_reserve(requests, verdict, begun)

    def abandon(self, requests: Sequence[BucketRequest], number: int) -> None:
        """Give back what may have been reserved for a caller who does not know; if that fails, it ends by itself."""
        nothing = [request.with_cost(0) for request in requests]
        with contextlib.suppress(StorageError):
            self._ask(SETTLE, nothing, ClaimCall(number, (0,) * len(nothing))).add_done_callback(_ignore)

    def known_denial(self, requests: Sequence[BucketRequest]) -> Verdict | None:
        """Return a cached denial that still holds."""
        return None if self.denials is None else self.denials.lookup(requests)

    def finish_reserve(self, requests: Sequence[BucketRequest], verdict: Verdict, begun: Begun | None) -> Verdict:
        """Cache a denial of the server, and return its verdict."""
        if begun is not None and self.denials is not None:
            self.denials.store(requests, verdict, begun)
        return verdict

    async def settle(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        try:
            settled = await self._ask(SETTLE, requests, ClaimCall(number, tuple(max_debts)))
            return cast("tuple[BucketSettlement, ...]", settled)
        finally:
            self.forget_denials(requests)

    async def extend(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        return cast("int", await self._ask(EXTEND, requests, ClaimCall(number, tuple(ttls_us))))

    def forget_denials(self, requests: Sequence[BucketRequest]) -> None:
        """Forget denials of buckets whose levels may have been raised, whether or not the call succeeded."""
        if self.denials is not None:
            self.denials.forget(requests)

    async def aclose(self) -> None:
        """Close the connections of all event loops; those of other loops in the background. Twice is harmless."""
        await self.connections.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _ask(
        self, verb: int, requests: Sequence[BucketRequest], terms: ClaimCall | None = None
    ) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self.connections.router(loop).submit(Call(verb, requests, future, loop.time() + self._deadline_s, terms))
        return future

    def _with_leased(
        self, requests: Sequence[BucketRequest], levels: tuple[BucketLevel, ...]
    ) -> tuple[BucketLevel, ...]:
        """Add what this process has borrowed to the server's levels: a check here could be paid from either."""
        observe = self.connections.leases.observe
        return tuple(
            BucketLevel(min(one.spec.capacity, level.level + observe(one, level)), level.effective_in_us)
            for one, level in zip(requests, levels, strict=True)
        )

    def __repr__(self) -> str:
        return f"RedisStorage({self.connections.target!r}, deadline_ms={self._deadline_s * 1000:.0f})"


def _ignore(answer: "asyncio.Future[Any]") -> None:
    if not answer.cancelled():
        answer.exception()
