"""Whose turn it is: one thread at a time, whatever interrupts it."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluicegate.runtime.turn import Turn


def test_only_one_thread_has_the_turn() -> None:
    """Eight threads that read, sleep and write by turns lose none of each other's writes."""
    turn, box = Turn(), [0]

    def add() -> None:
        read = box[0]
        time.sleep(0)
        box[0] = read + 1

    def work() -> None:
        for _ in range(50):
            turn.during(add)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    assert box == [400]


def test_it_is_taken_once() -> None:
    """Who asks while somebody has it is told, and may wait for it."""
    turn = Turn()
    turn.take()
    with pytest.raises(IndexError):
        turn.take()
    waiting = threading.Thread(target=turn.wait)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    turn.give(None)
    waiting.join(5)
    assert not waiting.is_alive()
    with pytest.raises(IndexError):
        turn.take()


def test_an_error_inside_gives_the_turn_back() -> None:
    """Whatever is raised in somebody's turn, the next one has it."""
    turn = Turn()
    with pytest.raises(ZeroDivisionError):
        turn.during(lambda: 1 / 0)
    assert turn.during(lambda: 7) == 7


class Interrupted(BaseException):
    """Raised by a signal's handler."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
def test_a_signals_handler_that_raises_leaves_the_turn_free() -> None:
    """An alarm that interrupts turns at random instants never leaves one taken, nor two of them."""
    turn, interrupted = Turn(), 0

    def raise_it(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        for n in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + n % 10 * 0.00001)
                while True:
                    turn.during(int)
            except Interrupted:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 300
    assert turn._items == [None]
