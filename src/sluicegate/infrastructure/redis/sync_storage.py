"""The same storage for code without an event loop: plain calls that wait for the answer of a loop in a thread of its own."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeoutError
from threading import Lock, Thread
from typing import Any, Self, cast

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.script import PEEK, REFUND, RESET, TAKE, Call
from sluicegate.infrastructure.redis.storage import DEFAULT_DEADLINE_MS, RedisStorage
from sluicegate.infrastructure.redis.target import target_of_url

_GRACE_S = 0.005  # the loop answers in time; this is for the case that its thread does not get to run


class SyncRedisStorage:
    """Keep buckets in Redis for WSGI applications, scripts and worker threads.

    All threads of a process share one connection, and calls that arrive together go out together, as with `RedisStorage`,
    which does the work in a background thread. The thread starts with the first call, and again after a fork. Where
    threads are not real, as under gevent, use one process per worker instead.

    Args:
        redis_client: See `RedisStorage`.
        deadline_ms: The longest that a call may take, 1 to 60,000.
        remember_denials: See `RedisStorage`.

    Raises:
        InvalidInputError: If the deadline is wrong.
        InvalidTypeError: If the client is none.
    """

    def __init__(
        self, *, redis_client: object, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True
    ) -> None:
        self._storage = RedisStorage(
            redis_client=redis_client, deadline_ms=deadline_ms, remember_denials=remember_denials
        )
        self.hash_tags = self._storage.hash_tags
        """Whether keys should carry the identifier in braces, so that its rules share a slot."""
        self.leases = self._storage.leases
        """What this process has borrowed of buckets whose rules have `lease`."""
        self.denials_at_hand = self._storage.denials_at_hand
        self.loans_at_hand = self._storage.loans_at_hand
        """See `RedisStorage`."""
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._pid = 0
        self._closed = False

    @classmethod
    def from_url(cls, url: str, *, deadline_ms: int = DEFAULT_DEADLINE_MS, remember_denials: bool = True) -> Self:
        """Build a storage from a URL; see `RedisStorage.from_url`.

        Raises:
            InvalidInputError: If the URL or the deadline is wrong. No message shows a password.
        """
        return cls(redis_client=target_of_url(url), deadline_ms=deadline_ms, remember_denials=remember_denials)

    def take_now(self, requests: Sequence[BucketRequest], /) -> Verdict:
        """Pay all requests or none."""
        storage = self._storage
        here = storage.decide_here(requests)
        if here is not None:
            return here
        denials = storage.denials
        if denials is None:
            verdict = cast("Verdict", self._ask(TAKE, requests))
        else:
            asked = denials.asked()
            verdict = cast("Verdict", self._ask(TAKE, requests))
            denials.learn(requests, verdict, asked)
        return storage.with_loans(requests, verdict)

    def decide_here(self, requests: Sequence[BucketRequest], /) -> Verdict | None:
        """Do what `RedisStorage.decide_here` does."""
        return self._storage.decide_here(requests)

    def peek_now(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Return the buckets' levels, with what this process has borrowed of them. Writes nothing."""
        return self._storage.with_borrowed(requests, cast("tuple[BucketLevel, ...]", self._ask(PEEK, requests)))

    def refund_now(self, requests: Sequence[BucketRequest], /) -> tuple[BucketLevel, ...]:
        """Put tokens back, never above a bucket's capacity."""
        with self._storage.forgetting(requests):
            return cast("tuple[BucketLevel, ...]", self._ask(REFUND, requests))

    def reset_now(self, requests: Sequence[BucketRequest], /) -> None:
        """Make each bucket full."""
        with self._storage.forgetting(requests):
            self._ask(RESET, requests)

    def close(self) -> None:
        """Close the connections and end the thread. Calling it twice is harmless."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(self._storage.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, verb: int, requests: Sequence[BucketRequest]) -> Any:  # noqa: ANN401 - whatever the verb returns
        loop = self._loop
        if loop is None or self._pid != os.getpid():
            loop = self._start()
        answer: Future[Any] = Future()
        loop.call_soon_threadsafe(self._submit, loop, verb, requests, answer, loop.time() + self._storage.deadline_s)
        try:
            return answer.result(self._storage.deadline_s + _GRACE_S)
        except WaitTimeoutError:
            answer.cancel()
            raise StorageError("timeout", "The server did not answer in time.") from None

    def _submit(
        self,
        loop: asyncio.AbstractEventLoop,
        verb: int,
        requests: Sequence[BucketRequest],
        answer: "Future[Any]",
        due_s: float,
    ) -> None:
        try:
            self._storage.router(loop).submit(Call(verb, requests, answer, due_s))
        except Exception as error:  # noqa: BLE001 - the caller, in its thread, raises it
            answer.set_exception(error)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise StorageError("connection", "The storage was closed.")
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                self._thread = Thread(target=self._loop.run_forever, name="sluicegate-redis", daemon=True)
                self._thread.start()
            return self._loop

    def __repr__(self) -> str:
        return f"Sync{self._storage!r}"
