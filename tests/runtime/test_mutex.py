"""The locks of the package: one holder at a time, and none that a fork leaves locked."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sluicegate.runtime.mutex import LockToken, fork_count, new_mutex, wait_until_free

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def take(token: LockToken) -> None:
    """Take the item as `LockToken` tells its users to."""
    me = threading.get_ident()
    while True:
        try:
            del token.free[-1]
        except IndexError:
            assert token.owner[0] != me
            wait_until_free(token.free)
        else:
            token.owner[0] = me
            return


def free_for_all(mutex: Any) -> bool:
    """Return whether another thread could take a re-entrant lock."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: mutex.acquire(blocking=False) and mutex.release() is None).result()


def forked(check: Callable[[], bool]) -> bool:
    """Return whether a check is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # ends it if it hangs
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def test_only_one_thread_holds_a_token() -> None:
    """Eight threads that read, sleep and write lose none of each other's writes."""
    token, box = LockToken(), [0]

    def work() -> None:
        for _ in range(50):
            take(token)
            try:
                read = box[0]
                time.sleep(0)
                box[0] = read + 1
            finally:
                token.free.append(None)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(8)]:
            future.result()
    assert box == [400]
    assert token.free == [None]


def test_waiting_ends_when_the_token_is_free() -> None:
    """A thread that waits goes on once the holder is done, and not before."""
    token = LockToken()
    take(token)
    waiting = threading.Thread(target=wait_until_free, args=(token.free,))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    token.free.append(None)
    waiting.join(5)
    assert not waiting.is_alive()


def test_waiting_for_a_thread_that_was_stopped_is_given_up() -> None:
    """The failure policy answers then, where a lock of `threading` would hang for ever."""
    token = LockToken()
    take(token)
    with pytest.raises(TimeoutError, match="not released in time"):
        wait_until_free(token.free)


@needs_fork
def test_a_fork_waits_for_the_holder_of_a_token() -> None:
    """What another thread has begun is ended before the process doubles: in the child that thread would never end it."""
    token = LockToken()
    held, ended = threading.Event(), []

    def hold() -> None:
        take(token)
        held.set()
        time.sleep(0.1)
        ended.append(True)
        token.free.append(None)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert forked(lambda: bool(ended) and token.free == [None])
    thread.join()
    assert token.free == [None]


@needs_fork
def test_a_fork_waits_for_the_holder_of_a_mutex() -> None:
    """The child gets a free lock, and the parent keeps one."""
    mutex = new_mutex()
    held, ended = threading.Event(), []

    def hold() -> None:
        with mutex:
            held.set()
            time.sleep(0.1)
            ended.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert forked(lambda: bool(ended) and free_for_all(mutex))
    thread.join()
    assert free_for_all(mutex)


@needs_fork
def test_the_holder_itself_may_fork() -> None:
    """As a signal handler might: the fork does not wait for ever, and each process releases its lock once."""
    token, mutex = LockToken(), new_mutex()

    def release() -> bool:
        token.free.append(None)
        mutex.release()
        return token.free == [None] and free_for_all(mutex)

    take(token)
    mutex.acquire()
    assert forked(release)
    assert release()


@needs_fork
def test_threads_may_fork_at_once() -> None:
    """Each fork holds the locks for itself: none is released twice, and none is left locked."""
    token, mutex = LockToken(), new_mutex()

    def usable() -> bool:
        return token.free == [None] and free_for_all(mutex)

    with ThreadPoolExecutor(4) as pool:
        children = [pool.submit(forked, usable) for _ in range(20)]
        assert all(child.result() for child in children)
    assert token.free == [None]
    assert free_for_all(mutex)


@needs_fork
def test_a_child_counts_one_fork_more() -> None:
    """So that what belongs to one process is not used by another."""
    before = fork_count()
    assert forked(lambda: fork_count() == before + 1)
    assert fork_count() == before
