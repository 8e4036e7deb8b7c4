"""The locks of this package: one policy for all of them.

- They are held for bounded work only, never across I/O, a callback or an `await`. Rules are compiled outside of them, except
  when they were changed three times meanwhile.
- A fork waits until each of them is free and holds it meanwhile: the child sees no half-written state, and no lock that a thread
  of the parent has locked.
- Code that interrupts the holder in its own thread, a signal handler or a finaliser, finds the lock its own and goes on. What
  such a lock guards must be right at each instant at which it can be interrupted; where it cannot be, `held_here` tells.
"""

import os
from threading import RLock, get_ident
from time import sleep
from typing import TYPE_CHECKING, Final, cast
from weakref import WeakValueDictionary

from sluicegate.runtime.system_clock import monotonic_s

if TYPE_CHECKING:
    from _thread import RLock as Mutex
    from collections.abc import Callable

_FORK_WAIT_S: Final = 1.0  # longer than all holders work together
_SHORT_YIELDS: Final = 100  # mostly the holder only needs to get the interpreter back
_MAX_YIELDS: Final = 20_000  # a second or two

# By identity. Unlike those of a `WeakSet`, the references can be copied in one step while other threads add some.
_mutexes: "WeakValueDictionary[int, Mutex]" = WeakValueDictionary()
_tokens: "WeakValueDictionary[int, LockToken]" = WeakValueDictionary()
_fork_gate = RLock()  # one thread forks at a time
_forks = [0]
# By the thread that forks, the latest last: a signal handler may fork while its thread does.
_held_for_fork: dict[int, list[tuple[list["Mutex"], list["LockToken"]]]] = {}


def new_mutex() -> "Mutex":
    """Return a re-entrant lock that no thread of the parent can leave locked in a forked child."""
    mutex = RLock()
    _mutexes[id(mutex)] = mutex
    return mutex


def held_here(mutex: "Mutex") -> bool:
    """Return whether the calling thread holds a lock: it has been interrupted in the midst of what the lock guards."""
    is_owned = cast("Callable[[], bool]", mutex._is_owned)  # type: ignore[attr-defined]  # noqa: SLF001 - `Condition` asks it too
    return is_owned()


class LockToken:
    """A lock for the way of a check: a list with one item, which the thread that holds the lock has taken out.

    Taking the item out and putting it back are one step each, which neither another thread nor a signal handler can divide.
    They cost a small fraction of a `with` of a `threading.Lock`; `benchmarks/small_parts.py` measures both. Use it in place,
    for a method of this class would be one more step at which a signal handler may raise and leave the lock locked:

        me = get_ident()
        while True:
            try:
                del free[-1]
            except IndexError:
                if owner[0] == me:
                    ...  # interrupted in the midst of the other branch; return
                wait_until_free(free)
            else:
                owner[0] = me
                break
        try:
            ...
        finally:
            free.append(None)
    """

    __slots__ = ("__weakref__", "free", "owner")

    def __init__(self) -> None:
        self.free: list[None] = [None]
        """The list. It is empty while a thread holds the lock."""
        self.owner: list[int] = [0]
        """The thread that took it last."""
        _tokens[id(self)] = self


def wait_until_free(free: list[None]) -> None:
    """Let other threads run until a lock is free, or seems to be: another thread may be faster.

    Raises:
        TimeoutError: If that takes a second or more. No thread holds the lock for so long, unless it was stopped.
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
    # What is not free in time is held by a thread that was stopped. Fork all the same: hanging here would be worse.
    deadline = monotonic_s() + _FORK_WAIT_S
    _fork_gate.acquire(timeout=_FORK_WAIT_S)
    tokens: list[LockToken] = []
    for token_ref in _tokens.valuerefs():
        token = token_ref()
        if token is not None and _taken(token, deadline):
            tokens.append(token)
    mutexes: list[Mutex] = []
    for mutex_ref in _mutexes.valuerefs():
        mutex = mutex_ref()
        if mutex is not None and mutex.acquire(timeout=max(0.0, deadline - monotonic_s())):
            mutexes.append(mutex)
    _held_for_fork.setdefault(get_ident(), []).append((mutexes, tokens))


def _taken(token: LockToken, deadline: float) -> bool:
    """Take a token as soon as it is free; return whether it was in time, and not held by this thread, which will release it."""
    me = get_ident()
    while True:
        try:
            del token.free[-1]
        except IndexError:
            if token.owner[0] == me or monotonic_s() > deadline:
                return False
            sleep(0.000_05)
        else:
            token.owner[0] = me
            return True


def _after_fork_in_parent() -> None:
    _release(*_held_now())


def _after_fork_in_child() -> None:
    _forks[0] += 1
    me = get_ident()
    mutexes, tokens = _held_now()
    for thread in [thread for thread in _held_for_fork if thread != me]:
        del _held_for_fork[thread]
    for token in [ref() for ref in _tokens.valuerefs()]:
        if token is not None and not token.free and token.owner[0] not in {0, me}:  # its holder is not in this process
            token.free.append(None)
    held = {id(mutex) for mutex in mutexes}
    for mutex in [_fork_gate, *[ref() for ref in _mutexes.valuerefs()]]:
        if mutex is not None and id(mutex) not in held and not held_here(mutex):
            mutex._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - what `threading` itself does in a child
    _release(mutexes, tokens)


def _held_now() -> tuple[list["Mutex"], list[LockToken]]:
    """Return what the calling thread holds for the fork that is ending."""
    forks = _held_for_fork.get(get_ident())
    if not forks:
        return [], []
    held = forks.pop()
    if not forks:
        del _held_for_fork[get_ident()]
    return held


def _release(mutexes: "list[Mutex]", tokens: list[LockToken]) -> None:
    for mutex in mutexes:
        mutex.release()
    for token in tokens:
        token.free.append(None)
    if held_here(_fork_gate):
        _fork_gate.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
