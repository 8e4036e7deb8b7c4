"""The locks of this package. They are held for bounded work only, never across I/O, a callback or an `await`.

A fork waits until each of them is free and holds it meanwhile: the child sees no half-written state, and no lock that a thread of
the parent has locked. None of them is re-entrant.
"""

import os
import weakref
from threading import Lock, get_ident
from time import sleep

_FORK_WAIT_S = 1.0  # longer than any holder works
_SHORT_YIELDS = 100  # mostly the holder only needs to get the interpreter back
_MAX_YIELDS = 20_000  # a second or two

_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()
_tokens: "weakref.WeakSet[LockToken]" = weakref.WeakSet()
_forks = [0]
_held_for_fork: dict[int, tuple[list[Lock], list["LockToken"]]] = {}  # by the thread that forks


def new_mutex() -> Lock:
    """Return a lock that no thread of the parent can leave locked in a forked child."""
    lock = Lock()
    _locks.add(lock)
    return lock


class LockToken:
    """A lock for the way of a check: a list with one item, which the thread that holds the lock has taken out.

    Taking the item out and putting it back are one step each, which neither another thread nor a signal handler can divide.
    They cost a small fraction of a `with` of a `threading.Lock`; `benchmarks/small_parts.py` measures both. Use it in place,
    for a method of this class would be one more step at which a signal handler may raise and leave the lock locked:

        while True:
            try:
                del free[-1]
            except IndexError:
                wait_until_free(free)
            else:
                break
        try:
            ...
        finally:
            free.append(None)
    """

    __slots__ = ("__weakref__", "free")

    def __init__(self) -> None:
        self.free: list[None] = [None]
        """The list. It is empty while a thread holds the lock."""
        _tokens.add(self)


def wait_until_free(free: list[None]) -> None:
    """Let other threads run until a lock is free, or seems to be: another thread may be faster.

    Raises:
        TimeoutError: If that takes a second or more. No thread holds the lock for so long; but code that interrupts the holder
            in its own thread, a finaliser or a signal handler, would wait for itself.
    """
    for nth in range(_MAX_YIELDS):
        if free:
            return
        sleep(0 if nth < _SHORT_YIELDS else 0.000_05)
    raise TimeoutError("a lock was not released in time")


def fork_count() -> int:
    """Return how often this process was forked off: a child counts one more than its parent."""
    return _forks[0]


def _before_fork() -> None:
    # A lock that is not free in time is held by the thread that forks, which will release it in both processes.
    tokens = [token for token in list(_tokens) if _taken(token.free)]
    locks = [lock for lock in list(_locks) if lock.acquire(timeout=_FORK_WAIT_S)]
    _held_for_fork[get_ident()] = locks, tokens


def _taken(free: list[None]) -> bool:
    """Take a token as soon as it is free; return whether it was in time."""
    while True:
        try:
            wait_until_free(free)
            del free[-1]
        except IndexError:
            continue
        except TimeoutError:
            return False
        return True


def _after_fork_in_parent() -> None:
    locks, tokens = _held_for_fork.pop(get_ident(), ((), ()))
    for lock in locks:
        lock.release()
    for token in tokens:
        token.free.append(None)


def _after_fork_in_child() -> None:
    _forks[0] += 1
    locks, tokens = _held_for_fork.pop(get_ident(), ((), ()))
    _held_for_fork.clear()
    for lock in locks:
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - what `threading` itself does in a child
    for token in tokens:
        token.free.append(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
