"""The locks of this package. They are held for bounded work only, never across I/O, a callback or an `await`.

A fork waits until each of them is free and holds it meanwhile: the child sees no half-written state, and no lock that a thread of
the parent has locked. None of them is re-entrant.
"""

import os
import weakref
from threading import Lock
from time import sleep

_FORK_WAIT_S = 1.0  # longer than any holder works
_SHORT_YIELDS = 100  # mostly the holder only needs to get the interpreter back
_MAX_YIELDS = 20_000  # a second or two

_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()
_tokens: "weakref.WeakSet[LockToken]" = weakref.WeakSet()
_locked_for_fork: list[Lock] = []
_taken_for_fork: list["LockToken"] = []


def new_mutex() -> Lock:
    """Return a lock that no thread of the parent can leave locked in a forked child."""
    lock = Lock()
    _locks.add(lock)
    return lock


class LockToken:
    """A lock for the way of a check: a list with one item, which the thread that holds the lock has taken out.

    Taking the item out and putting it back are one step each, which neither another thread nor a signal handler can divide.
    They cost 5 ns in compiled code, where a `with` of a `threading.Lock` costs 150. Use it in place, for a method of this
    class would be one more step at which a signal handler may raise and leave the lock locked:

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


def _before_fork() -> None:
    _locked_for_fork.extend(lock for lock in list(_locks) if lock.acquire(timeout=_FORK_WAIT_S))
    for token in list(_tokens):
        try:
            wait_until_free(token.free)
            del token.free[-1]
        except (IndexError, TimeoutError):
            continue
        _taken_for_fork.append(token)


def _after_fork_in_parent() -> None:
    for lock in _locked_for_fork:
        lock.release()
    for token in _taken_for_fork:
        token.free.append(None)
    _locked_for_fork.clear()
    _taken_for_fork.clear()


def _after_fork_in_child() -> None:
    _locked_for_fork.clear()
    _taken_for_fork.clear()
    for lock in list(_locks):
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - what `threading` itself does in a child
    for token in list(_tokens):
        token.free[:] = [None]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
