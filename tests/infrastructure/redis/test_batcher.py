"""The batcher without a server: what goes out together, which deadlines hold, and what is refused."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sluicegate import RateLimitRule, StorageError
from sluicegate.domain.buckets.bucket_request import Verdict
from sluicegate.infrastructure.redis.batcher import MAX_BATCH, MAX_WAITING, Batcher
from sluicegate.infrastructure.redis.calls import TAKE, Call
from sluicegate.infrastructure.redis.script import Script, ScriptClient
from support.bucket_requests import bucket_request

ROOMY = RateLimitRule.per_day(1_000_000)


class Transport:
    """A socket that only takes note of what is written."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.commands: list[bytes] = []
        self.replying = True

    def get_protocol(self) -> Any:
        """Return redis-py's protocol."""
        return asyncio.Protocol()

    def set_protocol(self, protocol: Any) -> None:
        """Note what receives."""
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        """Note a command, and reply to it in the event loop's next iteration."""
        self.commands.append(data)
        if self.replying:
            asyncio.get_running_loop().call_soon(self.reply, data)

    def reply(self, command: bytes) -> None:
        """Allow every check of a command."""
        argument = command.rsplit(b"\r\n", 2)[-2]
        numbers = msgspec.msgpack.decode(argument)
        checks = (len(numbers) - 2 - numbers[1]) // 5  # each of one bucket
        reply = msgspec.msgpack.encode([numbers[0]] + [1, 5, 0] * checks)
        data = b"$%d\r\n%b\r\n" % (len(reply), reply)
        view = self.protocol.get_buffer(-1)
        view[: len(data)] = data
        self.protocol.buffer_updated(len(data))


class Connection:
    """What redis-py would have opened."""

    def __init__(self, transport: Transport) -> None:
        self._writer = type("Writer", (), {"transport": transport})

    async def can_read(self) -> bool:
        """Return that nothing was received."""
        return False

    async def disconnect(self, nowait: bool = False) -> None:
        """Do nothing."""


class BrokenConnection(Connection):
    """A connection that cannot even be looked at."""

    async def can_read(self) -> bool:
        """Fail."""
        raise OSError("no such socket")


class Connector:
    """Open connections to no server.

    Args:
        open_: Returns a connection.
    """

    def __init__(self, open_: Callable[[], Connection]) -> None:
        self._open = open_

    async def open(self) -> Any:
        """Return one."""
        return self._open()

    async def aclose(self) -> None:
        """Do nothing."""


def batcher(open_: Callable[[], Connection], *, deadline_s: float = 10.0) -> Batcher:
    """Return a batcher on a connector."""
    return Batcher(Connector(open_), ScriptClient(Script()), deadline_s=deadline_s, connect_timeout_s=1.0)


def submit(to: Batcher, *, deadline_s: float = 10.0) -> "asyncio.Future[Verdict]":
    """Ask for a token of a new bucket."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Verdict] = loop.create_future()
    to.submit(Call(TAKE, [bucket_request(ROOMY)], future, loop.time() + deadline_s))
    return future


async def reason(future: "asyncio.Future[Verdict]") -> str:
    """Wait for an error and return its reason."""
    with pytest.raises(StorageError) as caught:
        await asyncio.wait_for(future, 20)
    return caught.value.reason


@pytest.mark.parametrize(
    ("checks", "commands"),
    [(1, 1), (16, 1), (32, 1), (33, 2), (100, 2), (256, 2), (300, 3)],
)
async def test_checks_that_arrive_together_share_script_calls(checks: int, commands: int) -> None:
    """Up to 32 are one script call; more are halved, so that server and client work at the same time; 128 is the most."""
    transport = Transport()
    to = batcher(lambda: Connection(transport))
    futures = [submit(to) for _ in range(checks)]
    assert all(verdict.allowed for verdict in await asyncio.gather(*futures))
    assert len(transport.commands) == commands
    await to.aclose()


async def test_calls_are_answered_whatever_a_connection_raises() -> None:
    """Also before anything was sent on it: no caller waits for ever."""
    to = batcher(lambda: BrokenConnection(Transport()), deadline_s=0.05)
    assert [await reason(future) for future in [submit(to) for _ in range(3)]] == ["connection"] * 3
    await to.aclose()


@pytest.mark.parametrize("sent", [False, True])
async def test_a_short_deadline_behind_long_ones_is_kept(sent: bool) -> None:
    """Each caller gets the own deadline, whether the call waits in the queue or in flight, and the others wait on."""
    transport = Transport()
    transport.replying = False
    to = batcher(lambda: Connection(transport))
    if not sent:  # fill the connection, so that all others wait
        for _ in range(2 * MAX_BATCH):
            submit(to)
    long = [submit(to, deadline_s=8.0) for _ in range(3)]
    await asyncio.sleep(0)
    short = [submit(to, deadline_s=deadline_s) for deadline_s in (0.05, 0.02, 0.03)]
    behind = submit(to, deadline_s=9.0)
    assert [await reason(future) for future in short] == ["timeout"] * 3
    assert not any(future.done() for future in (*long, behind))
    await to.aclose()
    assert [await reason(future) for future in (*long, behind)] == ["connection"] * 4


async def test_deadlines_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many checks wait, with longer and shorter deadlines, the timer is set once, and again for a much earlier one."""
    transport = Transport()
    transport.replying = False
    to = batcher(lambda: Connection(transport))
    loop = asyncio.get_running_loop()
    armed: list[float] = []
    call_at = loop.call_at

    def counting(when: float, *args: Any, **named: Any) -> Any:
        armed.append(when)
        return call_at(when, *args, **named)

    monkeypatch.setattr(loop, "call_at", counting)
    futures = [submit(to, deadline_s=deadline_s) for deadline_s in (9.0, 8.0) * 200]
    assert len(armed) == 1
    futures.append(submit(to, deadline_s=0.5))
    assert len(armed) == 2
    monkeypatch.undo()
    await to.aclose()
    await asyncio.gather(*futures, return_exceptions=True)


async def test_the_earliest_deadline_goes_out_first() -> None:
    """What waits is sent in the order of its deadlines; with equal ones, in the order of arrival."""
    transport = Transport()
    to = batcher(lambda: Connection(transport))
    order: list[int] = []
    for number, deadline_s in enumerate((9.0, 9.0, 8.0, 9.5, 8.0)):
        submit(to, deadline_s=deadline_s).add_done_callback(lambda _, number=number: order.append(number))
    await asyncio.gather(submit(to, deadline_s=10.0))
    assert order == [2, 4, 0, 1, 3]
    await to.aclose()


async def test_a_short_deadline_that_passes_is_no_miss_of_the_server() -> None:
    """A caller in a hurry says nothing about the server: the breaker goes by the storage's own deadline."""
    transport = Transport()
    transport.replying = False
    to = batcher(lambda: Connection(transport), deadline_s=5.0)
    for _ in range(5):
        assert await reason(submit(to, deadline_s=0.01)) == "timeout"
    assert not to.breaker.is_open
    await to.aclose()


async def test_a_server_that_is_silent_for_two_deadlines_is_not_asked_any_more() -> None:
    """Each check that waits is answered, and after that they are refused at once."""
    transport = Transport()
    transport.replying = False
    to = batcher(lambda: Connection(transport), deadline_s=0.05)
    async with asyncio.timeout(20):
        while not to.breaker.is_open:
            assert await reason(submit(to, deadline_s=0.05)) == "timeout"
    with pytest.raises(StorageError) as caught:
        submit(to, deadline_s=0.05)
    assert caught.value.reason == "breaker_open"
    await to.aclose()


async def test_a_full_queue_refuses_at_once() -> None:
    """Beyond what the queue holds a check is an overload, and what is in the queue stays."""
    transport = Transport()
    transport.replying = False
    to = batcher(lambda: Connection(transport))
    futures = [submit(to) for _ in range(MAX_WAITING)]
    with pytest.raises(StorageError) as caught:
        submit(to)
    assert caught.value.reason == "overload"
    assert not any(future.done() for future in futures)
    await to.aclose()
    await asyncio.gather(*futures, return_exceptions=True)


@pytest.mark.parametrize("closed", [False, True], ids=["at their deadline", "when the storage is closed"])
async def test_calls_that_fail_together_leave_the_event_loop_free(closed: bool) -> None:
    """Of thousands a few hundred go on in a turn of the loop, so that other work and replies come between."""
    turn, failed_in = [0], Counter[int]()

    async def count_turns() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    async def wait(future: "asyncio.Future[Verdict]") -> None:
        with pytest.raises(StorageError):
            await future
        failed_in[turn[0]] += 1

    transport = Transport()
    transport.replying = False
    to = batcher(lambda: Connection(transport), deadline_s=0.2)
    waiting = [asyncio.create_task(wait(submit(to, deadline_s=30 if closed else 0.2))) for _ in range(4_000)]
    turns = asyncio.create_task(count_turns())
    while closed and turn[0] < 3:
        await asyncio.sleep(0)
    if closed:
        await to.aclose()
    await asyncio.gather(*waiting)
    turns.cancel()
    assert sum(failed_in.values()) == 4_000
    assert max(failed_in.values()) <= 2 * MAX_BATCH + 256  # those in flight, on one connection, and those that wait
    await to.aclose()


def test_connections_are_closed_with_the_event_loop() -> None:
    """A caller who never closes the storage leaves no task behind when the loop ends."""
    transport = Transport()
    made: list[Batcher] = []

    async def once() -> None:
        made.append(batcher(lambda: Connection(transport)))
        await submit(made[0])
        assert len(made[0].pipelines) == 1

    asyncio.run(once())
    assert made[0].pipelines == []
