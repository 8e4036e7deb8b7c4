"""The same storage for code without an event loop: plain calls that wait for a loop in a background thread."""

import asyncio
import contextlib
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeoutError
from copy import copy
from threading import Thread, current_thread
from typing import Any, Self, cast

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.errors import StorageError
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
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.storage import DEFAULT_DEADLINE_MS, RedisStorage
from sluicegate.infrastructure.redis.target import target_of_url
from sluicegate.runtime.mutex import new_mutex

_PATIENCE_S = 1.0
"""How long a caller waits beyond its deadline. The background thread answers within that, unless other threads compute: then it
seldom gets the interpreter, and what it has not read yet is not late."""


class SyncRedisStorage:
    """Keep buckets in Redis for WSGI applications, scripts and worker threads.

    All threads of a process share one connection, and calls that arrive together go out together, because a `RedisStorage` in
    a background thread does the work. The thread starts with the first call, and again after a fork. Where threads are
    simulated, as under gevent, use one process per worker instead.

    Args:
        redis_client: See `RedisStorage`.
        deadline_ms: The longest that a call may take, 1 to 60,000.
        remember_denials: See `RedisStorage`.

    Raises:
        InvalidInputError: If the deadline is out of range.
        InvalidTypeError: If the client is not one of redis-py.
    """

    def __init__(
        self, *, redis_client: object, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True
    ) -> None:
        self._storage = RedisStorage(
            redis_client=redis_client, deadline_ms=deadline_ms, remember_denials=remember_denials
        )
        self.traits = self._storage.traits
        """The deadline of each call, and whether keys need hash tags."""
        self._background = _LoopThread()

    def __deepcopy__(self, _: object) -> Self:
        """Return the same storage: a copy would have a thread of its own."""
        return self

    @classmethod
    def from_url(cls, url: str, *, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True) -> Self:
        """Build a storage from a URL; `RedisStorage.from_url` says which URLs there are.

        Raises:
            InvalidInputError: If the URL or the deadline is wrong. No message shows a password.
        """
        return cls(redis_client=target_of_url(url), deadline_ms=deadline_ms, remember_denials=remember_denials)

    def with_deadline(self, deadline_s: float) -> Self:
        """Return this storage with a shorter deadline: calls through it share its thread, connections, denials and leases.

        Closing either closes both.

        Args:
            deadline_s: The longest that a call through it may take, in seconds; above this storage's own, that one holds.
        """
        other = copy(self)
        other._storage = self._storage.with_deadline(deadline_s)  # noqa: SLF001 - it is a copy of this very object
        other.traits = other._storage.traits  # noqa: SLF001 - it is a copy
        return other

    @property
    def leases(self) -> LeaseTable:
        """What this process has borrowed from buckets whose rules have `lease`."""
        return self._storage.leases

    def take_nowait(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Pay from a lease, or return a denial that is certainly still true; None if the server must be asked."""
        return self._storage.take_nowait(requests)

    def take_blocking(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        storage = self._storage
        verdict = storage.take_nowait(requests)
        if verdict is not None:
            return verdict
        begun = storage.begin_take()
        return storage.finish_take(requests, self._ask(TAKE, requests), begun)

    def peek_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels, with what this process has borrowed from them. Writes nothing."""
        return self._storage.finish_peek(requests, self._ask(PEEK, requests))

    def refund_blocking(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        try:
            return cast("tuple[BucketLevel, ...]", self._ask(REFUND, requests))
        finally:
            self._storage.forget_denials(requests)

    def reserve_blocking(
        self, requests: Sequence[BucketRequest], number: int, terms: Sequence[ClaimTerms], /
    ) -> Verdict:
        """Pay all requests or none, and note their claims."""
        storage = self._storage
        denial = storage.known_denial(requests)
        if denial is not None:
            return denial
        begun = storage.begin_take()
        try:
            verdict = self._ask(RESERVE, requests, reserve_call(number, terms))
        except BaseException:
            with contextlib.suppress(StorageError, RuntimeError):
                self._background.loop().call_soon_threadsafe(storage.abandon, requests, number)
            raise
        return storage.finish_reserve(requests, verdict, begun)

    def settle_blocking(
        self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int], /
    ) -> tuple[BucketSettlement, ...]:
        """Charge what claims really cost, and forget them."""
        try:
            settled = self._ask(SETTLE, requests, ClaimCall(number, tuple(max_debts)))
            return cast("tuple[BucketSettlement, ...]", settled)
        finally:
            self._storage.forget_denials(requests)

    def extend_blocking(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int], /) -> int:
        """Let claims end later, and return how many there are."""
        return cast("int", self._ask(EXTEND, requests, ClaimCall(number, tuple(ttls_us))))

    def reset_blocking(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        try:
            self._ask(RESET, requests)
        finally:
            self._storage.forget_denials(requests)

    def reset_all_blocking(self, prefixes: Sequence[str], /) -> None:
        """Make each bucket full whose name begins with one of some prefixes; see `RedisStorage.reset_all`."""
        loop = self._background.loop()
        if self._background.runs_here:
            raise _in_the_thread()
        swept = asyncio.run_coroutine_threadsafe(self._storage.reset_all(prefixes), loop)
        try:
            swept.result()
        finally:
            swept.cancel()  # if the caller was interrupted

    def forget_all(self, prefixes: Sequence[str], /) -> None:
        """Forget all denials; see `RedisStorage.forget_all`."""
        self._storage.forget_all(prefixes)

    def close(self) -> None:
        """Close the connections and end the thread. Calling it twice is harmless."""
        self._background.close(self._storage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, verb: int, requests: Sequence[BucketRequest], terms: ClaimCall | None = None) -> Any:  # noqa: ANN401 - whatever the verb returns
        deadline_s = cast("float", self.traits.deadline_s)
        loop = self._background.loop()
        if self._background.runs_here:
            raise _in_the_thread()
        answer: Future[Any] = Future()
        call = Call(verb, requests, answer, loop.time() + deadline_s, terms)
        loop.call_soon_threadsafe(self._submit, loop, call)
        background = self._background
        try:
            error = answer.exception(deadline_s if background.is_stuck else deadline_s + _PATIENCE_S)
        except WaitTimeoutError:
            background.is_stuck = True  # the next callers are less patient, until one gets an answer
            raise StorageError("loop_busy", "The background thread did not get to run in time.") from None
        finally:
            if not answer.done():  # given up, or interrupted
                # Only the loop's thread settles a future: one that is cancelled here could be settled there at the same moment.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(answer.cancel)
        background.is_stuck = False
        if error is not None:
            raise error
        return answer.result()

    def _submit(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        try:
            self._storage.connections.router(loop).submit(call)
        except Exception as error:  # noqa: BLE001 - the caller, in its thread, raises it
            if not call.future.done():
                call.future.set_exception(error)

    def __repr__(self) -> str:
        return f"Sync{self._storage!r}"


def _in_the_thread() -> StorageError:
    return StorageError("no_thread", "Asked by a finaliser in the thread that would have to answer.")


class _LoopThread:
    """An event loop in a daemon thread: started when it is first needed, and anew in a forked child."""

    def __init__(self) -> None:
        self._lock = new_mutex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._pid = 0
        self._closed = False
        self.is_stuck = False
        """Whether a caller has waited in vain since one got an answer."""

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop.

        Raises:
            StorageError: If the storage was closed.
        """
        loop = self._loop
        return loop if loop is not None and self._pid == os.getpid() else self._start()

    @property
    def runs_here(self) -> bool:
        """Whether the calling thread is the one that runs the loop."""
        return self._thread is current_thread()

    def close(self, storage: RedisStorage) -> None:
        """Close a storage that is used on this loop, and end the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(storage.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise StorageError("connection", "The storage was closed.")
            if self._loop is None or self._pid != os.getpid():
                loop = asyncio.new_event_loop()
                thread = Thread(target=_run, args=(loop,), name="sluicegate-redis", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the container's limit of threads, for example; the next call tries again
                    loop.close()
                    raise StorageError("no_thread", "No thread could be started.") from None
                self._loop, self._thread, self._pid = loop, thread, os.getpid()
                weakref.finalize(self, _end, loop).atexit = False
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run an event loop until it is stopped, and end what is left in it as `asyncio.run` does."""
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())  # closes the connections of a storage that was not closed
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """End the thread of a storage that is used no more."""
    with contextlib.suppress(RuntimeError):  # the loop was closed
        loop.call_soon_threadsafe(loop.stop)
