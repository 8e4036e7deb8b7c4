"""The connections of one storage, for each event loop its own."""

import asyncio
import contextlib
import weakref

from sluicegate.infrastructure.redis.batcher import Batcher
from sluicegate.infrastructure.redis.cluster import ClusterRouter
from sluicegate.infrastructure.redis.errors import CLOSED
from sluicegate.infrastructure.redis.lease_router import LeaseRouter, Router
from sluicegate.infrastructure.redis.lease_table import LeaseTable
from sluicegate.infrastructure.redis.script import Script, ScriptClient
from sluicegate.infrastructure.redis.target import RedisTarget
from sluicegate.runtime.mutex import fork_count, new_mutex

_MIN_CONNECT_TIMEOUT_S = 1.0  # connecting happens in the background; callers keep their deadline all the same


class Connections:
    """The connections to one target, for each event loop its own, and the leases that are borrowed through them.

    Args:
        target: Where Redis is.
        deadline_s: How long the server may take before it counts as silent.
        script: What is called.
        leases: What this process has borrowed.
    """

    def __init__(
        self,
        target: RedisTarget,
        deadline_s: float,
        *,
        script: Script | None = None,
        leases: LeaseTable | None = None,
    ) -> None:
        self.target = target
        self.leases = leases or LeaseTable()
        self._deadline_s = deadline_s
        self.script = script or Script()
        self.routers: dict[asyncio.AbstractEventLoop, LeaseRouter] = {}
        self._mutex = new_mutex()  # loops of several threads share the dictionary
        self._fork = fork_count()
        self._closed = False
        weakref.finalize(self, _close_in_background, self.routers).atexit = False

    def router(self, loop: asyncio.AbstractEventLoop) -> LeaseRouter:
        """Return what carries out calls on an event loop; it must be the running one.

        Raises:
            StorageError: If the storage was closed.
        """
        router = self.routers.get(loop)
        if router is None or self._fork != fork_count():  # the child of a fork may have its parent's loop
            with self._mutex:
                return self._router_now(loop)
        return router

    async def aclose(self) -> None:
        """Close the connections of all event loops; those of other loops in the background."""
        running = asyncio.get_running_loop()
        with self._mutex:
            self._closed = True
            self._forget_parent()
            mine = self.routers.pop(running, None)
            _close_in_background(self.routers)
        if mine is not None:
            await mine.aclose()

    def _forget_parent(self) -> None:
        """Forget what was opened before a fork: the sockets, and the selector that watches them, are the parent's."""
        if self._fork != fork_count():
            self.routers.clear()
            self._fork = fork_count()

    def _router_now(self, loop: asyncio.AbstractEventLoop) -> LeaseRouter:
        if self._closed:
            raise CLOSED.error()
        self._forget_parent()
        for ended in [other for other in self.routers if other.is_closed()]:
            del self.routers[ended]
        if loop in self.routers:
            return self.routers[loop]
        connect_timeout_s = max(self._deadline_s, _MIN_CONNECT_TIMEOUT_S)
        router: Router
        if self.target.topology == "cluster":
            router = ClusterRouter(
                self.target, self.script, deadline_s=self._deadline_s, connect_timeout_s=connect_timeout_s
            )
        else:
            router = Batcher(
                self.target.connector(),
                ScriptClient(self.script),
                deadline_s=self._deadline_s,
                connect_timeout_s=connect_timeout_s,
            )
        lease_router = LeaseRouter(router, self.leases, self._deadline_s)
        self.routers[loop] = lease_router
        return lease_router

    def __repr__(self) -> str:
        return f"Connections({self.target!r})"


def _close_in_background(routers: dict[asyncio.AbstractEventLoop, LeaseRouter]) -> None:
    """Close the connections of event loops that are running elsewhere: of a storage that was closed, or is used no more."""
    for loop, router in routers.items():
        if loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has just ended, and closed its connections
                asyncio.run_coroutine_threadsafe(router.aclose(), loop)
    routers.clear()
