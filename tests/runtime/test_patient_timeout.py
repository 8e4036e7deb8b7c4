"""A timeout that tells a wait that is too long from an event loop that is busy."""

import asyncio
import socket
import time

import pytest

from sluicegate.runtime.patient_timeout import PatientTimeout


async def spin(turns: int, seconds: float) -> None:
    """Let the event loop come round so many times, each of them late."""
    for _ in range(turns):
        time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
        await asyncio.sleep(0)


async def test_it_ends_a_wait_that_is_too_long() -> None:
    """And leaves none behind."""
    with pytest.raises(TimeoutError):
        async with PatientTimeout(0.02):
            await asyncio.sleep(60)
    async with PatientTimeout(60):
        await asyncio.sleep(0)


async def test_it_does_not_count_what_the_loop_lost() -> None:
    """Four turns of 50 ms are more than 100 ms, but half of the eight steps."""
    async with PatientTimeout(0.1):
        await spin(4, 0.05)


async def test_it_ends_on_a_loop_that_is_always_busy() -> None:
    """After eight turns or a few more."""
    turns = 0

    async def work() -> None:
        nonlocal turns
        async with PatientTimeout(0.05):
            while turns < 100:
                await spin(1, 0.02)
                turns += 1

    with pytest.raises(TimeoutError):
        await work()
    assert 4 <= turns <= 20


async def test_what_arrived_in_time_is_read_before_it_ends() -> None:
    """The turn in which the time is over computes for long; what came in meanwhile is not late."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        for _ in range(3):
            async with PatientTimeout(0.02):
                receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
                await asyncio.sleep(0.015)
                theirs.send(b"x")
                time.sleep(0.06)  # noqa: ASYNC251 - that is the fault
                assert await receiving == b"x"


async def test_cancellation_passes_through() -> None:
    """It is no timeout."""

    async def wait() -> None:
        async with PatientTimeout(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
