"""Whose turn it is: one thread at a time, whatever interrupts it."""

import os
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


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_every_turn() -> None:
    """What another thread has begun is ended before the process doubles: in the child that thread would never end it."""
    turn = Turn()
    taken, given = threading.Event(), []

    def take_long() -> None:
        turn.take()
        taken.set()
        time.sleep(0.1)
        given.append(True)
        turn.give(None)

    thread = threading.Thread(target=take_long)
    thread.start()
    taken.wait()
    pid = os.fork()
    if pid == 0:
        turn.during(list)
        os._exit(0 if given else 1)
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    assert turn.during(list) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_thread_may_fork_in_its_own_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal's handler might: the fork does not wait for ever, and both processes end the turn."""
    monkeypatch.setattr("sluicegate.runtime.turn._FORK_TRIES", 3)
    turn = Turn()

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            turn.give(None)
            turn.during(list)
            os._exit(0)
        return pid

    assert os.waitpid(turn.during(fork), 0)[1] == 0
    assert turn.during(list) == []
