"""Which node of a Cluster keeps a bucket, while slots move and nodes come and go.

Checks of one slot go to its node. MOVED and ASK prove that nothing was executed, so following them is safe. A check with buckets
in several slots is charged slot by slot, and what was charged is refunded if another slot denies: it never admits more than its
rules, and for one round trip it may leave less to others.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from random import random, shuffle
from typing import Any, cast

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.domain.errors import StorageError
from sluicegate.infrastructure.redis.batcher import Batcher
from sluicegate.infrastructure.redis.call_parts import joined, part_of, undoing
from sluicegate.infrastructure.redis.calls import Call
from sluicegate.infrastructure.redis.circuit_breaker import CircuitBreaker
from sluicegate.infrastructure.redis.connection import RedisConnection, ask, close
from sluicegate.infrastructure.redis.errors import CLOSED, Fault, fault_of
from sluicegate.infrastructure.redis.script import Script, ScriptClient
from sluicegate.infrastructure.redis.target import RedisTarget
from sluicegate.runtime.patient_timeout import PatientTimeout

Address = tuple[str, int]

_MAX_HOPS = 8
_REFRESH_PAUSE_S = 0.2


class ClusterRouter:
    """Send calls to the nodes of a Cluster, on one event loop.

    Args:
        target: The Cluster's first nodes, and how to log in.
        script: What is called.
        deadline_s: How long a node may take; see `Batcher`.
        connect_timeout_s: How long opening a connection may take.
    """

    def __init__(self, target: RedisTarget, script: Script, *, deadline_s: float, connect_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._script = script
        self._deadline_s = deadline_s
        self._connect_timeout_s = connect_timeout_s
        self._owners: dict[int, Address] = {}
        self._nodes: dict[Address, Batcher] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refresher: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, call: Call) -> None:
        """Take a call over; its future gets the answer by its deadline.

        Raises:
            StorageError: At once, if the node's breaker is open or the storage was closed.
        """
        if self._closed:
            raise CLOSED.error()
        slots = [key_slot(request.key.encode()) for request in call.requests]
        call.slot = slots[0]
        if len(slots) > 1 and any(slot != slots[0] for slot in slots):
            self._split(call, slots)
        else:
            self._node(self._owner(slots[0])).submit(call)

    @property
    def breakers(self) -> list[CircuitBreaker]:
        """The breakers of the nodes."""
        return [node.breaker for node in list(self._nodes.values())]

    async def aclose(self) -> None:
        """Close the connections to all nodes."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        nodes, self._nodes = self._nodes, {}
        await asyncio.gather(*(node.aclose() for node in nodes.values()), *self._tasks, return_exceptions=True)

    def _owner(self, slot: int) -> Address:
        """Return the node that keeps a slot, as far as is known; a wrong one will redirect the call."""
        owner = self._owners.get(slot)
        if owner is None:
            self._refresh()
            owner = self._target.hosts[0]
        return owner

    def _node(self, address: Address) -> Batcher:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Batcher(
                self._target.connector(address),
                ScriptClient(self._script, partial(self._redirect, address[0])),
                deadline_s=self._deadline_s,
                connect_timeout_s=self._connect_timeout_s,
                on_trip=self._refresh,
            )
        return node

    def _redirect(self, host: str, call: Call, fault: Fault, alone: bool) -> None:
        """Send a call that a node did not execute to another node.

        Args:
            host: The node's host. A redirection that names none means this one: servers behind a proxy or in a managed service
                do not know by what name they are reached.
            call: The call.
            fault: What the node said.
            alone: Whether it said that of this call, or of several of one slot. While a slot moves, some of its buckets are on
                this node and others on the next, and Redis 6.2 redirects a script call if only one of them is missing here:
                following that for all would make a second, full bucket of those that are here, which mints tokens. So each
                call first asks this node on its own.
        """
        if call.future.done():
            return
        call.hops += 1
        try:
            if call.hops > _MAX_HOPS or self._closed:
                raise fault.error()
            call.asking = alone and fault.kind == "ask"
            address = fault.address
            if address is not None and (fault.kind == "moved" or call.asking):
                address = (address[0] or host, address[1])
                if fault.kind == "moved":
                    self._owners[call.slot] = address
                    self._refresh()
                self._node(address).submit(call)
            elif alone and len(call.requests) > 1:
                self._split(call, range(len(call.requests)))
            else:
                self._node(self._owner(call.slot)).submit(call)
        except StorageError as error:
            call.future.set_exception(error)

    # Checks on several slots

    def _split(self, call: Call, labels: Sequence[int]) -> None:
        """Carry a call out in parts.

        Args:
            call: The call.
            labels: For each request, which part it belongs to.
        """
        parts: dict[int, list[int]] = {}
        for number, label in enumerate(labels):
            parts.setdefault(label, []).append(number)
        task = self._loop.create_task(self._carry_out(call, list(parts.values())))
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish_parts, call))

    def _finish_parts(self, call: Call, task: asyncio.Task[None]) -> None:
        """Answer a call whose task ended without: it was cancelled because the storage is closed, or has a fault."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if not call.future.done():
            call.future.set_exception((CLOSED if error is None else fault_of(error)).error())

    async def _carry_out(self, call: Call, parts: list[list[int]]) -> None:
        answers = await self._ask([part_of(call, part, self._loop.create_future()) for part in parts])
        error = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        # A part that may or may not have been charged is not paid back: that could mint tokens.
        undone = [
            part
            for part, answer in zip(parts, answers, strict=True)
            if isinstance(answer, Verdict)
            and answer.allowed
            and (error is not None or not all(isinstance(other, Verdict) and other.allowed for other in answers))
        ]
        future = call.future
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(joined(call, parts, answers, undone))
        due_s = self._loop.time() + self._deadline_s
        for part in undone:
            await self._ask(undoing(call, part, self._loop.create_future, due_s))

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        for call in calls:
            try:
                self.submit(call)
            except StorageError as error:
                call.future.set_exception(error)
        return await asyncio.gather(
            *[cast("asyncio.Future[Any]", call.future) for call in calls], return_exceptions=True
        )

    # The map of slots

    def _refresh(self) -> None:
        """Read the Cluster's map of slots in the background; one reading at a time."""
        if self._refresher is None and not self._closed:
            self._refresher = self._loop.create_task(self._read_map())
            self._tasks.add(self._refresher)
            self._refresher.add_done_callback(self._tasks.discard)

    async def _read_map(self) -> None:
        try:
            while True:
                addresses = list({*self._owners.values(), *self._target.hosts})
                shuffle(addresses)
                for address in addresses:
                    if await self._read_map_of(address):
                        break
                await asyncio.sleep(_REFRESH_PAUSE_S * (0.5 + random()))  # noqa: S311 - it spreads load, it hides nothing
                if not any(node.breaker.is_open and node.wanted for node in self._nodes.values()):
                    return
        finally:
            self._refresher = None

    async def _read_map_of(self, address: Address) -> bool:
        connector = self._target.connector(address)
        connection: RedisConnection | None = None
        try:
            async with PatientTimeout(self._connect_timeout_s):
                connection = await connector.open()
                owners = owners_of(await ask(connection, "CLUSTER", "SLOTS"), address[0])
        except Exception:  # noqa: BLE001 - the next node may know
            return False
        finally:
            if connection is not None:
                await close(connection, wait=False)
        if owners:
            self._adopt(owners)
        return bool(owners)

    def _adopt(self, owners: dict[int, Address]) -> None:
        self._owners = owners
        current = {*owners.values()}
        for address in [
            address for address in self._nodes if address not in current and address not in self._target.hosts
        ]:
            node = self._nodes.pop(address)
            task = self._loop.create_task(node.aclose())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def __repr__(self) -> str:
        return f"ClusterRouter(nodes={len(self._nodes)}, slots={len(self._owners)})"


def owners_of(reply: object, host: str) -> dict[int, Address]:
    """Return which node keeps each slot, from a CLUSTER SLOTS reply: lists of first slot, last slot, master, replicas.

    A master is a list of host, port, id and, from Redis 7 on, a list of what else is known of its address. Without a host it is
    where the node that was asked is; `?` says that the host's name is not known, but its address may be.
    """
    owners: dict[int, Address] = {}
    for first, last, master, *_ in cast("list[list[Any]]", reply):
        name = master[0].decode() if master[0] else host
        if name == "?":
            also: list[bytes] = master[3] if len(master) > 3 else []  # noqa: PLR2004 - see above
            name = dict(zip(also[::2], also[1::2], strict=False)).get(b"ip", b"").decode() or host
        address = (str(name), int(master[1]))
        for slot in range(int(first), min(int(last), REDIS_CLUSTER_HASH_SLOTS - 1) + 1):
            owners[slot] = address
    return owners
