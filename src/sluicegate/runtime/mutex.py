"""The one kind of lock that this package uses: a plain lock that is free in a forked child.

Such a lock is held for bounded work only: never across I/O, a callback or an `await`. It is not re-entrant.
"""

import os
import weakref
from threading import Lock

_FORK_WAIT_S = 1.0  # longer than any holder works

_locks: "weakref.WeakSet[Lock]" = weakref.WeakSet()
_held_while_forking: list[Lock] = []


def new_mutex() -> Lock:
    """Return a lock that no thread of the parent can leave locked in a forked child.

    A fork waits until each such lock is free and holds it meanwhile, so that the child sees no half-written state.
    """
    lock = Lock()
    _locks.add(lock)
    return lock


def _before_fork() -> None:
    _held_while_forking.extend(lock for lock in list(_locks) if lock.acquire(timeout=_FORK_WAIT_S))


def _after_fork_in_parent() -> None:
    for lock in _held_while_forking:
        lock.release()
    _held_while_forking.clear()


def _after_fork_in_child() -> None:
    _held_while_forking.clear()
    for lock in list(_locks):
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - what `threading` itself does in a child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
