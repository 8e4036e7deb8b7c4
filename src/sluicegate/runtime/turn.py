"""Whose turn it is: a lock for a few hundred nanoseconds, at a fraction of the price of `threading.Lock`."""

import os
import weakref
from collections.abc import Callable
from threading import Lock
from time import sleep
from typing import ParamSpec, TypeVar

_FORK_TRIES = 1000

P = ParamSpec("P")
T = TypeVar("T")


class Turn:
    """Let one thread in at a time; not to be entered twice by the same.

    A list with one item stands for the turn. Taking the item out and putting it back are one step each, which no other
    thread can divide, with an interpreter lock as without. A thread that finds the list empty, which happens only where it
    got the interpreter in the middle of another's turn, waits: all but the first of those asleep. A fork waits for all turns, so
    that none is taken for ever in the child.
    """

    __slots__ = ("__weakref__", "_items", "_queue", "give", "take")

    def __init__(self) -> None:
        self._items: list[None] = [None]
        self._queue = Lock()
        self.take = self._items.pop
        """Take the turn. Raises `IndexError` where somebody else has it; any other exception comes from a signal's handler
        and leaves the turn taken."""
        self.give = self._items.append
        """Give the turn back: `give(None)`, by who has it and nobody else."""
        _turns.add(self)

    def wait(self) -> None:
        """Take the turn once it is given back."""
        while True:
            with self._queue:
                while not self._items:
                    sleep(0)  # lets the others run, the one whose turn it is among them
            try:
                self.take()
            except IndexError:
                continue  # somebody who did not wait was faster
            except BaseException:
                self.give(None)
                raise
            return

    def during(self, call: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """Call something in one's turn.

        Not a `with`: a signal's handler may raise on the way into an `__exit__` that is written in Python.
        """
        try:
            self.take()
        except IndexError:
            self.wait()
        except BaseException:
            self.give(None)
            raise
        try:
            return call(*args, **named)
        finally:
            self.give(None)

    def renew_queue(self) -> None:
        """Forget who waited, in a child process: these threads are not in it."""
        self._queue = Lock()


_turns: "weakref.WeakSet[Turn]" = weakref.WeakSet()
_held_through_fork: list[Turn] = []


def _before_fork() -> None:
    for turn in list(_turns):
        for _ in range(_FORK_TRIES):  # longer than any turn lasts, but for one that this very thread was interrupted in
            try:
                turn.take()
            except IndexError:
                sleep(0.001)
            else:
                _held_through_fork.append(turn)
                break


def _after_fork(*, in_child: bool) -> None:
    for turn in _held_through_fork:
        if in_child:
            turn.renew_queue()
        turn.give(None)
    _held_through_fork.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(in_child=False),
        after_in_child=lambda: _after_fork(in_child=True),
    )
