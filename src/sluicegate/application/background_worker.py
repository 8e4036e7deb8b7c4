"""Calls that no check waits for: a thread behind a bounded queue, for listeners that may be slow, hang or raise."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final, TypeAlias

from sluicegate.runtime.at_exit import flush_at_exit
from sluicegate.runtime.mutex import fork_count
from sluicegate.runtime.system_clock import monotonic_s

MAX_WAITING: Final = 1_000
_MAX_PENDING: Final = 100  # coroutines of one caller that have been started and are not done
_IDLE_S: Final = 5.0  # then the thread ends, until it is needed again
_POLL_S: Final = 0.002

_Coroutine: TypeAlias = Coroutine[Any, Any, object]
_Call: TypeAlias = tuple[Callable[..., object], tuple[object, ...], dict[str, object], asyncio.AbstractEventLoop | None]


class BackgroundWorker:
    """Run calls in order on a daemon thread that starts when there is something to do.

    What does not fit the queue is dropped and counted: an observer that cannot keep up loses sight, never slows traffic. Where
    no thread can be started, calls wait in the queue for one. What waits when the interpreter exits is called then, within
    a bound.
    """

    def __init__(self) -> None:
        self._pending: dict[asyncio.AbstractEventLoop, dict[Future[None], tuple[_Coroutine, _Coroutine]]] = {}
        self.dropped = 0
        """How many calls were given up, because too many waited or because they raised."""
        self._begin()
        flush_at_exit(self)

    def _begin(self) -> None:
        self._waiting: SimpleQueue[_Call] = SimpleQueue()  # a signal handler may put into it while its thread does
        self._may_start: list[None] = [None]  # empty while there is a thread; taken and put back in one step each
        self._forks = fork_count()

    def submit(self, call: Callable[..., object], /, *args: object, **kwargs: object) -> None:
        """Queue a call and return at once. An awaitable that it returns is run on the submitting event loop."""
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if self._forks != fork_count():  # the parent's thread has the queue, and may have held its lock
            self._begin()
        if self._waiting.qsize() >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.put((call, args, kwargs, loop))
        if self._may_start:
            self._start()

    def flush(self, deadline_s: float) -> None:
        """Wait until what was submitted has been called, or the monotonic clock shows `deadline_s`."""
        done = self._mark()
        if done is not None:
            done.wait(max(0.0, deadline_s - monotonic_s()))
        self._give_up_ended_loops()

    async def flush_from_loop(self, deadline_s: float) -> None:
        """Do what `flush` does while the event loop runs, and wait for the coroutines that run on it."""
        done = self._mark()
        loop = asyncio.get_running_loop()
        while monotonic_s() < deadline_s:
            if (done is None or done.is_set()) and not self._pending.get(loop):
                return
            await asyncio.sleep(_POLL_S)

    def _mark(self) -> Event | None:
        """Return what is set when all calls before it are done; None if they are."""
        waiting = self._waiting
        if self._forks != fork_count() or (self._may_start and waiting.empty()):
            return None
        done = Event()
        waiting.put((done.set, (), {}, None))
        if self._may_start and not self._start():
            self._call_waiting(waiting)  # at exit no thread can be started
        return done

    def _start(self) -> bool:
        """Start the thread unless there is one; return whether there is one now."""
        may_start = self._may_start
        try:
            del may_start[-1]
        except IndexError:
            return True
        try:
            Thread(target=self._run, args=(self._waiting, may_start), name="sluicegate-observers", daemon=True).start()
        except RuntimeError:  # a limit of threads, or the interpreter is exiting
            may_start.append(None)
            return False
        except BaseException:
            may_start.append(None)
            raise
        return True

    def _run(self, waiting: "SimpleQueue[_Call]", may_start: list[None]) -> None:
        while True:
            try:
                self._call(*waiting.get(timeout=_IDLE_S))
            except Empty:
                may_start.append(None)
                if waiting.empty():
                    return
                try:  # something came in between, whose submitter saw this thread
                    del may_start[-1]
                except IndexError:
                    return

    def _call_waiting(self, waiting: "SimpleQueue[_Call]") -> None:
        while True:
            try:
                self._call(*waiting.get_nowait())
            except Empty:
                return

    def _call(
        self,
        call: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        try:
            returned = call(*args, **kwargs)
            if inspect.isawaitable(returned):
                self._hand_over(returned, loop)
        except Exception:  # noqa: BLE001 - an observer's fault is counted, and stays its own
            self.dropped += 1

    def _hand_over(self, awaitable: object, loop: asyncio.AbstractEventLoop | None) -> None:
        self._give_up_ended_loops()
        if not inspect.iscoroutine(awaitable):
            self.dropped += 1
            return
        pending = {} if loop is None else self._pending.setdefault(loop, {})
        if loop is None or loop.is_closed() or len(pending) >= _MAX_PENDING:
            self.dropped += 1
            awaitable.close()
            return
        settling = self._settle(awaitable)
        try:
            future = asyncio.run_coroutine_threadsafe(settling, loop)
        except RuntimeError:  # it was closed a moment ago
            settling.close()
            awaitable.close()
            raise
        pending[future] = settling, awaitable

        def forget(done: Future[None]) -> None:
            pending.pop(done, None)
            awaitable.close()  # an event loop that ends cancels it, maybe before it has begun

        future.add_done_callback(forget)

    def _give_up_ended_loops(self) -> None:
        """Close the coroutines that closed event loops left unfinished."""
        for closed in [known for known in list(self._pending) if known.is_closed()]:
            for coroutines in list(self._pending.pop(closed, {}).values()):
                self.dropped += 1
                for coroutine in coroutines:
                    coroutine.close()

    async def _settle(self, coroutine: _Coroutine) -> None:
        try:
            await coroutine
        except Exception:  # noqa: BLE001 - the same, for an observer that is a coroutine
            self.dropped += 1
